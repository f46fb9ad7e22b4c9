"""Trained MobileNetV2s to start from: ImageNet's, a file's, or a Keras model.

`keras.applications.MobileNetV2` and `omv.MobileNetV2` are one architecture under two
sets of names. They compute the same where the sides of the image are known: the zeros
that the first pads before a strided convolution are those of "same" padding, for even
and odd maps.
"""

import collections
import os
import pathlib
from typing import Any

import h5py
import keras
import numpy as np

from keras_omv.architecture import Levers
from keras_omv.importance import widths_of
from keras_omv.legacy import load_h5
from keras_omv.mobilenet import MobileNetV2
from keras_omv.slicing import can_narrow

Shape = tuple[int, ...]

# What `keras.applications.MobileNetV2(weights="imagenet")` knows.
IMAGENET_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
IMAGENET_RESOLUTIONS = (96, 128, 160, 192, 224)

# Ours and those of `keras.applications.MobileNetV2`, without the blocks.
_NAMES = {
    "stem": "Conv1",
    "stem_bn": "bn_Conv1",
    "head": "Conv_1",
    "head_bn": "Conv_1_bn",
}


def source_of(weights: Any, levers: Levers) -> Any:
    """The trained model that `narrow` takes the weights of a candidate from.

    Args:
        weights: `"imagenet"`; or an `omv.MobileNetV2` or a
            `keras.applications.MobileNetV2`, with or without its top; or the path to
            a .keras or .h5 file of one; or to a file of weights, .weights.h5 or .h5,
            that `keras.applications.MobileNetV2` loads.
        levers: The candidate. A converted source gets its resolution, and with
            `"imagenet"` its width decides which weights are downloaded.

    Returns:
        An `omv.MobileNetV2`, which may be too narrow for the candidate if it was not
        chosen by `"imagenet"`: ask `can_narrow`.

    Raises:
        ValueError: If the weights cannot be found, read or taken for a MobileNetV2.
    """
    if isinstance(weights, (str, os.PathLike)) and weights != "imagenet":
        weights = _load(pathlib.Path(weights))
    if isinstance(weights, str):
        return imagenet_weights(levers)
    if {layer.name for layer in getattr(weights, "layers", ())} >= {*_NAMES.values()}:
        return _convert(weights, levers)
    widths_of(weights)
    return weights


def imagenet_weights(levers: Levers) -> Any:
    """The MobileNetV2 that Keras publishes for ImageNet, nearest to a candidate.

    Of the published alphas the narrowest that covers the candidate, and of the
    published resolutions the nearest, the greater of two. Keras downloads the file
    once, into `~/.keras/models`.

    Args:
        levers: The candidate.

    Returns:
        An `omv.MobileNetV2` of the candidate's resolution and classes. Its classifier
        is all zeros: the published one is for other classes.

    Raises:
        ValueError: If no published model is wide enough, or the download fails.
    """
    alpha = _imagenet_alpha(levers)
    side = min(
        IMAGENET_RESOLUTIONS, key=lambda side: (abs(side - levers.resolution), -side)
    )
    try:
        model = keras.applications.MobileNetV2(
            input_shape=(side, side, 3), alpha=alpha, include_top=False
        )
    # Keras raises a bare Exception where a download fails.
    except Exception as error:
        raise ValueError(
            f"Expected Keras to load its ImageNet weights of alpha {alpha} at "
            f"{side}x{side} pixels. Received: {error}. Go online once for the "
            "download, pass weights= the path of a file of weights, or weights=None."
        ) from error
    return _convert(model, levers)


def _imagenet_alpha(levers: Levers) -> float:
    for alpha in IMAGENET_ALPHAS:
        if can_narrow(Levers(alpha=alpha, resolution=224, classes=2), levers):
            return alpha
    raise ValueError(
        "Expected a MobileNetV2 no wider than alpha 1.4 with a head of 1792 channels, "
        f"the widest that Keras has ImageNet weights for. Received: {levers}. Choose "
        "a narrower one, or pass weights=None."
    )


def _load(path: pathlib.Path) -> Any:
    if not path.is_file() or path.suffix not in (".keras", ".h5"):
        raise ValueError(
            "Expected weights to be 'imagenet', a Keras model, or the path to a "
            f".keras, .h5 or .weights.h5 file. Received: weights={str(path)!r}"
        )
    try:
        return _load_keras(path) if path.suffix == ".keras" else _load_hdf5(path)
    except OSError as error:
        raise ValueError(
            f"Expected a file that Keras wrote. Received: {path}, which cannot be "
            f"read: {error}. Save the model or its weights anew."
        ) from error


def _load_keras(path: pathlib.Path) -> Any:
    return keras.models.load_model(path, compile=False)


def _load_hdf5(path: pathlib.Path) -> Any:
    with h5py.File(path) as file:
        is_model = "model_config" in file.attrs
        shapes = _shapes(file)
    return load_h5(path) if is_model else _load_weights(path, shapes)


def _shapes(file: h5py.File) -> list[Shape]:
    """The shapes of a file's weights, without what an optimizer keeps of them."""
    shapes: list[Shape] = []

    def note(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and not name.startswith("optimizer"):
            shapes.append(node.shape)

    file.visititems(note)
    return shapes


def _load_weights(path: pathlib.Path, shapes: list[Shape]) -> Any:
    """A keras.applications.MobileNetV2 whose width the weights' shapes tell."""
    channels = 1 if any(shape[:3] == (3, 3, 1) for shape in shapes) else 3
    dense = [shape for shape in shapes if len(shape) == 2]
    return keras.applications.MobileNetV2(
        input_shape=(224, 224, channels),
        alpha=_alpha_of(shapes, channels, str(path)),
        include_top=bool(dense),
        weights=str(path),
        classes=dense[0][1] if dense else 1000,
    )


def _alpha_of(shapes: list[Shape], channels: int, name: str) -> float:
    """The alpha whose convolutions have these shapes, a usual one if it may be."""
    kernels = collections.Counter(shape for shape in shapes if len(shape) == 4)
    for alpha in (*IMAGENET_ALPHAS, *(step / 1000 for step in range(1, 3001))):
        levers = Levers(alpha=alpha, resolution=224, channels=channels, classes=2)
        if _kernels(levers) == kernels:
            return alpha
    raise ValueError(
        "Expected the convolutions of a keras.applications.MobileNetV2 of an alpha up "
        f"to 3. Received: {name}, whose kernels have other shapes. Save an "
        "omv.MobileNetV2 as a .keras file, and pass a model inside another by itself."
    )


def _kernels(levers: Levers) -> "collections.Counter[Shape]":
    """The shapes of a MobileNetV2's convolutions."""
    shapes: list[Shape] = [(3, 3, levers.channels, levers.stem)]
    for block in levers.blocks:
        if block.expanded != block.inputs:
            shapes.append((1, 1, block.inputs, block.expanded))
        shapes.append((3, 3, block.expanded, 1))
        shapes.append((1, 1, block.expanded, block.outputs))
    shapes.append((1, 1, levers.blocks[-1].outputs, levers.head))
    return collections.Counter(shapes)


def _convert(model: Any, levers: Levers) -> Any:
    """An omv.MobileNetV2 that computes what a keras.applications.MobileNetV2 does."""
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    top = weights.get("predictions")
    side, channels = levers.resolution, model.input_shape[-1]
    shapes = [tuple(weight.shape) for weight in model.weights]
    converted = MobileNetV2(
        (side, side, channels),
        classes=top[1].size if top else levers.classes,
        alpha=_alpha_of(shapes, channels, model.name),
        name=model.name,
    )
    for layer in converted.layers:
        if layer.weights and layer.name != "scores":
            layer.set_weights(weights[_theirs(layer.name)])
    scores = converted.get_layer("scores")
    scores.set_weights(top or [np.zeros(w.shape) for w in scores.weights])
    return converted


def _theirs(name: str) -> str:
    """The name that keras.applications gives to one of our layers."""
    if name in _NAMES:
        return _NAMES[name]
    return name.replace("block_0_", "expanded_conv_").replace("_bn", "_BN")
