"""Options of main.py: refused by name, kept through an export, a check and a copy."""

import ast
import json
import logging
import math

import exports
import pytest

import keras_omv as omv
from keras_omv.report_check import check_folder, edited_files
from keras_omv.script_options import ScriptOptions

OPTIONS = ScriptOptions(smooth=5, threshold=0.6, roi=(40, 0, 240, 240), action=True)


@pytest.mark.parametrize(
    ("option", "bad"),
    [
        ("smooth", 1),
        ("smooth", 2.5),
        ("smooth", True),
        ("threshold", 0),
        ("threshold", 60),
        ("save_below", -0.1),
        ("roi", (0, 0, 320)),
        ("roi", (0, 0, 321, 240)),
        ("roi", (-1, 0, 100, 100)),
        ("roi", (0, 0, 0, 0)),
        ("roi", (0.0, 0, 100, 100)),
        ("roi", "0123"),
        ("roi", 240),
        ("action", "yes"),
        ("threshold", "0.6"),
        ("threshold", math.nan),
        ("save_button", '"'),
        ("save_button", ""),
    ],
)
def test_a_bad_option_is_refused_by_name(option, bad):
    with pytest.raises(ValueError, match=f"argument `{option}`.*Next step: "):
        ScriptOptions(**{option: bad})


def test_a_region_may_be_a_list():
    assert ScriptOptions(roi=[40, 0, 240, 240]) == ScriptOptions(roi=(40, 0, 240, 240))


def test_options_reach_the_script_the_report_and_its_check(tmp_path):
    made = exports.make_export(tmp_path / "camera", script=OPTIONS)
    assert constants_of(made.text("main.py")) >= {("SMOOTH", 5), ("THRESHOLD", 0.6)}
    said = json.loads(made.text("report.json"))["script"]
    assert ScriptOptions(**said) == OPTIONS == made.report.script
    assert check_folder(made.folder) == ()


def constants_of(script):
    assigned = [node for node in ast.parse(script).body if isinstance(node, ast.Assign)]
    values = [(node.targets[0].id, node.value) for node in assigned]
    return {(n, v.value) for n, v in values if isinstance(v, ast.Constant)}


@pytest.fixture
def folder(tmp_path):
    return exports.make_export(tmp_path / "camera", script=OPTIONS).folder


def edit(folder):
    script = folder / "main.py"
    text = script.read_text("utf-8")
    assert text.count("    pass\n") == 1
    script.write_text(text.replace("    pass\n", "    print(label)\n"), "utf-8")
    return script.read_bytes()


def test_an_edited_script_is_no_difference_but_named(folder):
    assert edited_files(folder) == ()
    edit(folder)
    assert check_folder(folder) == ()
    assert edited_files(folder) == ("main.py",)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (b" \n", "main.py is empty"),
        (b"while True\n    pass\n", "main.py is no Python: "),
        (b"x = '\xff'\n", "main.py is no Python: "),
        (b"\0", "main.py is no Python: "),
    ],
)
def test_a_script_that_cannot_run_is_a_difference(folder, script, problem):
    (folder / "main.py").write_bytes(script)
    (difference,) = check_folder(folder)
    assert difference.startswith(problem)


def test_a_script_may_lose_its_last_line_break(folder):
    script = folder / "main.py"
    script.write_bytes(script.read_bytes().rstrip())
    assert check_folder(folder) == ()
    assert edited_files(folder) == ("main.py",)


def test_half_a_script_is_not_taken_for_an_edited_one(folder):
    script = folder / "main.py"
    script.write_bytes(script.read_bytes().partition(b"def is_there")[0])
    assert check_folder(folder) == ("main.py is cut short",)


def test_another_export_keeps_an_edited_script_aside(folder, caplog):
    edited = edit(folder)
    with caplog.at_level(logging.WARNING):
        exports.make_export(folder)
    assert (folder / "main_before.py").read_bytes() == edited
    assert "on_class" not in (folder / "main.py").read_text("utf-8")
    assert "main.py was edited: it is main_before.py now" in caplog.text
    exports.make_export(folder, script=OPTIONS)
    assert (folder / "main_before.py").read_bytes() == edited
    assert check_folder(folder) == ()


def test_every_edited_script_is_kept_once(folder):
    first = edit(folder)
    for text in (first, first + b"# mine\n", first):
        (folder / "main.py").write_bytes(text)
        exports.make_export(folder)
    kept = {path.name: path.read_bytes() for path in folder.glob("main_before*.py")}
    assert kept == {"main_before.py": first, "main_before_2.py": first + b"# mine\n"}


def test_options_of_another_kind_are_refused_before_training(tmp_path):
    wrong = omv.OpenMVExport(
        tmp_path / "camera",
        board=exports.BOARD,
        class_names=exports.NAMES,
        script={"smooth": 5},
    )
    with pytest.raises(ValueError, match=r"Expected omv\.ScriptOptions"):
        exports.make_model(callbacks=[wrong])
