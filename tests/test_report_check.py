"""A camera folder that was changed in any way does not pass its own report."""

import dataclasses
import hashlib
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
from keras_omv import flatbuffer, report_check, report_figures, storage
from keras_omv.report_check import FILES, check_folder, edited_files

ALL_FILES = ("romfs.img", *FILES)
"""Of an export whose model lives in ROMFS, the page and the report last."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return exports.make_export(tmp_path_factory.mktemp("camera") / "out")


@pytest.fixture
def copied(exported, tmp_path):
    return shutil.copytree(exported.folder, tmp_path / "copy")


def rewrite(folder, also_listed=None, **entries):
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
    if (folder / "romfs.img").exists():
        content["romfs"] = fill_romfs(folder)
    for name in ALL_FILES[:-2]:  # the page shows the hashes of all but itself
        if not (folder / name).exists():
            continue
        new = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        page = folder / "report.html"
        page.write_bytes(
            page.read_bytes().replace(content["files"][name].encode(), new.encode())
        )
        content["files"][name] = new
    new = hashlib.sha256((folder / "report.html").read_bytes()).hexdigest()
    content["files"]["report.html"] = new
    content["files"].update(also_listed or {})
    path.write_bytes(report_figures.signed_text(content).encode())


def fill_romfs(folder):
    """Puts the model and the labels of a folder into its romfs.img."""
    board = omv.get_board(exports.BOARD)
    files = {n: (folder / n).read_bytes() for n in ("model.tflite", "labels.txt")}
    image = storage.image_for(board, files)
    (folder / "romfs.img").write_bytes(image)
    return dataclasses.asdict(storage.contents_of(image, board))


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


def test_another_runtime_that_answers_the_same_says_nothing_against_a_report(
    exported, monkeypatch
):
    measure = report_check.measure_device
    monkeypatch.setattr(
        report_check,
        "measure_device",
        lambda run: dataclasses.replace(measure(run), runtime="another"),
    )
    data = (exported.images, exported.labels)
    assert check_folder(exported.folder, evaluation_data=data) == ()
    others = exports.make_images(seed=2)
    differences = check_folder(exported.folder, evaluation_data=others)
    assert any('now it is "another"' in text for text in differences)


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
    path = folder / data.draw(st.sampled_from(ALL_FILES))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    # main.py is for editing: it is named, not refused.
    assert check_folder(folder) or edited_files(folder) == (path.name,)


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
    path = folder / data.draw(st.sampled_from(ALL_FILES))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    assert check_folder(folder)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    assert any(name in difference for difference in check_folder(copied))


def test_a_report_of_another_version_is_told_from_a_broken_one(copied):
    report = copied / "report.json"
    text = report.read_text("utf-8")
    report.write_text(text.replace("keras_omv.report/3", "keras_omv.report/2"), "utf-8")
    assert check_folder(copied) == (
        "report.json is of another version of keras_omv: export again",
    )
    report.write_text("[]")
    assert check_folder(copied) == ("report.json is no report of keras_omv",)


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
        ("accuracy__confusion", [[1]], "accuracy.confusion"),
        ("accuracy__confusion", [[10**30] * 3] * 3, "accuracy.images"),
        ("accuracy__confusion", [[-1] * 3] * 3, "accuracy.confusion"),
        ("accuracy__confusion", [[0] * 3] * 3, "has no camera, labels or figures"),
        ("accuracy__confusion", "none", "has no camera, labels or figures"),
        ("accuracy", "x", "has no camera, labels or figures"),
        ("accuracy__warnings", ["all is well"], "accuracy.warnings"),
        ("accuracy__float32", 0.123456, "accuracy.float32"),
        ("accuracy__float32", 2.0, "accuracy.float32"),
        ("accuracy__fake_quantized", 0.0, "accuracy.agreement"),
        ("accuracy__camera__images", 1, "accuracy.camera.images"),
        ("accuracy__camera__int8_clean", 0.0, "accuracy.camera.int8_clean"),
        ("accuracy__extra", 1, 'accuracy."extra" is no entry'),
        ("candidates", 5, "has no camera, labels or figures"),
        ("candidates", [{}], "has no camera, labels or figures"),
        ("trials", 5, "has no camera, labels or figures"),
        ("trials", [{}], "has no camera, labels or figures"),
        ("choice", "it is the best", "choice:"),
        ("quantization", "trained", "ships.quantization"),
        ("input_range", "x", "has no camera, labels or figures"),
        ("input_range", [1], "has no camera, labels or figures"),
        ("input_range", [1.0, 1.0], "input_range"),
        ("input_range", [0.0, float("inf")], "is no report"),
        ("network_input_range", [0.0, 255.0], "network_input_range"),
        ("how__ram_bytes", "exact: trust me", "how:"),
        ("warnings", ["it answers oddly"], "report.html"),
        ("warnings", 5, "has no camera, labels or figures"),
        ("seed", "7", "has no camera, labels or figures"),
        ("seed", 7, "report.html"),
        ("versions", {}, "report.html"),
        ("versions", None, "has no camera, labels or figures"),
        ("extra", 1, '"extra" is no entry'),
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
    shares = ("int8", "float32", "fake_quantized", "agreement")
    figures = {
        **{f"accuracy__{name}": 1.0 for name in shares},
        "accuracy__camera__int8_clean": 1.0,
        "accuracy__recall": [1.0, 1.0, 1.0],
    }
    candidates = json.loads((copied / "report.json").read_text("utf-8"))["candidates"]
    candidates[0]["int8"] = 1.0
    rewrite(copied, accuracy__confusion=counts, candidates=candidates, **figures)
    (difference,) = check_folder(copied)
    assert difference == "report.html is not what keras_omv writes for this report"
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


def test_a_file_of_the_report_that_no_export_writes_is_found(copied):
    for name in ("gone.txt", "report.json"):
        rewrite(copied, also_listed={name: "0" * 64})
        assert f"files: {name} is none of the files of an export" in check_folder(
            copied
        )


def test_a_page_that_tells_other_figures_is_found(copied, exported):
    path = copied / "report.html"
    text = path.read_text("utf-8")
    path.write_text(text.replace("</h1>", " twice</h1>"), "utf-8")
    rewrite(copied)
    expected = ("report.html is not what keras_omv writes for this report",)
    assert check_folder(copied) == expected


def test_the_pages_mistakes_are_compared_where_there_are_images(copied, exported):
    path = copied / "report.html"
    text = path.read_text("utf-8")
    assert "Surest mistakes" in text
    path.write_text(text.replace("Surest mistakes", "No mistakes"), "utf-8")
    rewrite(copied)
    assert check_folder(copied) == ()
    data = (exported.images, exported.labels)
    found = check_folder(copied, evaluation_data=data)
    assert found == ("report.html is not what keras_omv writes for this report",)


def test_a_model_that_was_emptied_answers_the_same_to_everything(copied):
    network = flatbuffer.read((copied / "model_desktop.tflite").read_bytes())
    tensors = tuple(
        tensor
        if tensor.data is None or not len(tensor.scales)
        else dataclasses.replace(tensor, data=np.ones_like(tensor.data))
        for tensor in network.tensors
    )
    emptied = dataclasses.replace(network, tensors=tensors)
    for name, desktop in (("model.tflite", False), ("model_desktop.tflite", True)):
        (copied / name).write_bytes(flatbuffer.write(emptied, desktop=desktop))
    rewrite(copied, zero_weights=0.0)
    (difference,) = check_folder(copied)
    assert "answers the same to 16 of 16 frames" in difference


def test_a_model_that_does_not_run_is_found(copied, monkeypatch):
    monkeypatch.setattr(report_check, "run_violations", refused_by_tflm)
    (difference,) = check_folder(copied)
    assert difference.startswith("model.tflite: ")


def refused_by_tflm(network, file):
    """What TFLM says to a file that is none."""
    from keras_omv.verification import run_violations

    return run_violations(network, file[: len(file) // 2])


def test_evaluation_images_on_another_scale_are_refused(exported):
    data = (exported.images / 255, exported.labels)
    with pytest.raises(omv.DatasetError, match=r"\[0, 255\].*from 0 to 1"):
        check_folder(exported.folder, evaluation_data=data)


def test_a_folder_that_an_interrupted_export_left_aside_is_put_back(copied):
    aside = copied.with_name(f".{copied.name}.keras_omv-old")
    copied.rename(aside)
    assert check_folder(copied) == ()
    assert copied.exists()
    assert not aside.exists()


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
    network = flatbuffer.read((copied / "model_desktop.tflite").read_bytes())
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
