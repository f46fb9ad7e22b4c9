"""report.json: documented, complete, the same bytes for the same export."""

import copy
import dataclasses
import hashlib
import json

import exports
import jsonschema
import numpy as np
import pytest

import keras_omv as omv
from keras_omv import report, report_figures, verify


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return exports.make_export(tmp_path_factory.mktemp("camera") / "out", seed=7)


@pytest.fixture(scope="module")
def written(exported):
    return json.loads(exported.text("report.json"))


def test_the_schema_is_one_and_every_entry_in_it_is_described():
    schema = report_figures.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["required"]) == set(schema["properties"])
    for name, entry in schema["properties"].items():
        assert "description" in entry or "$ref" in entry, name


def test_the_report_is_as_the_schema_says(written):
    jsonschema.validate(written, report_figures.schema())


def test_a_report_without_evaluation_data_and_for_a_budget_is_too(tmp_path):
    budget = omv.Budget(ram_bytes=100_000)
    model = exports.make_model(knows=False)
    options = {"board": budget, "evaluation_data": None}
    made = exports.make_export(tmp_path / "out", model, **options)
    written = json.loads(made.text("report.json"))
    jsonschema.validate(written, report_figures.schema())
    assert written["accuracy"] is None
    assert written["budget"] == {"flash_bytes": None, "ram_bytes": 100_000}


@pytest.mark.parametrize(
    ("entry", "wrong", "problem"),
    [
        ("ram_bytes", -1, "less than the minimum"),
        ("files", {}, "'model.tflite' is a required property"),
        ("candidates", [], "should be non-empty"),
        ("how", {"ram_bytes": "somehow"}, "does not match"),
        ("extra", 1, "'extra' was unexpected"),
    ],
)
def test_the_schema_refuses_what_is_no_report(written, entry, wrong, problem):
    changed = {**copy.deepcopy(written), entry: wrong}
    with pytest.raises(jsonschema.ValidationError, match=problem):
        jsonschema.validate(changed, report_figures.schema())


def test_every_figure_says_how_it_was_obtained(written):
    explained = set(written["how"])
    not_figures = {
        *("format", "board", "firmware", "budget", "class_names", "quantization"),
        *("input_range", "input_shape", "candidates", "choice", "trials"),
        *("seed", "files", "script"),
        *("versions", "how", "content_sha256", "accuracy", "warnings", "notes", "npu"),
    }
    about_the_fit = {
        *("fit_reasons", "storage", "arena_memory", "flash_limit_bytes"),
        *("ram_limit_bytes", "flash_over_bytes", "ram_over_bytes"),
        "replaces_stock_models",
    }
    figures = set(written) - not_figures - about_the_fit
    about_the_data = {"images", "runtime", "scores_sha256", "data_sha256", "warnings"}
    figures |= {
        f"accuracy.{name}" for name in set(written["accuracy"]) - about_the_data
    }
    assert explained == figures
    assert "estimated" in written["how"]["latency_ms_estimate"]
    assert written["accuracy"]["runtime"] in written["how"]["accuracy.int8"]


def how_of(exported, **changes):
    return report.how(dataclasses.replace(exported.report, **changes))


def test_ram_is_exact_on_firmware_5_0_alone(exported):
    assert how_of(exported, firmware="5.0.0")["ram_bytes"].startswith("exact: ")
    older = how_of(exported, firmware="4.7.0")["ram_bytes"]
    assert older.startswith("estimated: ")
    assert older.endswith("older ones differ")


def test_figures_of_a_camera_with_a_compiler_are_those_before_it(exported):
    found = how_of(exported, board="openmv-n6")
    assert found["ram_bytes"].startswith("estimated: ")
    assert "the compiler decides" in found["ram_bytes"]
    for name in ("flash_bytes", "latency_ms_estimate", "accuracy.int8"):
        assert "before compilation" in found[name]


def test_the_cameras_pixels_are_said_to_be_colours_alone(exported):
    assert "RGB565" in how_of(exported)["accuracy.camera"]
    assert "that alone is modelled" in how_of(exported)["accuracy.camera"]
    grey = how_of(exported, input_shape=(1, 12, 12, 1))["accuracy.camera"]
    assert "grey loses no bits" in grey


def test_the_networks_input_range_is_that_of_its_first_tensor(exported, written):
    from keras_omv import flatbuffer

    network = flatbuffer.read((exported.folder / "model.tflite").read_bytes())
    scale, zero_point = network.input.scales[0], network.input.zero_points[0]
    expected = [(end - zero_point) * float(scale) for end in (-128, 127)]
    assert written["network_input_range"] == pytest.approx(expected)


def test_hashes_versions_and_seed_are_those_of_the_export(exported, written):
    for name, digest in written["files"].items():
        content = (exported.folder / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
    assert sorted(written["files"]) == sorted(
        path.name for path in exported.folder.iterdir() if path.name != "report.json"
    )
    assert written["versions"]["numpy"] == np.__version__
    assert written["seed"] == 7


def test_the_parts_of_the_ram_add_up(written):
    assert sum(written["ram_breakdown"].values()) == written["ram_bytes"]


def test_the_accuracy_is_that_of_the_file_on_disk(exported, written):
    from keras_omv import flatbuffer

    network = flatbuffer.read((exported.folder / "model.tflite").read_bytes())
    scores = verify.run_network(network, exported.images.astype("uint8"))
    accuracy = written["accuracy"]
    assert accuracy["int8"] == np.mean(scores.classes == exported.labels)
    assert accuracy["runtime"] == scores.runtime
    digest = hashlib.sha256(scores.values.tobytes()).hexdigest()
    assert accuracy["scores_sha256"] == digest


def test_the_same_export_gives_the_same_bytes_in_every_file(tmp_path):
    model = exports.make_model(knows=False)
    first, second = (exports.make_export(tmp_path / name, model) for name in "ab")
    for path in first.folder.iterdir():
        assert path.read_bytes() == (second.folder / path.name).read_bytes(), path.name
