"""A camera folder that was changed in any way does not pass its own report."""

import dataclasses
import json
import shutil
import subprocess
import sys

import exports
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import keras_omv as omv
from keras_omv import flatbuffer, report
from keras_omv.report_check import FILES, check_folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return exports.make_export(tmp_path_factory.mktemp("camera") / "out")


@pytest.fixture
def copied(exported, tmp_path):
    return shutil.copytree(exported.folder, tmp_path / "copy")


def rewrite(folder, **entries):
    """Changes report.json as somebody would who knows how it is signed."""
    path = folder / "report.json"
    content = json.loads(path.read_text("utf-8"))
    content.pop("content_sha256")
    for place, value in entries.items():
        *parents, name = place.split("__")
        inner = content
        for parent in parents:
            inner = inner[parent]
        inner[name] = value
    names = [name for name in FILES if name != "report.json"]
    content["files"] = report.file_hashes(
        {name: (folder / name).read_bytes() for name in names}
    )
    path.write_bytes(report.signed_text(content).encode())


def test_an_untouched_folder_has_no_differences(exported):
    assert check_folder(exported.folder) == ()


def test_with_the_evaluation_images_the_accuracy_is_measured_again(exported):
    data = (exported.images, exported.labels)
    assert check_folder(exported.folder, evaluation_data=data) == ()


def test_other_images_than_those_of_the_export_are_noticed(exported):
    data = exports.make_images(seed=2)
    differences = check_folder(exported.folder, evaluation_data=data)
    assert "images or labels are not those of the export" in differences[0]
    assert any(text.startswith("accuracy.confusion:") for text in differences)


def test_a_budget_and_a_folder_without_accuracy_pass(tmp_path):
    budget = omv.Budget(flash_bytes=1_000_000)
    model = exports.make_model(knows=False)
    options = {"board": budget, "evaluation_data": None}
    made = exports.make_export(tmp_path / "out", model, **options)
    assert check_folder(made.folder) == ()
    data = (made.images, made.labels)
    (difference,) = check_folder(made.folder, evaluation_data=data)
    assert "exported without images" in difference


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_any_changed_byte_of_any_file_is_noticed(exported, tmp_path, data):
    folder = tmp_path / "mutated"
    shutil.copytree(exported.folder, folder, dirs_exist_ok=True)
    path = folder / data.draw(st.sampled_from(FILES))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    assert check_folder(folder)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_any_cut_of_any_file_is_noticed(exported, tmp_path, data):
    folder = tmp_path / "cut"
    shutil.copytree(exported.folder, folder, dirs_exist_ok=True)
    path = folder / data.draw(st.sampled_from(FILES))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert check_folder(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    assert any(name in difference for difference in check_folder(copied))


def test_what_people_add_to_the_folder_is_theirs(copied):
    (copied / "notes.txt").write_text("mine")
    assert check_folder(copied) == ()


def test_a_wrong_figure_is_told_with_both_values_even_where_it_was_signed(copied):
    true = json.loads((copied / "report.json").read_text("utf-8"))["ram_bytes"]
    rewrite(copied, ram_bytes=205152)
    assert (
        f"ram_bytes: report.json says 205,152, the model gives {true:,}"
        in check_folder(copied)
    )


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("flash_bytes", 1, "flash_bytes"),
        ("macs", 1, "macs"),
        ("latency_ms_estimate", 0.5, "latency_ms_estimate"),
        ("fits", False, "fits"),
        ("ram_limit_bytes", 1, "ram_limit_bytes"),
        ("input_shape", [1, 96, 96, 3], "input_shape"),
        ("class_names", ["a", "b", "c"], "labels.txt"),
        ("class_names", ["a", "b"], "class_names: report.json has 2"),
        ("board", "openmv-m7", "fit_reasons"),
        ("board", "toaster", "Unknown camera"),
        ("firmware", "9.9.9", "Unknown firmware"),
        ("accuracy__int8", 1.0, "accuracy.int8"),
        ("accuracy__recall", [1.0, 1.0, 1.0], "accuracy.recall"),
        ("accuracy__confusion", [[1]], "accuracy."),
        ("accuracy__confusion", "none", "accuracy.confusion"),
        ("candidates", [], "candidates: 0 of them ship"),
        ("budget", {"flash_bytes": 0, "ram_bytes": None}, "Invalid budget"),
        ("ram_bytes", True, "ram_bytes"),
        ("format", "other/1", "is no report"),
    ],
)
def test_every_signed_lie_is_found(copied, place, value, expected):
    rewrite(copied, **{place: value})
    assert any(expected in text for text in check_folder(copied))


def test_a_signed_lie_about_the_answers_needs_the_images(copied, exported):
    counts = np.diag(np.bincount(exported.labels, minlength=3)).tolist()
    figures = {"accuracy__int8": 1.0, "accuracy__recall": [1.0, 1.0, 1.0]}
    candidates = json.loads((copied / "report.json").read_text("utf-8"))["candidates"]
    candidates[0]["int8"] = 1.0
    rewrite(copied, accuracy__confusion=counts, candidates=candidates, **figures)
    assert check_folder(copied) == ()
    data = (exported.images, exported.labels)
    found = check_folder(copied, evaluation_data=data)
    assert any(text.startswith("accuracy.int8: report.json says 1.0") for text in found)


def test_a_desktop_model_of_other_weights_is_found(copied, tmp_path):
    other = exports.make_export(tmp_path / "other", exports.make_model(knows=False))
    shutil.copy(other.folder / "model_desktop.tflite", copied)
    rewrite(copied)
    assert "model_desktop.tflite is not the network of model.tflite" in check_folder(
        copied
    )


def test_a_changed_script_is_found(copied):
    script = copied / "main.py"
    script.write_bytes(script.read_bytes() + b"# mine\n")
    rewrite(copied)
    assert check_folder(copied) == (
        "main.py is not what keras_omv writes for this report",
    )


def test_another_model_is_found_by_what_it_costs(copied, tmp_path):
    other = exports.make_export(tmp_path / "other", exports.make_model(9))
    for name in ("model.tflite", "model_desktop.tflite"):
        shutil.copy(other.folder / name, copied)
    rewrite(copied)
    found = check_folder(copied)
    assert any(text.startswith("macs: report.json says") for text in found)


def test_a_model_that_breaks_the_firmwares_rules_is_found(copied):
    path = copied / "model.tflite"
    network = flatbuffer.read(path.read_bytes())
    place = network.ops[-2].outputs[0]
    collapsed = dataclasses.replace(
        network.tensors[place], scales=np.zeros(1, "float32")
    )
    tensors = (*network.tensors[:place], collapsed, *network.tensors[place + 1 :])
    broken = dataclasses.replace(network, tensors=tensors)
    path.write_bytes(flatbuffer.write(broken))
    desktop = flatbuffer.write(broken, desktop=True)
    (copied / "model_desktop.tflite").write_bytes(desktop)
    rewrite(copied)
    found = check_folder(copied)
    assert found
    assert all(text.startswith("model.tflite: ") for text in found)


def test_a_file_that_is_no_model_is_found(copied):
    (copied / "model.tflite").write_bytes(b"no model at all")
    rewrite(copied)
    assert any(text.startswith("model.tflite: ") for text in check_folder(copied))


@pytest.mark.parametrize("text", ["", "[]", "{}", "\xff", "{" * 100_000])
def test_something_else_than_a_report_is_said_to_be_none(copied, text):
    (copied / "report.json").write_text(text, encoding="latin-1")
    assert check_folder(copied) == ("report.json is no report of keras_omv",)


def test_checking_a_folder_loads_no_tensorflow(exported):
    code = (
        "import pathlib, sys; from keras_omv.report_check import check_folder; "
        "print(check_folder(pathlib.Path(sys.argv[1]))); "
        "sys.exit(len({'tensorflow', 'keras'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(exported.folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "()\n"
