"""Models and files to start from, all of them made here with random weights."""

import os
import pathlib
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest

import keras_omv as omv
from keras_omv.pretrained import source_of
from keras_omv.slicing import narrow

RNG = np.random.default_rng(0)


def levers(resolution=96, **changes):
    return omv.Levers(**{"alpha": 0.35, "classes": 3, **changes}, resolution=resolution)


def applications(side=96, channels=3, **arguments):
    """A keras.applications.MobileNetV2 whose every weight is its own."""
    model = keras.applications.MobileNetV2(
        input_shape=(side, side, channels), alpha=0.35, weights=None, **arguments
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.weights])
    return model


def features(source, images):
    """What comes out of the last convolution, before the pooling."""
    head = source.get_layer("head_relu").output
    return np.asarray(keras.Model(source.input, head)(images))


def images_of(side, channels=3):
    return RNG.uniform(0, 255, (2, side, side, channels)).astype("float32")


def check_same_features(source, model, side, channels=3):
    images = images_of(side, channels)
    expected = np.asarray(model(images / 127.5 - 1.0))
    assert expected.std() > 0.01
    np.testing.assert_allclose(features(source, images), expected, atol=1e-4)


@pytest.fixture(scope="module")
def published():
    return applications(include_top=False)


# 72 pixels have odd maps before strided convolutions, 33 before the first too.
@pytest.mark.parametrize("side", [96, 72, 33])
def test_a_converted_model_computes_the_same_features(published, side):
    model = applications(side, include_top=False)
    model.set_weights(published.get_weights())
    check_same_features(source_of(model, levers(side)), model, side)


def test_a_grey_model_computes_the_same_features():
    model = applications(channels=1, include_top=False)
    check_same_features(source_of(model, levers()), model, 96, channels=1)


def test_a_model_with_its_top_gives_the_same_answers():
    model = applications(include_top=True, classes=7)
    source = source_of(model, levers())
    images = images_of(96)
    expected = model(images / 127.5 - 1.0)
    np.testing.assert_allclose(source(images), expected, atol=1e-5)


def test_a_model_without_its_top_leaves_the_classifier_to_the_target(published):
    source = source_of(published, levers())
    target = omv.MobileNetV2((64, 64, 1), 3, alpha=0.2, head_channels=64)
    assert narrow(source, target).initialised == ("scores",)


@pytest.mark.parametrize(
    ("name", "top"),
    [
        ("a.keras", True),
        ("a.h5", False),
        ("a.weights.h5", True),
        ("a.weights.h5", False),
    ],
)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
def test_a_file_gives_what_its_model_gives(tmp_path, name, top):
    model = applications(include_top=top)
    path = tmp_path / name
    (model.save_weights if name == "a.weights.h5" else model.save)(path)
    expected = source_of(model, levers()).get_weights()
    for mine, its in zip(
        source_of(path, levers()).get_weights(), expected, strict=True
    ):
        np.testing.assert_array_equal(mine, its)


def test_weights_beside_an_optimizer_are_found(tmp_path):
    model = applications(include_top=False)
    model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    model.save_weights(tmp_path / "a.weights.h5")
    source = source_of(str(tmp_path / "a.weights.h5"), levers())
    check_same_features(source, model, 96)


def test_a_model_of_ours_and_its_file_are_taken_as_they_are(tmp_path):
    model = omv.MobileNetV2((32, 32, 1), 3, alpha=0.1, depth=3)
    assert source_of(model, levers()) is model
    model.save(tmp_path / "a.keras")
    source = source_of(tmp_path / "a.keras", levers())
    images = images_of(32, 1)
    np.testing.assert_array_equal(source(images), model(images))


def test_other_models_and_files_are_refused(tmp_path, published):
    with pytest.raises(ValueError, match=r"the path to a .keras, .h5 or"):
        source_of("imagenett", levers())
    (tmp_path / "text.h5").write_text("none")
    with pytest.raises(ValueError, match="Expected a file that Keras wrote"):
        source_of(tmp_path / "text.h5", levers())
    nested = keras.Sequential([keras.Input((96, 96, 3)), published])
    with pytest.raises(ValueError, match=r"a model that omv.MobileNetV2 made"):
        source_of(nested, levers())
    ours = omv.MobileNetV2((32, 32, 3), 3, alpha=0.1, depth=3)
    ours.save_weights(tmp_path / "ours.weights.h5")
    with pytest.raises(ValueError, match=r"ours.weights.h5, whose kernels have other"):
        source_of(tmp_path / "ours.weights.h5", levers())


@pytest.mark.parametrize("change", [{"alpha": 1.5}, {"head_channels": 1800}])
def test_a_candidate_wider_than_all_published_weights_is_refused(change):
    with pytest.raises(ValueError, match=r"no wider than alpha 1.4"):
        source_of("imagenet", levers(**change))


# Keras reads where its downloads are when it is imported.
SCRIPT = """
import numpy as np
import keras_omv as omv
from keras_omv.pretrained import source_of

levers = omv.Levers(alpha=0.3, resolution=100, classes=3)
source = source_of("imagenet", levers)
np.savez("weights.npz", *source.get_layer("block_16_project").get_weights())
print(source.input_shape, source.output_shape)
try:
    source_of("imagenet", omv.Levers(alpha=0.4, resolution=112, classes=3))
except ValueError as error:
    print(error)
"""


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
def test_imagenet_takes_the_nearest_download_and_says_what_to_do_without(
    tmp_path, published
):
    folder = tmp_path / "models"
    folder.mkdir()
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96_no_top.h5"
    published.save(folder / name)
    with h5py.File(folder / name, "r+") as file:  # as Keras publishes it
        del file.attrs["model_config"]
    # No port below is open: what is not there cannot be downloaded.
    offline = {"https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    root = pathlib.Path(omv.__file__).parents[1]
    environment = {**os.environ, **offline, "KERAS_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "(None, 100, 100, 3) (None, 3)" in done.stdout
    assert "ImageNet weights of alpha 0.5 at 128x128 pixels" in done.stdout
    assert "pass weights= the path of a file of weights" in done.stdout
    with np.load(tmp_path / "weights.npz") as saved:
        expected = published.get_layer("block_16_project").get_weights()
        np.testing.assert_array_equal(saved["arr_0"], expected[0])
