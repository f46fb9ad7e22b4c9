"""Whole verdicts on .tflite files: rules, memory and what TFLM answers."""

import dataclasses
import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from file_edits import edited, with_offset_buffers

from keras_omv import flatbuffer, sandbox, verify
from keras_omv.boards import get_board
from keras_omv.cli import main
from keras_omv.errors import ModelFileError
from keras_omv.verification import run_violations, verify_file, verify_models

needs_tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="the tflite-micro wheel exists for Linux on x86-64 only",
)
DATA = Path(__file__).parent / "data" / "device-ram"
SEP = (DATA / "sep.tflite").read_bytes()
BOARD = get_board("openmv-h7-plus")


def judged(data, board=BOARD, **options):
    (found,) = verify_models([data], board=board, **options)
    return found


def rules_of(found):
    return [violation.rule for violation in found.violations]


def run_rules(data):
    return [violation.rule for violation in run_violations(flatbuffer.read(data), data)]


@needs_tflm
def test_weights_by_file_offset_do_not_pass_though_tflm_loads_them():
    file = with_offset_buffers(SEP)
    network = flatbuffer.read(file)
    for tensor, theirs in zip(
        network.tensors, flatbuffer.read(SEP).tensors, strict=True
    ):
        assert tensor.is_constant == theirs.is_constant
        assert not tensor.is_constant or np.array_equal(tensor.data, theirs.data)
    found = judged(file)
    assert not found.passed
    assert set(rules_of(found)) == {"file"}
    assert "is stored by file offset" in found.violations[0].what
    frames = np.random.default_rng(0).integers(-128, 128, (3, 1, 80, 60, 3), "int8")
    (answer,) = sandbox.run([sandbox.Job(file, (frames,))], runtime="tflm")
    assert answer.failure or len(np.unique(answer.outputs[0], axis=0)) == 1


def test_a_file_that_ran_on_a_camera_passes():
    found = verify_file(DATA / "sep.tflite", board="openmv-h7-plus")
    assert found.passed
    assert rules_of(found) == ([] if found.runtime == verify.TFLM else ["runtime"])
    assert found.frames == 16
    assert found.cost.flash_bytes == len(SEP)


def test_litert_judges_where_tflm_is_not_installed(monkeypatch):
    monkeypatch.setattr(sandbox, "has_tflm", lambda: False)
    for data in (SEP, flatbuffer.write(flatbuffer.read(SEP))):
        found = judged(data)
        assert found.passed
        assert found.runtime == verify.LITERT
        assert rules_of(found) == ["runtime"]
        assert "differently from the camera's TFLM" in found.violations[0].what


def without_weights(model):
    for buffer in model.buffers:
        if buffer.data is not None and len(buffer.data) > 64:
            buffer.data = bytes(len(buffer.data))


def test_a_file_is_run_on_its_own():
    note = [] if sandbox.has_tflm() else ["runtime"]
    assert run_rules(SEP) == note
    assert run_rules(edited(SEP, without_weights)) == [*note, "answers"]


@needs_tflm
def test_a_file_that_the_runtime_refuses_is_an_error_of_its_run():
    data = edited(SEP, renamed("SOFTMAX", "SQUARE"))
    (found,) = run_violations(flatbuffer.read(data), data)
    assert (found.rule, found.severity) == ("run", "error")
    assert "tflite_micro did not run it" in found.what


def test_a_file_that_answers_the_same_to_everything_does_not_pass():
    found = judged(edited(SEP, without_weights))
    assert not found.passed
    assert rules_of(found)[-1] == "answers"
    assert "the same to 16 of 16 frames" in found.violations[-1].what


def renamed(old, new):
    """A change of all operators of a kind into another kind."""
    old, new = (getattr(schema.BuiltinOperator, kind) for kind in (old, new))

    def rename(model):
        for code in model.operatorCodes:
            if max(code.builtinCode, code.deprecatedBuiltinCode) == old:
                code.builtinCode = code.deprecatedBuiltinCode = new

    return rename


@pytest.mark.parametrize(
    ("scores", "count", "passes"),
    [
        (np.int8([-90, -90]), 12, True),
        (np.int8([-90, -90]), 13, False),
        (np.int8([-90, -128]), 13, False),
        (np.int8([127, -128]), 13, True),
        (np.uint8([255, 0]), 13, True),
        (np.float32([1, 0]), 13, True),
        (np.float32([0.5, 0.5]), 13, False),
        (np.int8([-128]), 13, True),
        (np.float32([0]), 13, True),
        (np.uint8([3]), 13, False),
    ],
    ids=str,
)
def test_a_network_that_hardly_looks_does_not_pass(monkeypatch, scores, count, passes):
    answers = np.stack([[scores * 0 + place] for place in range(2, 18)])
    answers[:count] = scores
    monkeypatch.setattr(
        sandbox, "run", lambda jobs, **options: [sandbox.Answer((answers,))]
    )
    assert judged(SEP).passed == passes


@needs_tflm
def test_what_tflm_refuses_does_not_pass():
    found = judged(edited(SEP, renamed("SOFTMAX", "SQUARE")))
    assert not found.passed
    assert rules_of(found) == ["run"]
    assert "SQUARE" in found.violations[0].what


def test_a_file_that_does_not_fit_the_camera_does_not_pass():
    large = (DATA / "mnv2_a050_r96_c3_k10.tflite").read_bytes()
    found = judged(large, board=get_board("openmv-m7"))
    assert not found.passed
    assert found.runtime == ""
    assert rules_of(found) == ["fit"]
    assert "does not fit" in found.violations[0].what


def test_an_operator_that_the_release_lacks_does_not_pass():
    file = edited(SEP, renamed("SOFTMAX", "HARD_SWISH"))
    old = get_board("openmv-h7-plus", firmware="4.5.5")
    assert "operators" in rules_of(judged(file, board=old))
    assert "operators" not in rules_of(judged(file))


def darker(model):
    """As a converter leaves it that saw dark images alone."""
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].quantization.scale = [0.5 / 255]


def test_an_input_that_pixels_do_not_span_passes_only_where_its_range_is_said():
    file = edited(SEP, darker)
    assert rules_of(judged(file)) == ["input pin"]
    source = flatbuffer.read(file).input
    zero = int(source.zero_points[0])
    spanned = tuple((p - 128 - zero) * float(source.scales[0]) for p in (0, 255))
    assert judged(file, input_ranges=[spanned]).passed


def write_reported(folder, data, **entries):
    """A file beside a report of it."""
    path = folder / "model.tflite"
    path.write_bytes(data)
    report = {"files": {path.name: hashlib.sha256(data).hexdigest()}, **entries}
    (folder / "report.json").write_text(json.dumps(report))
    return path


def test_an_input_is_as_its_report_says(tmp_path):
    file = edited(SEP, darker)
    source = flatbuffer.read(file).input
    zero = int(source.zero_points[0])
    low, high = ((p - 128 - zero) * float(source.scales[0]) for p in (0, 255))
    path = write_reported(tmp_path, file, network_input_range=[low, high])
    assert verify_file(path, board=BOARD).passed
    path.write_bytes(file + bytes(4))
    assert not verify_file(path, board=BOARD).passed
    path = write_reported(tmp_path, SEP, network_input_range=[low, high])
    assert rules_of(verify_file(path, board=BOARD))[0] == "input pin"


@pytest.mark.parametrize(
    "lie", [None, "0 to 1", [1, 0], [0], [0, "inf"], ["a", "b"], [0, 10**400], {}]
)
def test_a_report_of_no_input_range_vouches_for_none(tmp_path, lie):
    path = write_reported(tmp_path, edited(SEP, darker), network_input_range=lie)
    assert "input pin" in rules_of(verify_file(path, board=BOARD))
    path = write_reported(tmp_path, SEP, network_input_range=lie)
    assert verify_file(path, board=BOARD).passed


def test_many_models_are_judged_each_on_its_own():
    damaged = edited(SEP, without_weights)
    found = verify_models([damaged, SEP, b"", SEP], board=BOARD)
    assert [one.passed for one in found] == [False, True, False, True]


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ModelFileError, match="which does not exist"):
        verify_file(tmp_path / "model.tflite", board=BOARD)
    with pytest.raises(ModelFileError, match="which is no file"):
        verify_file(tmp_path, board=BOARD)


def command(*arguments):
    """The exit code of `keras-omv verify`."""
    try:
        main(["verify", *map(str, arguments)])
    except SystemExit as end:
        return end.code
    return 0


def test_the_command_says_that_a_file_passes(capsys):
    assert command(DATA / "sep.tflite", "--board", "OPENMV4P") == 0
    screen = capsys.readouterr().out
    for text in ("sep.tflite", "16 frames in", "passed", "RAM (arena)"):
        assert text in screen


def test_the_command_says_what_is_wrong_and_how_to_mend_it(tmp_path, capsys):
    path = tmp_path / "weights.by.offset.tflite"
    path.write_bytes(with_offset_buffers(SEP))
    assert command(path, "--board", "openmv-h7-plus") == 1
    screen = capsys.readouterr().out
    for text in ("failed", "warning, name:", "error, file: tensor", "mend: rename it"):
        assert text in screen
    assert command(path, "--board", "openmv-h7-plus", "--json") == 1
    content = json.loads(capsys.readouterr().out)
    assert content["passed"] is False
    assert content["flash_bytes"] is None
    assert {"rule", "severity", "what", "remedy"} == set(content["violations"][0])


def test_the_command_needs_a_camera_for_a_file(capsys):
    assert command(DATA / "sep.tflite") == 1
    assert "Expected --board with a .tflite file" in capsys.readouterr().err


def test_the_command_takes_another_release_and_an_input_range(capsys):
    options = ("--board", "openmv-h7-plus", "--input-range", 0, 1)
    assert command(DATA / "sep.tflite", *options) == 1
    assert "input pin" in capsys.readouterr().out
    options = ("--board", "openmv-h7-plus", "--firmware", "4.8.1", "--json")
    assert command(DATA / "sep.tflite", *options) == 0
    assert json.loads(capsys.readouterr().out)["firmware"] == "4.8.1"


@pytest.mark.parametrize(
    "option",
    [("--board", "openmv-h7"), ("--firmware", "5.0"), ("--input-range", 0, 1)],
)
def test_the_command_refuses_options_that_a_folder_has_no_use_for(
    option, tmp_path, capsys
):
    assert command(tmp_path, *option) == 1
    assert f"Expected {option[0]} only with a .tflite file" in capsys.readouterr().err


def test_the_command_refuses_images_for_a_file(tmp_path, capsys):
    board = ("--board", "openmv-h7-plus")
    assert command(DATA / "sep.tflite", *board, "--data", tmp_path) == 1
    assert "Expected --data only with a folder" in capsys.readouterr().err


def test_the_command_sends_folders_to_their_report(tmp_path, capsys):
    assert command(tmp_path) == 1
    assert "which has no report.json" in capsys.readouterr().err
    (tmp_path / "report.json").write_text("{}")
    assert command(tmp_path, "--json") == 1
    content = json.loads(capsys.readouterr().out)
    assert "model.tflite is missing" in content["differences"]
    assert content["accuracy_measured"] is False


def test_the_command_finds_a_folder_that_an_interrupted_export_left_aside(
    tmp_path, capsys
):
    (tmp_path / ".camera.keras_omv-old").mkdir()
    assert command(tmp_path / "camera") == 1
    assert "which has no report.json" in capsys.readouterr().err


def test_a_verdict_is_plain_data():
    found = judged(b"")
    assert dataclasses.asdict(found.violations[0])["rule"] == "file"
