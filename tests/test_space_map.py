"""The picture of what fits a camera is that of the fit, network by network."""

import re

import exports
import pytest

import keras_omv as omv
from keras_omv.space import ALPHAS
from keras_omv.space_map import BOTH, FITS, FLASH, RAM, SIDES, space_map


@pytest.mark.parametrize(
    "board",
    [omv.get_board("openmv-h7"), omv.Budget(flash_bytes=300_000, ram_bytes=120_000)],
    ids=["camera", "budget"],
)
def test_every_network_lies_in_the_rectangle_of_what_stops_it(board):
    drawn = space_map(board, classes=4, channels=1)
    stops = {
        (run.row, run.left + place): run.stop
        for run in drawn.runs
        for place in range(run.width)
    }
    assert len(stops) == sum(run.width for run in drawn.runs) == 15 * 13
    for (row, column), stop in stops.items():
        levers = omv.Levers(
            alpha=ALPHAS[row], resolution=SIDES[column], classes=4, channels=1
        )
        fit = board.fit(omv.estimate(levers, board=board))
        assert (stop in (FLASH, BOTH)) == (fit.flash_over_bytes > 0)
        assert (stop in (RAM, BOTH)) == (fit.ram_over_bytes > 0)
        assert (stop == FITS) == fit.fits
    assert drawn.fitting == list(stops.values()).count(FITS)


@pytest.mark.parametrize(
    ("marked", "column"), [(32, 0), (40, 0.5), (224, 12), (16, None), (None, None)]
)
def test_a_resolution_is_marked_where_it_lies(marked, column):
    drawn = space_map(omv.Budget(), classes=2, channels=3, marked=marked)
    assert drawn.column == column


def test_the_report_shows_it(tmp_path):
    made = exports.make_export(tmp_path / "camera")
    drawn = space_map(omv.get_board(exports.BOARD), classes=3, channels=3)
    text = made.text("report.html")
    shown = re.findall(r'<rect class="(fits|flash|ram|both)"', text)
    assert shown == [run.stop for run in drawn.runs]
    assert f"{drawn.fitting} of 195, of all 17 blocks" in text
