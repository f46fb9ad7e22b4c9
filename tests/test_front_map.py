"""The search in report.html: its trials, its front and the place of the model."""

import dataclasses
import json
import re
import shutil

import exports
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_report_check import rewrite
from test_results import result

import keras_omv as omv
from keras_omv.front_map import BEATEN, FRONT, STOPPED, front_map, trial_figures
from keras_omv.report_check import check_folder

BOARD = omv.get_board(exports.BOARD)
OUTCOMES = st.tuples(
    st.integers(10_000, 10_006), st.integers(0, 10).map(lambda n: n / 10), st.booleans()
)


def trial(alpha, accuracy, *, stopped=False):
    """A trial that costs what its levers cost."""
    levers = omv.Levers(alpha=alpha, resolution=48, classes=3, head_channels=64)
    cost = omv.estimate(levers, board=BOARD)
    return result(
        levers=levers,
        int8_accuracy=accuracy,
        stopped=stopped,
        flash_bytes=cost.flash_bytes,
        ram_bytes=cost.ram_bytes,
    )


TRIALS = (
    trial(0.5, 0.81),
    trial(0.1, 0.6),
    trial(0.35, 0.7, stopped=True),
    trial(0.25, 0.75),
    trial(0.75, 0.78),
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("front") / "camera"
    return exports.make_export(folder, trials=TRIALS)


def figures(*results):
    return trial_figures(results, board=BOARD, classes=3, channels=3)


@given(st.lists(OUTCOMES, min_size=1, max_size=12), st.integers(9_990, 10_010))
def test_what_lies_on_the_front_is_beaten_by_none(outcomes, flash_bytes):
    (known,) = figures(TRIALS[0])
    trials = [
        dataclasses.replace(
            known, flash_bytes=size, int8_accuracy=share, stopped=stopped
        )
        for size, share, stopped in outcomes
    ]
    drawn = front_map(trials, flash_bytes)
    kinds = [dot.kind for dot in drawn.dots]
    assert len(kinds) == len(outcomes)
    assert kinds == sorted(kinds, key=lambda kind: kind == FRONT)
    for dot in drawn.dots:
        beats = [
            other
            for other in drawn.dots
            if other.left <= dot.left
            and other.bottom >= dot.bottom
            and (other.left, other.bottom) != (dot.left, dot.bottom)
        ]
        assert (dot.kind == FRONT) == (not beats)
        assert 6 <= dot.left <= 94
        assert 6 <= dot.bottom <= 94
    assert 6 <= drawn.column <= 94


def test_trials_lie_by_flash_and_accuracy():
    drawn = front_map(figures(*TRIALS), TRIALS[0].flash_bytes)
    assert [dot.kind for dot in drawn.dots] == [STOPPED, BEATEN, *[FRONT] * 3]
    assert [dot.title[:18] for dot in drawn.front] == [
        "60.0%: alpha 0.1, ",
        "75.0%: alpha 0.25,",
        "81.0%: alpha 0.5, ",
    ]
    assert drawn.front[-1].left == drawn.column
    assert (drawn.front[0].left, drawn.front[0].bottom) == (6, 6)
    assert drawn.dots[0].title.endswith("RAM, stopped early")
    assert drawn.accuracy == (0.6, 0.81)


def test_one_trial_lies_in_the_middle_and_none_has_no_picture():
    (dot,) = front_map(figures(TRIALS[0]), TRIALS[0].flash_bytes).dots
    assert (dot.left, dot.bottom) == (50, 50)
    assert front_map((), 1) is None


def test_the_report_shows_the_search_and_its_check_agrees(exported):
    text = exported.text("report.html")
    shown = re.findall(r'<b class="(front|beaten|stopped)"', text)
    assert shown == [STOPPED, BEATEN, *[FRONT] * 3]
    assert "5 trials by flash and int8 accuracy" in text
    assert check_folder(exported.folder) == ()


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"flash_bytes": 1}, "trials.1.flash_bytes: report.json says 1, its levers"),
        ({"ram_bytes": 1}, "trials.1.ram_bytes: report.json says 1, its levers"),
        ({"alpha": 0.75}, "trials.1.flash_bytes"),
        ({"alpha": -1}, "alpha"),
        ({"int8_accuracy": 1.5}, "trials.1.int8_accuracy: 1.5 is no share"),
        ({"stopped": 0}, "trials.1.stopped: 0 is neither true nor false"),
        ({"int8_accuracy": "best"}, "has no camera, labels or figures"),
        ({"extra": 1}, "has no camera, labels or figures"),
    ],
)
def test_what_a_trial_cannot_be_is_told_even_where_it_was_signed(
    exported, tmp_path, figures, expected
):
    folder = shutil.copytree(exported.folder, tmp_path / "copy")
    trials = json.loads(exported.text("report.json"))["trials"]
    trials[1].update(figures)
    rewrite(folder, trials=trials)
    assert any(expected in text for text in check_folder(folder))


@pytest.mark.parametrize(
    "change",
    [
        {"int8_accuracy": float("nan")},
        {"int8_accuracy": 1.5},
        {"levers": omv.Levers(alpha=0.1, resolution=48, classes=4)},
        {"levers": omv.Levers(alpha=0.1, resolution=48, classes=3, channels=1)},
    ],
)
def test_trials_of_another_search_are_refused(tmp_path, change):
    wrong = dataclasses.replace(TRIALS[0], **change)
    with pytest.raises(ValueError, match="argument `trials`"):
        exports.make_export(tmp_path / "camera", trials=[TRIALS[1], wrong])
    assert not (tmp_path / "camera").exists()


def test_trials_count_for_the_camera_of_the_export(tmp_path):
    """Searched for a Cortex-M55, exported for a Cortex-M7; NumPy's numbers."""
    n6 = omv.get_board("openmv-n6")
    cost = omv.estimate(TRIALS[0].levers, board=n6)
    searched = dataclasses.replace(
        TRIALS[0], ram_bytes=cost.ram_bytes, int8_accuracy=np.float32(0.5)
    )
    made = exports.make_export(tmp_path / "camera", trials=[searched])
    assert made.report.trials[0].ram_bytes == TRIALS[0].ram_bytes != cost.ram_bytes
    assert check_folder(made.folder) == ()


def test_a_model_of_no_search_has_no_such_picture(tmp_path):
    made = exports.make_export(tmp_path / "camera")
    assert made.report.trials == ()
    assert "The search that it comes from" not in made.text("report.html")
