"""`keras-omv deploy` and `keras-omv selftest`, with a camera on a pseudo-terminal."""

import hashlib
import json
import os
import pathlib
import shutil
import sys

import fake_camera
import numpy as np
import pytest
from exports import NAMES, SIDE, make_export
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from keras_omv import deploy_command, sandbox
from keras_omv.cli import main

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")

MODULES = pathlib.Path(__file__).parent / "selftest_modules"
ARCHITECTURE = "OMV4 H7 1024"
COPIED = ("labels.txt", "main.py", "model.tflite")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return make_export(tmp_path_factory.mktemp("export") / "camera").folder


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "camera-folder")


@pytest.fixture
def camera(tmp_path, micropython):
    """Return a function that makes a camera, on which main.py finds pictures."""

    def make(**settings):
        memory = tmp_path / "memory"
        memory.mkdir(exist_ok=True)
        scene = {"input_shape": [1, SIDE, SIDE, 3], "frames": [[0.1, 0.7, 0.2]] * 3000}
        return fake_camera.FakeCamera(micropython, memory, **{**scene, **settings})

    return make


def wanted(folder, names=COPIED):
    return {name: (folder / name).read_bytes() for name in names}


def run(capsys, *arguments):
    """Run a command; return its exit code and what it said, in one line."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, " ".join((said.out + said.err).split())


def deploy(capsys, folder, port, *options):
    seconds = ("--seconds", "0.5")
    return run(capsys, "deploy", folder, "--port", port, *seconds, *options)


def connect(monkeypatch, *devices, drives=()):
    ports = []
    for device in devices:
        port = ListPortInfo(device)
        port.vid, port.pid, port.serial_number = 0x37C5, 0x1204, "31"
        ports.append(port)
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    monkeypatch.setattr(deploy_command, "find_drives", lambda: tuple(drives))


# ------------------------------------------------------------------ over serial


def test_a_folder_is_copied_started_and_shown(camera, folder, capsys):
    made = camera()
    mine = {"mine.txt": b"mine", "main.py.old": b"kept by hand"}
    made.put({"main.py": b"while True: pass\n", **mine})
    with made.on() as port:
        code, said = deploy(capsys, folder, port)
        made._is_gone.wait(10)
    assert code == 0, said
    assert made.files() == {**wanted(folder), **mine}
    assert made.resets == 1
    assert "openmv-h7 with firmware 5.0.0 at" in said
    assert "--romfs writes romfs.img there" in said
    assert "model.tflite: copied" in said
    assert f"{NAMES[1]} 0.70, plain 0.20" in said
    assert said.endswith("The camera was reset and goes on by itself.")


def test_an_edited_script_is_copied_as_it_is(camera, folder, capsys):
    with (folder / "main.py").open("a", encoding="utf-8") as script:
        script.write("# mine\n")
    made = camera()
    with made.on() as port:
        code, said = deploy(capsys, folder, port)
    assert code == 0, said
    assert "main.py was edited after the export; it is taken as it is." in said
    assert made.files() == wanted(folder)


def test_a_second_deploy_writes_nothing_again(camera, folder, capsys):
    made = camera()
    made.put(wanted(folder))
    with made.on() as port:
        code, said = deploy(capsys, folder, port)
    assert code == 0
    assert said.count("was there already") == 3
    assert b".write(" not in made.received


def test_the_only_camera_is_found(camera, folder, capsys, monkeypatch):
    made = camera()
    with made.on() as port:
        connect(monkeypatch, port)
        code, _ = run(capsys, "deploy", folder, "--seconds", "0.3")
    assert code == 0
    assert made.files() == wanted(folder)


def test_of_two_cameras_one_has_to_be_chosen(folder, capsys, monkeypatch):
    connect(monkeypatch, "/dev/ttyACM0", "/dev/ttyACM1")
    code, said = run(capsys, "deploy", folder)
    assert code == 1
    for text in ("--port", "/dev/ttyACM0 (OpenMV Cam H7", "/dev/ttyACM1"):
        assert text in said


def test_without_a_camera_the_steps_by_hand_are_told(folder, capsys, monkeypatch):
    connect(monkeypatch)
    code, said = run(capsys, "deploy", folder)
    assert code == 1
    for text in ("No camera is connected", "by hand", "ROM File System", "main.py"):
        assert text in said


def test_a_script_that_stops_is_an_error(camera, folder, capsys):
    made = camera(load_error=["MemoryError", "memory allocation failed"])
    with made.on() as port:
        code, said = deploy(capsys, folder, port)
    assert code == 1
    assert "STOPPED: " in said
    assert "main.py ended, which it should not" in said


def test_a_camera_that_is_unplugged_keeps_whole_files(camera, folder, capsys):
    made = camera()
    made.put({"model.tflite": b"old", "main.py": b"old"})
    made.unplug_after(3000, text=b"'model.tflite.new', 'wb'")
    with made.on() as port:
        code, said = deploy(capsys, folder, port)
    assert code == 1
    assert "run the same command again" in said
    left = made.files()
    assert (left["model.tflite"], left["main.py"]) == (b"old", b"old")


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"arch": "OMV3 F7 512"}, ["is for openmv-h7", "openmv-m7", "--board"]),
        ({"arch": "MY BOARD"}, ["a board that calls itself 'MY BOARD'"]),
        ({"firmware": "4.8.1"}, ["too old", "--firmware 4.8.1", "5.0.0"]),
        ({"firmware": "9.0.0"}, ["no main.py is known for it", "5.0.0"]),
    ],
)
def test_another_camera_or_firmware_is_refused(
    camera, folder, capsys, settings, expected
):
    made = camera(**settings)
    made.put({"main.py": b"old"})
    with made.on() as port:
        code, said = deploy(capsys, folder, port)
    assert code == 1
    assert "Nothing was copied" in said
    for text in expected:
        assert text in said
    assert made.files() == {"main.py": b"old"}


def test_newer_firmware_than_the_folder_is_refused(camera, tmp_path, capsys):
    from keras_omv.boards import get_board

    board = get_board("openmv-h7", firmware="4.6.20")
    older = make_export(tmp_path / "older", board=board).folder
    made = camera(firmware="4.8.1")
    with made.on() as port:
        code, said = deploy(capsys, older, port)
    assert code == 1
    assert "it is too new" in said
    assert "export with --firmware 4.8.1" in said
    made.configure(firmware="4.6.0")
    with made.on() as port:
        code, said = deploy(capsys, older, port)
    assert code == 0
    assert "was computed for firmware 4.6.20, the camera has 4.6.0" in said


def test_a_changed_folder_is_refused(folder, capsys):
    (folder / "labels.txt").write_text("a\nb\nc\n")
    code, said = run(capsys, "deploy", folder, "--port", "not opened")
    assert code == 1
    assert "changed since it was verified: labels.txt was changed" in said


def test_labels_in_another_encoding_are_refused(folder, capsys):
    (folder / "labels.txt").write_bytes("Käfer\n".encode("latin-1"))
    code, said = run(capsys, "deploy", folder, "--port", "not opened")
    assert code == 1
    assert "Expected labels.txt in UTF-8" in said


def test_a_folder_that_is_none_is_refused(tmp_path, capsys):
    code, said = run(capsys, "deploy", tmp_path)
    assert code == 1
    assert "Expected a folder that keras-omv export wrote" in said


def test_another_model_in_rom_is_refused(camera, folder, capsys):
    from mpremote.romfs import VfsRomWriter

    writer = VfsRomWriter()
    writer.mkfile("model.tflite", b"another")
    made = camera(rom_bytes=32 << 10)
    image = bytes(writer.finalise())
    made._rom.write_bytes(image.ljust(32 << 10, b"\xff"))
    with made.on() as port:
        code, said = deploy(capsys, folder, port)
    assert code == 1
    assert "another model.tflite in /rom" in said
    assert made.files() == {}


# ------------------------------------------------------------------ ROMFS


def test_romfs_is_written_and_main_py_runs_from_it(camera, folder, capsys):
    made = camera(rom_bytes=128 << 10)
    made.put({"main.py": b"while True: pass\n"})
    with made.on() as port:
        code, said = deploy(capsys, folder, port, "--romfs")
    assert code == 0, said
    assert made.files() == wanted(folder, ["main.py"])
    assert made.rom.startswith((folder / "romfs.img").read_bytes())
    assert f"{NAMES[1]} 0.70" in said
    with made.on() as port:
        code, said = deploy(capsys, folder, port, "--romfs")
    assert code == 0, said
    assert made.files() == wanted(folder, ["main.py"])


def test_half_a_romfs_has_no_script_that_loads_it(camera, folder, capsys):
    made = camera(rom_bytes=128 << 10)
    made.put({"main.py": b"old"})
    made.unplug_after(20, text=b"rom_ioctl(4")
    with made.on() as port:
        code, said = deploy(capsys, folder, port, "--romfs")
    assert code == 1
    assert "runs no script until it is" in said
    assert "main.py" not in made.files()
    made.unplug_after(1, text=b"never")
    with made.on() as port:
        code, _ = deploy(capsys, folder, port, "--romfs")
    assert code == 0
    assert made.files() == wanted(folder, ["main.py"])


def test_a_camera_without_romfs_stays_as_it_is(camera, folder, capsys):
    made = camera()
    made.put({"main.py": b"old"})
    with made.on() as port:
        code, said = deploy(capsys, folder, port, "--romfs")
    assert code == 1
    assert "has no ROMFS" in said
    assert made.files() == {"main.py": b"old"}


# ------------------------------------------------------------------ a drive


def test_a_drive_is_copied_to(folder, tmp_path, capsys):
    drive = tmp_path / "drive"
    drive.mkdir()
    code, said = run(capsys, "deploy", folder, "--drive", drive)
    assert code == 0
    assert {path.name: path.read_bytes() for path in drive.iterdir()} == wanted(folder)
    assert "eject the drive and reset the camera" in said
    assert "were not compared" in said


def test_the_only_drive_is_found_and_two_are_listed(
    folder, tmp_path, capsys, monkeypatch
):
    drives = [tmp_path / "one", tmp_path / "two"]
    for drive in drives:
        drive.mkdir()
    connect(monkeypatch, drives=map(str, drives[:1]))
    assert run(capsys, "deploy", folder)[0] == 0
    assert (drives[0] / "main.py").exists()
    connect(monkeypatch, drives=map(str, drives))
    code, said = run(capsys, "deploy", folder)
    assert code == 1
    assert str(drives[1]) in said
    assert "--drive" in said


@pytest.mark.parametrize("option", ["--romfs", "--selftest"])
def test_what_needs_a_port_is_refused_with_a_drive(folder, tmp_path, capsys, option):
    code, said = run(capsys, "deploy", folder, "--drive", tmp_path, option)
    assert code == 1
    assert f"{option} needs the camera's serial port" in said


# ------------------------------------------------------------------ selftest


def with_answers(made, folder, *, off_by=0):
    """Give the camera TFLM's answers to the frames of the folder's selftest.bin."""
    model = (folder / "model.tflite").read_bytes()
    data = np.frombuffer((folder / "selftest.bin").read_bytes(), "int8")
    size = SIDE * SIDE * 3
    inputs = data.reshape(-1, size + len(NAMES))[:, :size]
    job = sandbox.Job(model, (inputs.reshape(-1, 1, SIDE, SIDE, 3),))
    (answer,) = sandbox.run([job], runtime="tflm")
    steps = answer.outputs[0][:, 0].astype(int)
    steps[-1, -1] += off_by
    hashes = [hashlib.sha256(one.tobytes()).hexdigest() for one in inputs]
    content = {
        "answers": dict(zip(hashes, steps.tolist(), strict=True)),
        "firmware": "5.0.0",
        "input_shape": [1, SIDE, SIDE, 3],
        "outputs": len(NAMES),
        "scale": 1 / 256,
        "zero_point": -128,
    }
    path = made._settings.with_name("answers.json")
    path.write_text(json.dumps(content))


def test_selftest_writes_two_files_beside_the_others(folder, capsys):
    before = set(os.listdir(folder))
    code, said = run(capsys, "selftest", folder)
    assert code == 0
    assert set(os.listdir(folder)) - before == {"selftest.py", "selftest.bin"}
    assert "6 frames answered by tflite_micro" in said
    assert run(capsys, "verify", folder)[0] == 0


@pytest.mark.parametrize(("off_by", "code"), [(0, 0), (-1, 1)])
def test_deploy_runs_the_selftest_and_leaves_nothing_of_it(
    camera, folder, capsys, off_by, code
):
    run(capsys, "selftest", folder)
    made = camera(modules=[str(MODULES)])
    with_answers(made, folder, off_by=off_by)
    with made.on() as port:
        ended, said = deploy(capsys, folder, port, "--selftest")
    assert ended == code, said
    assert ("PASS: 6 frames" in said) == (code == 0)
    assert ("FAIL: frame 5, class 2 (plain)" in said) == (code == 1)
    assert ("main.py was not started" in said) == (code == 1)
    assert made.files() == wanted(folder)
