"""The closed form against the modules that do the work: writing, planning, counting."""

import json
import pathlib
import random
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_omv as omv
from keras_omv import arena, flatbuffer
from keras_omv.architecture import BLOCKS, Levers, network_of_levers
from keras_omv.cost import cost_of
from keras_omv.screening import Trunk, cost_of_levers
from keras_omv.space import ALPHAS, DEPTHS, HEAD_CHANNELS, RESOLUTIONS

CORES = {"cortex-m7": "openmv-h7", "cortex-m55": "openmv-ae3"}


def assert_exact(levers):
    network = network_of_levers(levers)
    flash_bytes = len(flatbuffer.write(network))
    for name in CORES.values():
        board = omv.get_board(name)
        expected = cost_of(network, flash_bytes=flash_bytes, board=board)
        found = cost_of_levers(levers, board=board)
        for field in ("flash_bytes", "ram_bytes", "macs", "parameters"):
            assert getattr(found, field) == getattr(expected, field), (levers, field)
        assert found.latency_ms == expected.latency_ms
        assert found.latency_range_ms == expected.latency_range_ms


MEASURED = json.loads(
    (pathlib.Path(__file__).parent / "data/device-ram/device-ram.json").read_text()
)["models"]


@pytest.mark.parametrize("name", [n for n in MEASURED if n.startswith("mnv2")])
def test_levers_alone_give_the_ram_that_the_firmware_reports(name):
    pattern = r"mnv2_a(\d+)_r(\d+)_c(\d)_k(\d+)"
    alpha, resolution, channels, classes = map(int, re.match(pattern, name).groups())
    levers = Levers(
        alpha=alpha / 100, resolution=resolution, channels=channels, classes=classes
    )
    measured = MEASURED[name]
    assert omv.estimate(levers).ram_bytes == measured["device_ram_bytes"]
    if "device_ram_bytes_m55" in measured:
        cost = omv.estimate(levers, board="openmv-ae3")
        assert cost.ram_bytes == measured["device_ram_bytes_m55"]


@pytest.mark.parametrize("seed", range(10))
def test_the_grid_is_exact_to_the_byte(seed):
    dice = random.Random(seed)
    for _ in range(30):
        assert_exact(
            Levers(
                alpha=dice.choice(ALPHAS),
                resolution=dice.choice(RESOLUTIONS),
                channels=dice.choice((1, 3)),
                classes=dice.choice((2, 3, 5, 10, 100, 1000)),
                head_channels=dice.choice(HEAD_CHANNELS),
                depth=dice.choice(DEPTHS),
            )
        )


@given(
    st.builds(
        Levers,
        alpha=st.floats(0.001, 1.6),
        resolution=st.integers(1, 240),
        channels=st.sampled_from((1, 3)),
        classes=st.integers(2, 300),
        head_channels=st.none() | st.integers(1, 1500),
        depth=st.integers(1, BLOCKS),
    )
)
@settings(max_examples=200, deadline=None)
def test_any_levers_are_exact_to_the_byte(levers):
    assert_exact(levers)


# Shapes that occur twice are in the file once: between activations, weights, biases,
# indices and the classifier.
@pytest.mark.parametrize(
    "levers",
    [
        Levers(alpha=0.2, resolution=5, classes=5, head_channels=640, depth=11),
        Levers(alpha=0.35, resolution=6, classes=5),
        Levers(alpha=0.05, resolution=1, classes=2, head_channels=2, depth=1),
        Levers(alpha=0.35, resolution=32, classes=64, head_channels=64),
        Levers(alpha=0.35, resolution=96, classes=8, head_channels=16, depth=3),
        Levers(alpha=1.0, resolution=96, classes=160, head_channels=163),
        Levers(alpha=0.35, resolution=96, classes=1000, head_channels=1),
    ],
)
def test_coincidences_are_exact(levers):
    assert_exact(levers)


@pytest.mark.parametrize("core", CORES)
def test_a_bound_never_exceeds_the_ram(core):
    trunk = Trunk(alpha=0.35, resolution=96, channels=3, core=core)
    for depth in range(1, BLOCKS + 1):
        bound = trunk.least_ram_bytes(depth, 1280, 5)
        assert bound <= trunk.ram_bytes(depth, 1280, 5)
    assert bound == trunk.ram_bytes(BLOCKS, 1280, 5)


def test_the_known_arena_of_a_measured_file():
    # tests/data/device-ram: mnv2_a035_r64_c3_k10 on a Cortex-M7.
    levers = Levers(alpha=0.35, resolution=64, classes=10)
    assert cost_of_levers(levers).ram_bytes == 128_352


def test_one_trunk_serves_all_ends():
    trunk = Trunk(alpha=0.2, resolution=64, channels=1)
    for depth, head in ((17, 1280), (3, 64), (10, 64), (17, 64), (1, 1280)):
        levers = Levers(
            alpha=0.2,
            resolution=64,
            channels=1,
            classes=4,
            head_channels=head,
            depth=depth,
        )
        network = network_of_levers(levers)
        assert trunk.ram_bytes(depth, head, 4) == arena.plan(network).ram_bytes
        assert trunk.macs(depth, head, 4) == network.macs


def test_an_estimate_by_levers_builds_nothing():
    levers = Levers(alpha=0.35, resolution=96, classes=5)
    by_keywords = omv.estimate(alpha=0.35, resolution=96, classes=5)
    assert by_keywords == omv.estimate(levers)
    network = network_of_levers(levers)
    assert by_keywords == omv.estimate(network)
    assert by_keywords.arena == arena.plan(network)
    board = omv.get_board("openmv-ae3")
    assert omv.estimate(levers, board=board) == omv.estimate(network, board=board)


def test_an_estimate_needs_a_model_or_its_levers():
    with pytest.raises(ValueError, match="no model and no resolution and no classes"):
        omv.estimate(alpha=0.35)
    levers = Levers(alpha=0.35, resolution=96, classes=5)
    with pytest.raises(ValueError, match=r"Received: both.*alpha=0\.1"):
        omv.estimate(levers, alpha=0.1)
    with pytest.raises(ValueError, match="channels=2"):
        omv.estimate(alpha=0.35, resolution=96, classes=5, channels=2)


def test_screening_loads_no_tensorflow():
    code = (
        "import sys, keras_omv as omv; "
        "board = omv.get_board('openmv-h7'); "
        "omv.feasible_points(board, classes=2, alphas=[0.1], resolutions=[32]); "
        "omv.estimate(alpha=0.35, resolution=96, classes=5, board=board); "
        "loaded = {'tensorflow', 'keras', 'ai_edge_quantizer'} & set(sys.modules); "
        "sys.exit(len(loaded))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
