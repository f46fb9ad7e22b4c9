"""Copies over a serial port: a real MicroPython on a pseudo-terminal, a real FAT drive.

What mpremote sends runs there as on a camera; see tests/fake_camera.py.
"""

import hashlib
import os
import sys

import fake_camera
import numpy as np
import pytest
from mpremote.romfs import VfsRomWriter

from keras_omv import serial_repl, staging
from keras_omv.errors import CameraError
from keras_omv.serial_copy import SerialCamera

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")

OLD = {"model.tflite": b"old model", "labels.txt": b"a\n", "main.py": b"old()"}
NEW = {
    "model.tflite": np.random.default_rng(0).bytes(20_000),
    "labels.txt": "naïve\n猫\n".encode(),
    "main.py": b"print('it runs')\nwhile True: pass\n",
}


def quiet(name, done, total):
    """Nobody watches."""


def copy(camera, files=NEW, progress=quiet):
    names = staging.stage(camera, files, progress)
    staging.commit(camera, names)
    return names


@pytest.fixture
def plug(tmp_path, micropython):
    """Return a function that makes a camera with the old files on it."""

    def plug(files=OLD, **settings):
        made = fake_camera.FakeCamera(micropython, tmp_path, **settings)
        made.put(files)
        return made

    return plug


def test_a_camera_says_what_it_is(plug):
    camera = plug(firmware="4.8.1", arch="OMV3 F7 512")
    with camera.on() as port, SerialCamera(port) as link:
        found = link.identify()
    assert (found.firmware, found.arch) == ("4.8.1", "OMV3 F7 512")
    assert found.folder == "/sdcard"
    assert found.block_bytes == 512
    assert 100 << 10 < found.free_bytes < 128 << 10


@pytest.mark.parametrize("settings", [{}, {"no_raw_paste": True}])
def test_new_files_take_the_place_of_old_ones_and_others_stay(plug, settings):
    camera = plug({**OLD, "mine.txt": b"mine"}, **settings)
    with camera.on() as port, SerialCamera(port) as link:
        assert copy(link) == tuple(NEW)
        assert copy(link) == ()
    assert camera.files() == {**NEW, "mine.txt": b"mine"}


def test_an_empty_drive_takes_the_files(plug):
    camera = plug({})
    with camera.on() as port, SerialCamera(port) as link:
        copy(link)
    assert camera.files() == NEW


def test_a_camera_without_hashlib_is_read_back(plug):
    camera = plug(no_hashlib=True)
    with camera.on() as port, SerialCamera(port) as link:
        assert link.sha256("labels.txt") == hashlib.sha256(b"a\n").hexdigest()
        assert link.sha256("nothing") is None
        copy(link, {"labels.txt": b"b\n"})
    assert camera.files() == {**OLD, "labels.txt": b"b\n"}


def test_a_script_that_runs_is_stopped_for_the_copy(plug):
    camera = plug({"main.py": b"while True: pass\n"})
    with camera.on() as port, SerialCamera(port) as link:
        assert link.run("main", print, seconds=0.3) is None
        copy(link)
    assert camera.files() == NEW


@pytest.mark.parametrize("count", [1, 400, 5_000, 20_000, 40_000])
def test_a_camera_unplugged_while_it_is_copied_to_keeps_its_files(plug, count):
    camera = plug()
    camera.unplug_after(count, text=b"'model.tflite.new', 'wb'")
    with (
        camera.on() as port,
        pytest.raises(CameraError, match=r"connection to .* broke: .*again"),
        SerialCamera(port) as link,
    ):
        copy(link)
    left = camera.files()
    assert {name: left[name] for name in OLD} == OLD
    camera.unplug_after(1, text=b"never")
    with camera.on() as port, SerialCamera(port) as link:
        copy(link)
    assert camera.files() == NEW


def test_a_camera_unplugged_between_two_names_has_whole_files_only(plug):
    camera = plug()
    camera.unplug_after(1, text=b"os.rename('labels.txt.new'")
    with (
        camera.on() as port,
        pytest.raises(CameraError, match="broke"),
        SerialCamera(port) as link,
    ):
        copy(link)
    left = camera.files()
    assert all(left[name] in (OLD[name], NEW[name]) for name in NEW)
    assert left["main.py"] == OLD["main.py"]


def test_a_drive_without_room_is_refused_before_anything_is_written(plug):
    camera = plug()
    with (
        camera.on() as port,
        SerialCamera(port) as link,
        pytest.raises(CameraError, match=r"no room .* Expected 146\.50 KiB"),
    ):
        copy(link, {"model.tflite": bytes(150_000)})
    assert camera.files() == OLD


def test_a_drive_that_fills_up_meanwhile_keeps_its_files(plug):
    camera = plug()
    with camera.on() as port, SerialCamera(port) as link:

        def fill(name, done, total):
            if done == 2048:
                link._do("g = open('other', 'wb'); g.write(bytes(90000)); g.close()")

        with pytest.raises(CameraError, match=r"is full .*delete files"):
            copy(link, {"model.tflite": bytes(50_000)}, fill)
    left = camera.files()
    assert len(left.pop("other")) == 90_000
    assert left == OLD


def test_a_locked_drive_keeps_its_files(plug):
    camera = plug(locked=True)
    with (
        camera.on() as port,
        SerialCamera(port) as link,
        pytest.raises(CameraError, match=r"is read-only .*lock switch"),
    ):
        copy(link)
    assert camera.files() == OLD


def test_another_board_with_micropython_is_told(plug):
    camera = plug(arch="")
    with (
        camera.on() as port,
        SerialCamera(port) as link,
        pytest.raises(CameraError, match="Expected OpenMV firmware"),
    ):
        link.identify()


def test_a_port_that_is_none_is_told(tmp_path):
    with pytest.raises(CameraError, match="cannot be opened"):
        SerialCamera(str(tmp_path / "ttyACM7"))


def test_a_port_where_nobody_answers_is_told(monkeypatch, capsys):
    main, port = os.openpty()
    monkeypatch.setattr(serial_repl, "_READ_SECONDS", 0.05)
    monkeypatch.setattr("mpremote.transport_serial.time.monotonic", _hurried())
    with pytest.raises(CameraError, match="could not enter raw repl"):
        SerialCamera(os.ttyname(port))
    os.close(main)
    os.close(port)
    assert capsys.readouterr().out == ""


def _hurried():
    """A clock of which each look takes a second."""
    ticks = iter(range(10_000))
    return lambda: next(ticks)


# ------------------------------------------------------------------ the script


def test_what_the_script_prints_is_shown_line_by_line(plug):
    camera = plug({"main.py": b"print('caf\\u00e9')\nprint('two')\n"})
    lines = []
    with camera.on() as port, SerialCamera(port) as link:
        assert link.run("main", lines.append, seconds=10) == ""
    assert lines == ["café", "two"]


def test_a_script_that_goes_on_is_stopped_in_time(plug):
    camera = plug({"main.py": b"while True: print('tick')\n"})
    lines = []
    with camera.on() as port, SerialCamera(port) as link:
        assert link.run("main", lines.append, seconds=0.3) is None
        assert link.identify().firmware == "5.0.0"
    assert set(lines) == {"tick"}


def test_the_error_of_a_script_is_returned(plug):
    camera = plug({"main.py": b"print('a')\nraise ValueError('no camera')\n"})
    with camera.on() as port, SerialCamera(port) as link:
        error = link.run("main", lambda line: None, seconds=10)
    assert "ValueError: no camera" in error


def test_a_script_that_stops_itself_is_over(plug):
    camera = plug({"main.py": b"print('STOPPED')\nraise SystemExit(1)\n"})
    lines = []
    with camera.on() as port, SerialCamera(port) as link:
        assert link.run("main", lines.append, seconds=10) == ""
    assert lines == ["STOPPED"]


def test_a_reset_starts_the_camera_anew(plug):
    camera = plug()
    with camera.on() as port, SerialCamera(port) as link:
        link.reset()
        camera._is_gone.wait(10)
    assert camera.resets == 1


# ------------------------------------------------------------------ ROMFS


def image(files):
    writer = VfsRomWriter()
    for name, content in files.items():
        writer.mkfile(name, content)
    return bytes(writer.finalise())


def test_romfs_is_written_and_mounted(plug, tmp_path):
    camera = plug(rom_bytes=64 << 10)
    path = tmp_path / "romfs.img"
    path.write_bytes(image({"model.tflite": NEW["model.tflite"], "labels.txt": b"a"}))
    with camera.on() as port, SerialCamera(port) as link:
        link.check_romfs(path.stat().st_size)
        link.flash_romfs(path)
        found = link.sha256("/rom/model.tflite")
    assert found == hashlib.sha256(NEW["model.tflite"]).hexdigest()
    assert camera.rom.startswith(path.read_bytes())


@pytest.mark.parametrize(
    ("rom_bytes", "problem"), [(0, "has no ROMFS"), (8 << 10, r"takes 8\.00 KiB")]
)
def test_an_image_that_does_not_fit_is_refused(plug, rom_bytes, problem):
    camera = plug(rom_bytes=rom_bytes)
    before = camera.rom
    with (
        camera.on() as port,
        SerialCamera(port) as link,
        pytest.raises(CameraError, match=problem),
    ):
        link.check_romfs(9 << 10)
    assert camera.rom == before


def test_a_camera_unplugged_while_romfs_is_written_is_told(plug, tmp_path):
    camera = plug(rom_bytes=64 << 10)
    path = tmp_path / "romfs.img"
    path.write_bytes(image({"model.tflite": NEW["model.tflite"]}))
    camera.unplug_after(10_000, text=b"rom_ioctl(3")
    with (
        camera.on() as port,
        SerialCamera(port) as link,
        pytest.raises(CameraError, match=r"ROMFS image could not be written"),
    ):
        link.flash_romfs(path)
