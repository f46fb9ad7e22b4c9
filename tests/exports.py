"""A small exported camera folder, for the tests of its report."""

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np

import keras_omv as omv

SIDE = 12
NAMES = ('a <b>bold</b> & "quoted"', "it's", "plain")
BOARD = "openmv-h7"


@dataclasses.dataclass(frozen=True)
class Export:
    """A folder, its report and the images it was measured on."""

    folder: pathlib.Path
    report: Any
    images: np.ndarray
    labels: np.ndarray

    def text(self, name):
        return (self.folder / name).read_text("utf-8")


def make_images(count=90, seed=0, noise=70.0):
    """Pictures in [0, 255] of three shades, some beyond recognition."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(NAMES), count)
    shades = np.array([50.0, 120.0, 190.0])[labels][:, None, None, None]
    offsets = random.normal(0, noise / 2, (count, 1, 1, 1))
    pixels = shades + offsets + random.normal(0, noise / 3, (count, SIDE, SIDE, 3))
    return np.clip(np.rint(pixels), 0, 255).astype("float32"), labels


def make_model(filters=6, *, knows=True, callbacks=()):
    """A small classifier of those pictures, the same in every test.

    Args:
        filters: Of its convolutions.
        knows: Whether it tells the shades apart, or was never taught.
        callbacks: With which it is then trained for two epochs.
    """
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(filters, 3, strides=2, activation="relu"),
            layers.DepthwiseConv2D(3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(len(NAMES), activation="softmax"),
        ]
    )
    if knows:
        teach(model)
    if callbacks:
        model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
        model.fit(*make_images(), epochs=2, verbose=0, callbacks=list(callbacks))
    return model


def teach(model):
    """Solves the last layer: logits that cross half-way between the shades."""
    images, _ = make_images()
    features = keras.Model(model.inputs[0], model.layers[-2].output)
    inputs = np.hstack([features(images).numpy(), np.ones((len(images), 1))])
    shade = images.mean(axis=(1, 2, 3)) / 255
    steps = np.stack([0 * shade, shade - 85 / 255, shade - 155 / 255], axis=1)
    solution = np.linalg.lstsq(inputs, 20 * np.cumsum(steps, axis=1), rcond=None)[0]
    model.layers[-1].set_weights([solution[:-1], solution[-1]])


def make_export(folder, model=None, **options):
    images, labels = make_images(seed=1)
    defaults = {
        "board": BOARD,
        "class_names": NAMES,
        "representative_data": make_images()[0],
        "evaluation_data": (images, labels),
    }
    model = make_model() if model is None else model
    report = omv.export(model, folder, **{**defaults, **options})
    return Export(folder, report, images, labels)
