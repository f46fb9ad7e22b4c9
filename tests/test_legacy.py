"""Files of Keras 2 compute the same here as there, or are refused with the reason."""

import json

import h5py
import keras
import numpy as np
import old_keras
import pytest

import keras_omv as omv
from keras_omv.estimation import load_model


@pytest.mark.parametrize(
    "name",
    [
        "functional.h5",
        "sequential.h5",
        "teachable_machine.h5",
        "preprocessed.h5",
        "stripped.h5",
    ],
)
def test_h5_of_keras_2_computes_the_same(old_models, name):
    model = load_model(old_models / name)
    found = model.predict(old_keras.images(), verbose=0)
    np.testing.assert_allclose(found, old_keras.answers(old_models, name), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "refusal"),
    [("teachable_machine.h5", "Functional"), ("preprocessed.h5", "TFOpLambda")],
)
def test_what_keras_3_refuses_alone_is_costed(old_models, name, refusal):
    with pytest.raises((ValueError, TypeError), match=refusal):
        keras.models.load_model(old_models / name, compile=False)
    assert omv.estimate(old_models / name).macs > 10_000


def early(node):
    """A configuration as Keras wrote it before 2.3: no module, Model, no InputLayer."""
    if isinstance(node, list):
        return [early(part) for part in node]
    if not isinstance(node, dict):
        return node
    late = ("module", "registered_name", "build_config")
    node = {key: early(part) for key, part in node.items() if key not in late}
    if node.get("class_name") == "Functional":
        node["class_name"] = "Model"
    if node.get("class_name") == "Sequential":
        parts = node["config"]["layers"]
        node["config"] = [part for part in parts if part["class_name"] != "InputLayer"]
    return node


def test_teachable_machine_file_of_an_early_keras_computes_the_same(
    old_models, tmp_path
):
    path = tmp_path / "keras_model.h5"
    path.write_bytes((old_models / "teachable_machine.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(
            early(json.loads(file.attrs["model_config"]))
        )
        del file.attrs["keras_version"]
    found = load_model(path).predict(old_keras.images(), verbose=0)
    expected = old_keras.answers(old_models, "teachable_machine.h5")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_h5_of_keras_2_is_exported_from_its_path(old_models, tmp_path):
    report = omv.export(
        old_models / "sequential.h5",
        tmp_path / "camera",
        board="openmv-h7-plus",
        class_names=["a", "b", "c"],
        representative_data=255 * old_keras.images(),
    )
    assert report.accuracy is None
    assert (tmp_path / "camera" / "model.tflite").exists()


def test_h5_of_keras_3_is_loaded_as_it_is(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    model.save(tmp_path / "new.h5")
    assert load_model(tmp_path / "new.h5").output_shape == (None, 192)


def test_custom_layer_is_named(old_models):
    with pytest.raises(omv.UnsupportedModelError, match="Doubled, of which a file"):
        load_model(old_models / "custom.h5")


def test_weights_alone_are_refused(old_models):
    with pytest.raises(omv.ExportError, match="holds weights alone"):
        load_model(old_models / "weights.h5")


def test_damaged_h5_is_refused(old_models, tmp_path):
    path = tmp_path / "cut.h5"
    path.write_bytes((old_models / "functional.h5").read_bytes()[:2000])
    with pytest.raises(omv.ExportError, match="Keras cannot load"):
        load_model(path)
