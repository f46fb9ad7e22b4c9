"""SavedModels and tensorflow-model-optimization's wrappers, through tf_keras."""

import numpy as np
import old_keras
import pytest

import keras_omv as omv
from keras_omv import old_models as loader
from keras_omv import trained
from keras_omv.accuracy import range_of
from keras_omv.estimation import load_model


def test_saved_model_in_pruning_wrappers_computes_the_same(old_models):
    model = load_model(old_models / "pruned")
    found = model.predict(old_keras.images(), verbose=0)
    expected = old_keras.answers(old_models, "pruned")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}


def test_quantization_aware_training_of_tfmot_is_exported_with_its_ranges(
    old_models, tmp_path
):
    model = loader.load(old_models / "quantized.h5")
    view = trained.trained_view(model)
    assert range_of(view) == (0.0, 1.0)
    expected = old_keras.answers(old_models, "quantized.h5")
    np.testing.assert_allclose(view.predict(old_keras.images()), expected, atol=0.02)
    report = omv.export(
        model, tmp_path / "camera", board="openmv-h7-plus", class_names=["a", "b", "c"]
    )
    assert report.quantization == "trained"
    assert report.network_input_range == (0.0, pytest.approx(1.0))


def test_functions_without_layers_are_refused_with_the_way_out(old_models):
    with pytest.raises(
        omv.UnsupportedModelError, match=r"no layers.*TFLiteConverter.from_saved_model"
    ):
        load_model(old_models / "functions")


def test_folder_that_is_no_saved_model_is_refused(tmp_path):
    with pytest.raises(omv.ExportError, match=r"a folder without the saved_model\.pb"):
        load_model(tmp_path)


def test_damaged_saved_model_is_refused_with_what_tf_keras_says(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"no protocol buffer")
    with pytest.raises(omv.ExportError, match=r"tf_keras says: .*saved_model\.pb"):
        load_model(tmp_path)
