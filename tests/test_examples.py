"""Every example runs, at a small setting, and reaches what it asserts."""

import os
import pathlib
import subprocess
import sys

import pytest

EXAMPLES = sorted((pathlib.Path(__file__).parent.parent / "examples").glob("*.py"))
SMALL = {
    "deploy": {"EPOCHS": "4"},
    "fit": {"EPOCHS": "4"},
    "own_model": {"EPOCHS": "8"},
    "prune_to_fit": {"EPOCHS": "5"},
    "search": {"EPOCHS": "4", "TRIALS": "2"},
    # The weights of ImageNet are the user's to download.
    "transfer": {"EPOCHS": "3", "RESOLUTION": "32", "WEIGHTS": "none"},
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_reaches_its_outcome(path, tmp_path):
    settings = {**SMALL[path.stem], "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, path],
        env={**os.environ, **settings},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not [*tmp_path.iterdir()], "an example cleans up"
