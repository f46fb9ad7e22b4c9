"""Which MobileNetV2s fit, and what to change about one that does not."""

import itertools
import time

import numpy as np
import pytest

import keras_omv as omv
from keras_omv import flatbuffer
from keras_omv.architecture import Levers, network_of_levers
from keras_omv.changes import nearest_changes, other_boards
from keras_omv.cost import cost_of
from keras_omv.screening import cost_of_levers
from keras_omv.space import feasible_points

GRID = {
    "alphas": (0.05, 0.1, 0.35, 0.5),
    "resolutions": (96, 32, 64),
    "head_channels": (None, 160),
    "depths": (17, 6),
}


def written_cost(levers, board):
    """The cost by writing the file and planning the network."""
    network = network_of_levers(levers)
    return cost_of(network, flash_bytes=len(flatbuffer.write(network)), board=board)


def shape(levers):
    """What two levers of one network have in common."""
    return levers.resolution, levers.channels, levers.stem, levers.blocks, levers.head


@pytest.mark.parametrize(
    ("name", "firmware"),
    [
        ("openmv-m7", "5.0"),
        ("openmv-h7", "5.0"),
        ("openmv-h7", "4.5.5"),
        ("openmv-h7", "4.6.20"),
        ("arduino-nicla-vision", "5.0"),
        ("openmv-ae3", "5.0"),
    ],
)
def test_brute_force_over_a_grid_finds_the_same(name, firmware):
    board = omv.get_board(name, firmware=firmware)
    expected = {}
    for alpha, resolution, head, depth, channels in itertools.product(
        *GRID.values(), (1, 3)
    ):
        levers = Levers(
            alpha=alpha,
            resolution=resolution,
            channels=channels,
            classes=3,
            head_channels=head,
            depth=depth,
        )
        cost = written_cost(levers, board)
        if board.fit(cost).fits:
            expected[shape(levers)] = (cost.macs, cost.ram_bytes, cost.flash_bytes)
    points = feasible_points(board, classes=3, **GRID)
    found = {
        shape(p.levers): (p.cost.macs, p.cost.ram_bytes, p.cost.flash_bytes)
        for p in points
    }
    assert found == expected
    assert len(points) == len(found)
    macs = [point.cost.macs for point in points]
    assert macs == sorted(macs, reverse=True)


@pytest.mark.parametrize("name", omv.board_names())
def test_every_board_has_points_and_all_of_them_fit(name):
    board = omv.get_board(name)
    points = feasible_points(board, classes=5, resolutions=(32, 96, 224))
    assert points
    for point in points[:: max(1, len(points) // 200)]:
        board.check(point.cost)
    for point in (points[0], points[-1]):
        exact = written_cost(point.levers, board)
        assert point.cost.flash_bytes == exact.flash_bytes
        assert point.cost.ram_bytes == exact.ram_bytes
        board.check(exact)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_smallest_camera_has_candidates(classes, channels):
    board = omv.get_board("openmv-m7")
    points = feasible_points(board, classes=classes, channels=channels)
    assert points
    assert {point.levers.channels for point in points} == {channels}


def test_a_limit_keeps_the_best():
    board = omv.get_board("openmv-h7")
    points = feasible_points(board, classes=3, **GRID)
    assert feasible_points(board, classes=3, limit=3, **GRID) == points[:3]


def test_a_budget_is_a_board():
    budget = omv.Budget(ram_bytes=60_000)
    points = feasible_points(budget, classes=3, **GRID)
    assert points
    assert max(point.cost.ram_bytes for point in points) <= 60_000
    everything = feasible_points(omv.Budget(), classes=3, **GRID)
    left_out = {p.levers for p in everything} - {p.levers for p in points}
    assert min(cost_of_levers(levers).ram_bytes for levers in left_out) > 60_000
    assert feasible_points(omv.Budget(ram_bytes=100), classes=3, **GRID) == ()


def test_one_network_is_listed_once():
    points = feasible_points(
        omv.Budget(),
        classes=2,
        channels=1,
        alphas=(0.4, 0.5),
        resolutions=(32,),
        head_channels=(64,),
        depths=(3,),
    )
    assert [point.levers.alpha for point in points] == [0.4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "classes=1"),
        ({"classes": 2, "channels": 2}, "channels=2"),
        ({"classes": 2, "alphas": (0.0,)}, r"alpha=0\.0"),
        ({"classes": 2, "resolutions": (0,)}, "resolution=0"),
        ({"classes": 2, "depths": (18,)}, "depth=18"),
        ({"classes": 2, "head_channels": (0,)}, "head_channels=0"),
        ({"classes": 2, "limit": 0}, "limit=0"),
    ],
)
def test_levers_without_a_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        feasible_points(omv.get_board("openmv-m7"), **options)


def test_one_value_of_a_lever_may_stand_alone():
    budget = omv.Budget()
    alone = {"alphas": 0.35, "resolutions": 32, "head_channels": None, "depths": 6}
    several = {name: (value,) for name, value in alone.items()}
    points = feasible_points(budget, classes=2, channels=1, **alone)
    assert len(points) == 1
    assert points == feasible_points(budget, classes=2, channels=(1,), **several)


def test_a_camera_may_be_given_by_its_name():
    board = omv.get_board("openmv-h7")
    assert feasible_points("OPENMV4", classes=3, **GRID) == feasible_points(
        board, classes=3, **GRID
    )
    levers = Levers(alpha=0.35, resolution=96, classes=5)
    assert nearest_changes(levers, "openmv-h7") == nearest_changes(levers, board)
    cost = omv.estimate(levers, board="openmv-h7")
    assert cost == omv.estimate(levers, board=board)
    for call in (
        lambda: omv.estimate(levers, board=5),
        lambda: feasible_points(None, classes=3),
        lambda: nearest_changes(levers, None),
    ):
        with pytest.raises(ValueError, match=r"omv\.get_board"):
            call()


@pytest.mark.parametrize(
    "lever",
    [
        {"resolution": 96.5},
        {"resolution": (96, 96)},
        {"resolution": True},
        {"alpha": float("inf")},
        {"alpha": float("nan")},
        {"alpha": "0.35"},
        {"classes": 5.0},
        {"classes": "5"},
        {"channels": 3.0},
        {"depth": 3.5},
        {"head_channels": 64.5},
    ],
)
def test_levers_are_whole_numbers_and_a_finite_alpha(lever):
    levers = {"alpha": 0.35, "resolution": 96, "classes": 5, **lever}
    (name,) = lever
    with pytest.raises(ValueError, match=rf"argument `{name}`. Expected .* Received"):
        omv.estimate(**levers)


def test_levers_of_numpy_are_numbers_too():
    levers = Levers(alpha=np.float32(0.5), resolution=np.int64(32), classes=np.int32(2))
    plain = Levers(alpha=0.5, resolution=32, classes=2)
    assert omv.estimate(levers) == omv.estimate(plain)


@pytest.mark.parametrize(
    "lever", [{"depth": 3}, {"channels": 1}, {"head_channels": 64}, {"alpha": 0.5}]
)
def test_a_lever_beside_a_model_is_refused(lever):
    ((name, value),) = lever.items()
    with pytest.raises(ValueError, match=f"Received: both.*{name}={value}"):
        omv.estimate(Levers(alpha=0.35, resolution=96, classes=5), **lever)


def test_a_file_that_is_missing_is_named_with_the_next_step(tmp_path):
    for name, error in (
        ("missing.tflite", omv.ModelFileError),
        ("missing.TFLITE", omv.ModelFileError),
        ("missing.keras", omv.ExportError),
    ):
        with pytest.raises(error, match=rf"{name}', which does not exist\. "):
            omv.estimate(tmp_path / name)
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(omv.ModelFileError, match="which is no file"):
        omv.estimate(tmp_path / "folder.tflite")
    with pytest.raises(omv.ExportError, match=r"\.keras, \.h5 or \.tflite.*x\.txt"):
        omv.estimate("x.txt")


def test_a_suffix_in_capitals_is_a_suffix(tmp_path):
    network = network_of_levers(Levers(alpha=0.05, resolution=32, classes=2, depth=3))
    assert isinstance(network, omv.Network)
    path = tmp_path / "MODEL.TFLITE"
    path.write_bytes(flatbuffer.write(network))
    found = omv.estimate(path)
    assert found.ram_bytes == omv.estimate(network).ram_bytes
    assert found.flash_bytes == path.stat().st_size


def test_a_whole_space_takes_seconds():
    start = time.process_time()
    feasible_points(omv.get_board("openmv-h7-plus"), classes=10)
    # About 1 s; benchmarks/screening.py measures it.
    assert time.process_time() - start < 10


def test_the_nearest_changes_fit_and_the_next_larger_does_not():
    board = omv.get_board("openmv-h7")
    levers = Levers(alpha=0.35, resolution=96, classes=5)
    changes = {change.what: change for change in nearest_changes(levers, board)}
    assert {"alpha", "head_channels", "depth", "board"} <= set(changes)
    depth = changes["depth"].value
    deeper, kept = (
        Levers(alpha=0.35, resolution=96, classes=5, depth=d)
        for d in (depth + 1, depth)
    )
    assert board.fit(written_cost(kept, board)).fits
    assert not board.fit(written_cost(deeper, board)).fits
    assert changes["depth"].cost == cost_of_levers(kept, board=board)
    assert "head" in changes["head_channels"].sentence
    for change in changes.values():
        assert "KiB of RAM" in change.sentence


def test_where_no_lever_is_enough_several_change():
    board = omv.get_board("openmv-m7")
    change, *others = nearest_changes(
        Levers(alpha=1.0, resolution=224, classes=5), board
    )
    assert change.what == "levers"
    board.check(written_cost(change.value, board))
    assert others
    assert {other.what for other in others} == {"board"}


def test_what_fits_needs_no_change():
    levers = Levers(alpha=0.05, resolution=32, classes=2, depth=3, head_channels=64)
    assert nearest_changes(levers, omv.get_board("openmv-m7")) == ()


def test_a_budget_that_nothing_fits_leaves_the_cameras():
    levers = Levers(alpha=0.35, resolution=96, classes=5)
    changes = nearest_changes(levers, omv.Budget(ram_bytes=1000))
    assert {change.what for change in changes} == {"board"}


def test_other_boards_know_the_release():
    board = omv.get_board("openmv-h7", firmware="4.5.5")
    cost = cost_of_levers(Levers(alpha=0.35, resolution=96, classes=5), board=board)
    names = {change.value for change in other_boards(board, lambda other: cost)}
    assert "openmv-h7-plus" in names
    assert not {"openmv-ae3", "openmv-n6", "openmv-h7"} & names
