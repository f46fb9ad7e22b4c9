"""`keras-omv search`: from a folder of images to the best camera folder."""

import json
import re

import numpy as np
import pytest
import small_search
from PIL import Image
from rich.console import Console

from keras_omv.architecture import Levers
from keras_omv.cli import main
from keras_omv.proposals import ORACLES
from keras_omv.results import TrialResult
from keras_omv.search_command import _resolutions
from keras_omv.search_progress import SearchProgress


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number, (image, label) in enumerate(
        zip(*small_search.digits(120), strict=True)
    ):
        path = folder / f"kind{label % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.repeat(image, 3, axis=-1)).save(path)
    return folder


def test_a_search_is_run_shown_and_taken_up_again(images, tmp_path, capsys):
    out = tmp_path / "camera"
    command = [
        *("search", str(images), "--board", "openmv-h7", "--out", str(out)),
        *("--trials", "2", "--epochs", "1", "--max-alpha", "0.05", "--grey"),
        *("--max-ms", "3.8", "--max-resolution", "32"),
    ]
    main(command)
    first = capsys.readouterr().out
    assert re.search(r"Trial 1 of 2: [\d.]+% int8: alpha 0.05, 32 px", first)
    assert "Trial 2 of 2" in first
    assert (out / "labels.txt").read_text() == "kind0\nkind1\n"
    report = json.loads((out / "report.json").read_text())
    assert report["fits"] is True

    main(command)
    again = capsys.readouterr().out
    assert "Trial" not in again.replace("trials are kept", "")
    assert "2 done in an earlier run, the best: " in " ".join(again.split())
    assert json.loads((out / "report.json").read_text()) == report


def test_trials_of_an_earlier_run_are_counted(capsys):
    result = TrialResult(
        trial_id="0",
        levers=Levers(alpha=0.1, resolution=32, classes=2),
        training={},
        epochs=1,
        initial_epoch=0,
        int8_accuracy=0.8,
        val_accuracy=(0.8,),
        flash_bytes=1,
        ram_bytes=1,
        macs=1,
        latency_ms=1.0,
        started_from="",
        stopped=False,
        duration_s=1.0,
        model_trial_id="0",
    )
    progress = SearchProgress(Console(), trials=3, hours=None)
    progress.count_earlier(1, [result])
    progress.begin_trial("alpha 0.1")
    progress.end_trial(None)
    progress.stop()
    assert "Trial 2 of 3: failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--board", "openmv-h7", "--max-ms", "0.001"], "Expected a candidate of at"),
        (["--board", "openmv-m7", "--firmware", "1.0"], "firmware"),
    ],
)
def test_what_cannot_be_searched_is_told_before_any_training(
    images, tmp_path, capsys, options, message
):
    with pytest.raises(SystemExit, match="1"):
        main(["search", str(images), "--out", str(tmp_path / "camera"), *options])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "camera").exists()


def test_trials_and_hours_exclude_each_other(images, capsys):
    command = ["search", str(images), "--board", "openmv-h7", "--out", "x"]
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--trials", "2", "--hours", "1"])
    assert "not allowed with" in capsys.readouterr().err


def test_every_oracle_can_be_named(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["search", "--help"])
    assert "{" + ",".join(ORACLES) + "}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("side", "largest", "expected"),
    [
        (8, 96, [32, 48]),
        (60, 96, [32, 48, 64]),
        (500, 64, [32, 48, 64]),
        (None, 32, [32]),
    ],
)
def test_resolutions_end_where_images_have_no_more(side, largest, expected):
    assert list(_resolutions(side, largest)) == expected
