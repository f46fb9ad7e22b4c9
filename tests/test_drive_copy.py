"""Copies to a mounted drive: whole files or none, whatever happens to the drive."""

import errno
import os
import pathlib
import subprocess

import pytest

from keras_omv import drive_copy, staging
from keras_omv.drive_copy import MountedDrive
from keras_omv.errors import CameraError

OLD = {"model.tflite": b"old model", "labels.txt": b"a\n", "main.py": b"old()"}
NEW = {"model.tflite": bytes(200_000), "labels.txt": b"b\n", "main.py": b"new()"}


def quiet(name, done, total):
    """Nobody watches."""


def write(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def copy(drive, files, progress=quiet):
    names = staging.stage(drive, files, progress)
    staging.commit(drive, names)
    return names


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, {**OLD, "mine.txt": b"mine"})
    return tmp_path


@pytest.fixture
def small_drive(tmp_path):
    """A real file system of 128 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=128k", "tmpfs"]
    command = ["mount", *options, str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount")
    write(folder, OLD)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path):
    """A real file system, and the file that its disk is."""
    image, folder = tmp_path / "disk.img", tmp_path / "disk"
    image.write_bytes(bytes(4 << 20))
    folder.mkdir()
    try:
        for command in (
            ["mkfs.ext4", "-q", "-F", str(image)],
            ["mount", "-o", "loop", str(image), str(folder)],
        ):
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount, and not everywhere")
    yield image, folder
    subprocess.run(["umount", str(folder)], check=True)


def test_new_files_take_the_place_of_old_ones_and_others_stay(folder):
    assert copy(MountedDrive(folder), NEW) == tuple(NEW)
    assert contents(folder) == {**NEW, "mine.txt": b"mine"}


def test_files_that_are_there_already_are_not_written_again(folder):
    files = {**NEW, "labels.txt": OLD["labels.txt"]}
    before = (folder / "labels.txt").stat()
    assert copy(MountedDrive(folder), files) == ("model.tflite", "main.py")
    assert (folder / "labels.txt").stat() == before


def test_an_empty_drive_takes_the_files(tmp_path):
    copy(MountedDrive(tmp_path), NEW)
    assert contents(tmp_path) == NEW


def test_the_script_takes_its_name_last(folder):
    renamed = []

    class Watched(MountedDrive):
        def rename(self, name, to):
            renamed.append(to)
            super().rename(name, to)

    copy(Watched(folder), NEW)
    assert renamed == ["model.tflite", "labels.txt", "main.py"]


def test_no_name_holds_half_a_file_while_it_is_copied(folder):
    seen = []

    def look(name, done, total):
        seen.append({name: data for name, data in contents(folder).items()})

    copy(MountedDrive(folder), NEW, look)
    assert len(seen) > 3
    assert all(one[name] == OLD[name] for one in seen for name in OLD)


def test_a_drive_without_room_is_refused_before_anything_is_written(small_drive):
    with pytest.raises(CameraError, match=r"no room on .*small\. Expected 204\.00 KiB"):
        copy(MountedDrive(small_drive), NEW)
    assert contents(small_drive) == OLD


def test_a_drive_that_fills_up_meanwhile_keeps_its_files(small_drive):
    def fill(name, done, total):
        if done >= 1 << 16 and not (small_drive / "other").exists():
            with pytest.raises(OSError, match="No space left"):
                (small_drive / "other").write_bytes(bytes(1 << 20))

    files = {**NEW, "model.tflite": bytes(100_000)}
    with pytest.raises(CameraError, match=r"is full .*delete files from it"):
        copy(MountedDrive(small_drive), files, fill)
    left = contents(small_drive)
    del left["other"]
    assert left == OLD


def test_a_read_only_drive_keeps_its_files(small_drive):
    remount = ["mount", "-o", "remount,ro", str(small_drive)]
    subprocess.run(remount, check=True, capture_output=True)
    files = {"main.py": b"new()"}
    with pytest.raises(CameraError, match=r"is read-only .*lock switch"):
        copy(MountedDrive(small_drive), files)
    assert contents(small_drive) == OLD


def test_a_folder_that_may_not_be_written_to_is_told(folder, monkeypatch):
    def refuse(self, *arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    with pytest.raises(CameraError, match="may not be written to"):
        MountedDrive(folder).write("main.py.new", b"", quiet)


def test_a_drive_that_goes_away_is_told(folder):
    drive = MountedDrive(folder)
    names = staging.stage(drive, NEW, quiet)
    folder.rename(folder.with_name("gone"))
    with pytest.raises(CameraError, match=r"no longer answers .*run the same command"):
        staging.commit(drive, names)
    left = contents(folder.with_name("gone"))
    assert {name: left[name] for name in OLD} == OLD


def test_leftovers_of_an_interrupted_copy_are_replaced(folder):
    write(folder, {"model.tflite.new": b"half"})
    copy(MountedDrive(folder), NEW)
    assert contents(folder) == {**NEW, "mine.txt": b"mine"}


def test_a_file_that_reads_back_otherwise_is_not_kept(folder):
    class Damaged(MountedDrive):
        def write(self, name, data, progress):
            super().write(name, data[:-1] + b"?", progress)

    with pytest.raises(CameraError, match="does not read back"):
        copy(Damaged(folder), NEW)
    assert contents(folder) == {**OLD, "mine.txt": b"mine"}


def damage(image, data):
    """Changes on a disk what was written to it, which no system is told of."""
    place = image.read_bytes().index(data)
    with image.open("r+b") as file:
        file.seek(place + 100)
        file.write(b"damaged")


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="not told by this system")
def test_what_a_drive_holds_is_compared_and_not_what_the_system_remembers(disk):
    image, folder = disk
    files = {**NEW, "model.tflite": os.urandom(100_000)}

    class Damaging(MountedDrive):
        def write(self, name, data, progress):
            super().write(name, data, progress)
            if name == "model.tflite.new":
                damage(image, data[:4096])

    with pytest.raises(CameraError, match=r"model\.tflite does not read back"):
        copy(Damaging(folder), files)
    assert copy(MountedDrive(folder), files) == tuple(files)
    assert MountedDrive(folder).check == f"read back from the drive at {folder}"
    damage(image, files["model.tflite"][:4096])
    assert copy(MountedDrive(folder), files) == ("model.tflite",)


def test_the_cache_is_named_where_it_may_have_answered(folder, monkeypatch):
    monkeypatch.setattr(drive_copy, "_FORGETS", False)
    assert copy(MountedDrive(folder), NEW) == tuple(NEW)
    assert "through this system's cache" in MountedDrive(folder).check


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(CameraError, match="Expected the folder where the camera's"):
        MountedDrive(tmp_path / "not there")


def test_the_room_is_what_the_system_says(tmp_path):
    free_bytes, block_bytes = MountedDrive(tmp_path).room()
    assert block_bytes == 4096
    status = os.statvfs(tmp_path)
    assert free_bytes == pytest.approx(status.f_bavail * status.f_frsize, rel=0.1)
