"""A search that is killed goes on as if it had not been."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import killed_search
import pytest

from keras_omv.errors import SearchError
from keras_omv.project import SETTINGS_FILE, STATE_FILE, Project
from keras_omv.results import RESULT_FILE

SCRIPT = pathlib.Path(killed_search.__file__)


@pytest.mark.parametrize("oracle", ["forecast", "random", "grid", "hyperband"])
def test_a_search_killed_at_any_moment_ends_as_the_whole_one(oracle, tmp_path):
    command = [sys.executable, os.fspath(SCRIPT), oracle, os.fspath(tmp_path), "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["kills"] > 10
    killed, whole = report["killed"], report["whole"]
    # The same answers; what was trained to its end was never trained again.
    assert killed["results"] == whole["results"]
    assert not [line for line in killed["log"] if line.startswith("repeat")]
    begun = {line.split()[1] for line in killed["log"]}
    assert begun == {trial_id for trial_id, *_ in killed["results"]}


@pytest.fixture
def finished(tmp_path):
    """The folder of a finished search."""
    killed_search.search("random", os.fspath(tmp_path))
    return tmp_path


def trained(folder):
    return (folder / "killed" / "trained.log").read_text().count("begin")


def test_a_finished_search_trains_nothing_more(finished):
    killed_search.search("random", os.fspath(finished))
    assert trained(finished) == killed_search.TRIALS


@pytest.mark.parametrize("damage", ["", "{", '{"status": 1}'])
@pytest.mark.parametrize("name", ["trial.json", "../oracle.json", "../tuner0.json"])
def test_torn_files_of_keras_tuner_are_put_right(finished, name, damage):
    (finished / "killed" / "trial_3" / name).write_text(damage)
    killed_search.search("random", os.fspath(finished))
    assert trained(finished) == killed_search.TRIALS


def test_a_trial_whose_result_is_lost_is_repeated(finished, caplog):
    (finished / "killed" / "trial_3" / RESULT_FILE).write_text("{")
    killed_search.search("random", os.fspath(finished))
    assert "Trial 3 is repeated" in caplog.text
    assert trained(finished) == killed_search.TRIALS + 1
    assert len(killed_search.make("random", os.fspath(finished)).results()) == 9


def test_a_state_that_cannot_be_read_is_told(finished):
    (finished / "killed" / STATE_FILE).write_text("{")
    with pytest.raises(SearchError, match=r"state\.json, which cannot be read"):
        killed_search.make("random", os.fspath(finished))


def test_other_settings_are_another_search(finished):
    with pytest.raises(SearchError, match="oracle GridSearchOracle instead of Random"):
        killed_search.make("grid", os.fspath(finished))


def test_a_full_disk_stops_the_search_and_loses_nothing(finished):
    full = finished / "full"
    full.mkdir()
    project = full / "killed"
    shutil.copytree(finished / "killed", project)
    tuner = killed_search.make("random", os.fspath(full))
    tuner.oracle.max_trials += 1
    # What is written to this device finds it full: the system's own error.
    (project / f".{STATE_FILE}.{os.getpid()}.new").symlink_to("/dev/full")
    with pytest.raises(SearchError, match=r"No space left.*finished trials are kept"):
        killed_search.search_with(tuner)
    (project / f".{STATE_FILE}.{os.getpid()}.new").unlink()
    assert len(killed_search.make("random", os.fspath(full)).results()) == 9


def test_trials_of_others_are_not_removed(tmp_path):
    foreign = tmp_path / "killed" / "trial_0" / "checkpoint.weights.h5"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("somebody's")
    with pytest.raises(SearchError, match=r"has trials without it.*project_name"):
        killed_search.make("random", os.fspath(tmp_path))
    assert foreign.exists()


def test_finished_trials_without_their_state_are_not_removed(finished):
    (finished / "killed" / STATE_FILE).unlink()
    with pytest.raises(SearchError, match="has trials without it"):
        killed_search.make("random", os.fspath(finished))
    assert len(list((finished / "killed").glob("trial_*/result.json"))) == 9


def test_two_processes_do_not_search_in_one_folder(finished):
    killed_search.make("random", os.fspath(finished))
    script = f"import killed_search; killed_search.make('random', {str(finished)!r})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=SCRIPT.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "another process that searches there" in done.stderr


def test_a_folder_that_holds_no_search_is_not_removed(tmp_path):
    (tmp_path / "thesis.txt").write_text("two years")
    Project(tmp_path).remove()
    assert (tmp_path / "thesis.txt").exists()
    (tmp_path / SETTINGS_FILE).write_text("{}")
    Project(tmp_path).remove()
    assert not tmp_path.exists()


def test_only_a_full_disk_is_taken_for_one():
    from keras_omv.interruptions import is_full_disk

    assert is_full_disk(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_full_disk(OSError(errno.ENOENT, "No such file"))
    assert not is_full_disk(ValueError("shape"))
