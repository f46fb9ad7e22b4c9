"""The results of trials and their Pareto front."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_omv.architecture import Levers
from keras_omv.results import (
    RESULT_FILE,
    TrialResult,
    pareto,
    read_result,
    read_results,
    write_atomically,
    write_result,
)


def result(trial_id="0", **changes):
    known = TrialResult(
        trial_id=trial_id,
        levers=Levers(alpha=0.35, resolution=96, classes=5),
        training={"learning_rate": 0.003},
        epochs=12,
        initial_epoch=0,
        int8_accuracy=0.75,
        val_accuracy=(0.5, 0.76),
        flash_bytes=400_000,
        ram_bytes=200_000,
        macs=10_000_000,
        latency_ms=80.0,
        started_from="",
        stopped=False,
        duration_s=12.5,
        model_trial_id=trial_id,
    )
    return dataclasses.replace(known, **changes)


def test_a_result_is_read_as_it_was_written(tmp_path):
    write_result(tmp_path, result())
    assert read_result(tmp_path) == result()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"levers": {}}'])
def test_a_result_that_cannot_be_read_is_passed_over(tmp_path, text, caplog):
    (tmp_path / RESULT_FILE).write_text(text)
    assert read_result(tmp_path) is None
    assert "cannot be read" in caplog.text


def test_results_come_with_the_most_accurate_first(tmp_path):
    for number, accuracy in enumerate((0.5, 0.9, 0.7)):
        folder = tmp_path / f"trial_{number}"
        folder.mkdir()
        write_result(folder, result(str(number), int8_accuracy=accuracy))
    (tmp_path / "trial_3").mkdir()
    assert [r.int8_accuracy for r in read_results(tmp_path)] == [0.9, 0.7, 0.5]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_atomically(path, "old")
    # A symbolic link to a full device: the real error of a full disk.
    for stale in tmp_path.glob(".state.json.*"):
        stale.unlink()
    import os

    (tmp_path / f".state.json.{os.getpid()}.new").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_equal_trainings_have_equal_keys():
    assert result("0").key == result("7", int8_accuracy=0.1).key
    assert result("0").key != result("0", epochs=4).key
    assert result("0").key != result("0", training={}).key


def test_a_folder_name_says_the_levers():
    assert result(training={}).name == "a035_r96_h1280_d17"
    assert result("7").name == "a035_r96_h1280_d17_t7"


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=30)
)
def test_the_front_holds_what_nothing_beats(pairs):
    trials = [
        result(str(n), flash_bytes=cost, int8_accuracy=accuracy / 20)
        for n, (cost, accuracy) in enumerate(pairs)
    ]
    front = pareto(trials, "flash_bytes")
    for trial in trials:
        beaten = any(
            other.flash_bytes <= trial.flash_bytes
            and other.int8_accuracy >= trial.int8_accuracy
            and (other.flash_bytes, other.int8_accuracy)
            != (trial.flash_bytes, trial.int8_accuracy)
            for other in trials
        )
        same = [
            f
            for f in front
            if (f.flash_bytes, f.int8_accuracy)
            == (trial.flash_bytes, trial.int8_accuracy)
        ]
        assert len(same) == (not beaten)


def test_an_unknown_cost_is_refused():
    with pytest.raises(ValueError, match="Expected one of flash_bytes"):
        pareto([result()], "weight")


def test_a_result_is_json_that_others_can_read(tmp_path):
    write_result(tmp_path, result())
    content = json.loads((tmp_path / RESULT_FILE).read_text())
    assert content["levers"]["alpha"] == 0.35
    assert content["val_accuracy"] == [0.5, 0.76]
