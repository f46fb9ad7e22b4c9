import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from keras_omv import deploy
from keras_omv.errors import DatasetError, ExportError

REPORT = json.dumps({"format": "keras_omv.report/1"}).encode()
OLD = {"model.tflite": b"old", "romfs.img": b"stale", "report.json": REPORT}
NEW = {"model.tflite": b"new", "labels.txt": b"a\nb\n", "report.json": REPORT}


def contents(folder):
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def old_folder(tmp_path):
    return deploy.write_folder(tmp_path / "out", OLD)


# ------------------------------------------------------------------ labels


def test_labels_are_written_one_a_line_exactly_as_given():
    given = ["cat", 'it\'s "quoted"', " spaced ", "naïve 猫", "%s {} \\n #"]
    assert deploy.class_labels(given).split("\n") == [*given, ""]


def test_labels_may_come_from_an_iterator():
    assert deploy.class_labels(str(n) for n in range(3)) == "0\n1\n2\n"


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ("a\nb", "line break"),
        ("a\r", "line break"),
        ("a\x85b", "line break"),
        ("a\u2028b", "line break"),
        ("a\tb", "control character"),
        ("a\x00", "control character"),
        ("caf\udce9", "control character"),
        ("", "blank"),
        ("  ", "blank"),
        (3, "of type int"),
        (None, "of type NoneType"),
        ("dog", "twice"),
    ],
)
def test_a_bad_label_is_refused_by_its_repr(bad, problem):
    with pytest.raises(DatasetError, match=problem) as caught:
        deploy.class_labels(["dog", bad])
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("nothing", [[], (), "cat"])
def test_labels_must_be_a_list_with_names(nothing):
    with pytest.raises(DatasetError, match="Expected a list with one name"):
        deploy.class_labels(nothing)


# ------------------------------------------------------------- the destination


def test_a_new_folder_and_its_parents_need_not_exist(tmp_path):
    path = deploy.check_destination(tmp_path / "runs" / "1" / "out")
    assert path == tmp_path / "runs" / "1" / "out"
    assert names(tmp_path) == []


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "out").mkdir()
    assert deploy.write_folder(tmp_path / "out", NEW) == tmp_path / "out"
    assert contents(tmp_path / "out") == NEW


@pytest.mark.parametrize(
    "report", [None, b"", b"[]", b'{"format": "other/1"}', b'{"format": 1}', b"\xff"]
)
def test_a_folder_that_is_not_ours_is_refused_and_untouched(tmp_path, report):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.tex").write_bytes(b"mine")
    if report is not None:
        (folder / "report.json").write_bytes(report)
    before = contents(folder)
    with pytest.raises(ExportError, match="keras_omv did not write it"):
        deploy.write_folder(folder, NEW)
    assert contents(folder) == before
    assert names(tmp_path) == ["out"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(ExportError, match="a file is in the way"):
        deploy.check_destination(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"mine"


def test_a_file_among_the_parents_is_refused(tmp_path):
    (tmp_path / "runs").write_bytes(b"mine")
    with pytest.raises(ExportError, match="runs is a file"):
        deploy.check_destination(tmp_path / "runs" / "out")


def test_a_parent_that_is_not_writable_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ExportError, match="is not writable"):
        deploy.check_destination(tmp_path / "out")


def test_a_mounted_drive_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(ExportError, match="a drive is mounted there"):
        deploy.check_destination(tmp_path)


@pytest.mark.parametrize("directory", [".", "..", ""])
def test_the_current_folder_is_refused(tmp_path, monkeypatch, directory):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match="the current folder"):
        deploy.check_destination(directory)


# ----------------------------------------------------------------- the writing


def test_an_older_export_is_replaced_with_nothing_of_it_left(old_folder, tmp_path):
    deploy.write_folder(old_folder, NEW)
    assert contents(old_folder) == NEW
    assert names(tmp_path) == ["out"]


def test_what_a_user_put_into_an_older_export_stays(old_folder):
    (old_folder / "notes.txt").write_bytes(b"mine")
    (old_folder / "logs").mkdir()
    (old_folder / "logs" / "events").write_bytes(b"tensorboard")
    deploy.write_folder(old_folder, NEW)
    assert names(old_folder) == sorted([*NEW, "logs", "notes.txt"])
    assert (old_folder / "logs" / "events").read_bytes() == b"tensorboard"


def test_a_link_is_followed_and_stays_a_link(old_folder, tmp_path):
    (tmp_path / "link").symlink_to(old_folder, target_is_directory=True)
    deploy.write_folder(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert contents(old_folder) == NEW


@pytest.mark.parametrize("name", ["", ".", "..", "../model.tflite", "a/b", "/etc/x"])
def test_a_file_name_with_a_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="Expected a name without a folder"):
        deploy.write_folder(tmp_path / "out", {name: b""})
    assert names(tmp_path) == []


def failing_fsync(error, *, after):
    """Return an `os.fsync` that raises at its call number `after`."""
    calls = iter(range(1, 1000))

    def fsync(descriptor):
        if next(calls) == after:
            raise error

    return fsync


FULL_DISK = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_full_disk_leaves_the_old_folder(old_folder, tmp_path, monkeypatch, after):
    monkeypatch.setattr(os, "fsync", failing_fsync(FULL_DISK, after=after))
    with pytest.raises(ExportError, match="No space left"):
        deploy.write_folder(old_folder, NEW)
    assert contents(old_folder) == OLD
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_an_interrupt_leaves_the_old_folder(old_folder, tmp_path, monkeypatch, after):
    monkeypatch.setattr(
        os, "fsync", failing_fsync(KeyboardInterrupt("Ctrl-C"), after=after)
    )
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        deploy.write_folder(old_folder, NEW)
    assert contents(old_folder) == OLD
    assert names(tmp_path) == ["out"]


def test_an_interrupt_after_the_swap_leaves_the_new_folder(
    old_folder, tmp_path, monkeypatch
):
    error = KeyboardInterrupt("Ctrl-C")
    monkeypatch.setattr(os, "fsync", failing_fsync(error, after=len(NEW) + 2))
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        deploy.write_folder(old_folder, NEW)
    assert contents(old_folder) == NEW
    assert names(tmp_path) == ["out"]


def test_a_drive_that_cannot_flush_folders_is_written_all_the_same(
    tmp_path, monkeypatch
):
    error = OSError(errno.EINVAL, "Invalid argument")
    monkeypatch.setattr(os, "fsync", failing_fsync(error, after=len(NEW) + 1))
    deploy.write_folder(tmp_path / "out", NEW)
    assert contents(tmp_path / "out") == NEW


def test_an_interrupt_leaves_nothing_where_nothing_was(tmp_path, monkeypatch):
    monkeypatch.setattr(
        os, "fsync", failing_fsync(KeyboardInterrupt("Ctrl-C"), after=2)
    )
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        deploy.write_folder(tmp_path / "out", NEW)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [OSError("rename"), KeyboardInterrupt("Ctrl-C")])
def test_a_failure_between_the_renames_puts_the_old_folder_back(
    old_folder, tmp_path, monkeypatch, error
):
    rename = pathlib.Path.rename

    def fail_for_new(self, target):
        if self.name.endswith("-new"):
            raise error
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", fail_for_new)
    with pytest.raises((ExportError, KeyboardInterrupt), match=r"rename|Ctrl-C"):
        deploy.write_folder(old_folder, NEW)
    assert contents(old_folder) == OLD
    assert names(tmp_path) == ["out"]


KILLED_WRITE = """
import os, pathlib, shutil, sys
from keras_omv import deploy, npu

folder, renames_before_death = sys.argv[1], int(sys.argv[2])
rename = pathlib.Path.rename
count = 0

def dying_rename(self, target):
    global count
    if count == renames_before_death:
        os._exit(9)
    count += 1
    return rename(self, target)

pathlib.Path.rename = dying_rename
shutil.rmtree = lambda path: os._exit(9)
deploy.write_folder(folder, {"model.tflite": b"new", "labels.txt": b"a\\nb\\n"})
"""


@pytest.mark.parametrize(("renames", "left"), [(0, OLD), (1, OLD), (2, None)])
def test_the_next_call_recovers_from_a_kill(old_folder, tmp_path, renames, left):
    (old_folder / "notes.txt").write_bytes(b"mine")
    command = [sys.executable, "-c", KILLED_WRITE, str(old_folder), str(renames)]
    assert subprocess.run(command, timeout=120).returncode == 9
    assert names(tmp_path) != ["out"], "the kill left nothing to recover from"
    if left is not None:
        deploy.check_destination(old_folder)
        assert contents(old_folder) == {**left, "notes.txt": b"mine"}
    else:
        (old_folder / "report.json").write_bytes(REPORT)
    deploy.write_folder(old_folder, NEW)
    assert contents(old_folder) == {**NEW, "notes.txt": b"mine"}
    assert names(tmp_path) == ["out"]


def test_a_failed_clean_up_is_logged_and_done_by_the_next_write(
    old_folder, tmp_path, monkeypatch, caplog
):
    def refuse(path):
        raise PermissionError("in use")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        deploy.write_folder(old_folder, NEW)
    assert "in use" in caplog.text
    assert contents(old_folder) == NEW
    deploy.write_folder(old_folder, NEW)
    assert names(tmp_path) == ["out"]


def test_importing_deploy_loads_no_tensorflow():
    code = (
        "import sys, keras_omv.deploy; "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
