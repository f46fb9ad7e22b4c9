"""The README's table of what fits which camera is true."""

import importlib
import json
import pathlib
import sys

import pytest

import keras_omv as omv
from keras_omv.architecture import BLOCKS, Levers
from keras_omv.space import ALPHAS, HEAD_CHANNELS, RESOLUTIONS

FOLDER = pathlib.Path(__file__).parent.parent / "benchmarks"
CONTENT = json.loads((FOLDER / "results" / "what_fits.json").read_text())
ROWS = CONTENT["rows"]


@pytest.fixture
def what_fits(monkeypatch):
    """The benchmark, imported as its command does."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = {*sys.modules}
    yield importlib.import_module("what_fits")
    for name in ({*sys.modules} - before) & {"what_fits", "common"}:
        del sys.modules[name]


def levers_of(row, **other):
    names = ("alpha", "resolution", "head_channels", "depth")
    levers = {name: row[name] for name in names}
    return Levers(**{**levers, "channels": 3, "classes": 5, **other})


def fits(row, **other):
    board = omv.get_board(row["board"], firmware="5.0")
    return board.fit(omv.estimate(levers_of(row, **other), board=board)).fits


def test_the_table_is_what_the_code_says_today(what_fits):
    assert json.loads(json.dumps(what_fits.run())) == CONTENT


def test_every_camera_is_in_the_table():
    assert list(dict.fromkeys(row["board"] for row in ROWS)) == [*omv.board_names()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['board']} {row['what']}")
def test_a_row_costs_what_the_planned_network_costs_and_fits(row):
    board = omv.get_board(row["board"], firmware="5.0")
    cost = omv.estimate(levers_of(row), board=board)
    assert (row["flash_bytes"], row["ram_bytes"]) == (cost.flash_bytes, cost.ram_bytes)
    assert row["latency_ms"] == pytest.approx(cost.latency_ms, abs=0.05)
    verdict = board.fit(cost)
    assert verdict.fits
    assert row["storage"] == verdict.storage
    assert row["ram_bytes"] <= row["ram_limit_bytes"] == verdict.ram_limit_bytes


@pytest.mark.parametrize("name", ["openmv-h7", "arduino-nicla-vision"])
def test_nothing_sharper_or_wider_than_a_row_fits(name):
    sharpest, widest = (row for row in ROWS if row["board"] == name)
    assert sharpest["what"] == "sharpest of alpha 0.35"
    assert widest["what"] == "widest at 96 px"
    for head in HEAD_CHANNELS:
        for side in RESOLUTIONS:
            if side > sharpest["resolution"]:
                assert not fits(sharpest, resolution=side, head_channels=head)
        for alpha in ALPHAS:
            if alpha > widest["alpha"]:
                assert not fits(widest, alpha=alpha, head_channels=head)


def test_no_whole_network_fits_the_smallest_camera():
    (row,) = (row for row in ROWS if row["board"] == "openmv-m7")
    assert row["depth"] < BLOCKS
    smallest = {"alpha": min(ALPHAS), "resolution": min(RESOLUTIONS), "depth": BLOCKS}
    assert not fits(row, head_channels=64, **smallest)


def test_the_markdown_says_what_is_cut_and_what_only_a_compiler_knows(what_fits):
    text = what_fits.table(CONTENT)
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert len(lines) == len(ROWS)
    for line, row in zip(lines, ROWS, strict=True):
        assert line.startswith(f"| {row['title']} | {row['alpha']:g}")
        assert ("of 17 blocks" in line) == (row["depth"] < BLOCKS)
        assert ("ms" in line) == (row["board"] != "openmv-n6")
        assert ("²" in line) == (row["board"] == "openmv-n6")
    assert "stedgeai" in text
