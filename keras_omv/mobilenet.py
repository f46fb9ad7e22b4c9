"""MobileNetV2 as a Keras model of stock layers, with its levers."""

from typing import Any

import keras

from keras_omv.architecture import BLOCKS, Block, Levers

# `keras.applications.MobileNetV2`, for every batch normalization.
BATCH_NORM_EPSILON = 1e-3


def MobileNetV2(  # noqa: N802  (named as keras.applications names its models)
    input_shape: tuple[int, int, int],
    classes: int,
    *,
    alpha: float = 0.35,
    head_channels: int | None = None,
    depth: int = BLOCKS,
    dropout: float = 0.2,
    batch_norm_momentum: float = 0.9,
    include_rescaling: bool = True,
    name: str | None = None,
) -> Any:
    """Makes a MobileNetV2 classifier of stock Keras layers.

    Args:
        input_shape: `(height, width, channels)` with 1 (grey) or 3 (RGB) channels.
        classes: Number of classes, at least 2.
        alpha: Width multiplier, above 0. Defaults to `0.35`.
        head_channels: Width of the last convolution. Defaults to `None`: 1280, and
            more in proportion for an alpha above 1, as in the paper.
        depth: How many of the 17 blocks to keep, from the input on. Defaults to `17`.
        dropout: Rate of the dropout before the classifier. Defaults to `0.2`.
        batch_norm_momentum: Of all batch normalizations. Defaults to `0.9`: the
            0.999 of `keras.applications` needs thousands of steps to settle.
        include_rescaling: Whether the model takes pixels in [0, 255] and rescales
            them to [-1, 1] itself. Defaults to `True`.
        name: Of the model. Defaults to a name that says alpha and resolution.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)` to class
        probabilities `(batch, classes)`.

    Raises:
        ValueError: If a lever is out of its range.

    Example:

    >>> model = MobileNetV2((96, 96, 3), classes=5, alpha=0.35)
    >>> model.output_shape
    (None, 5)
    """
    _check_input_shape(input_shape)
    levers = Levers(
        alpha=alpha,
        resolution=min(input_shape[:2]),
        channels=input_shape[2],
        classes=classes,
        head_channels=head_channels,
        depth=depth,
    )
    image = x = keras.Input(input_shape, name="image")
    if include_rescaling:
        x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(x)
    x = _Layers(batch_norm_momentum).features(x, levers)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = keras.layers.Dense(classes, activation="softmax", name="scores")(x)
    width = f"{alpha:.2f}".replace(".", "")
    return keras.Model(image, x, name=name or f"mobilenetv2_a{width}_r{input_shape[0]}")


def model_of_levers(levers: Levers) -> Any:
    """The `MobileNetV2` of some levers, with random weights."""
    return MobileNetV2(
        (levers.resolution, levers.resolution, levers.channels),
        levers.classes,
        alpha=levers.alpha,
        head_channels=levers.head_channels,
        depth=levers.depth,
    )


def _check_input_shape(input_shape: tuple[int, ...]) -> None:
    if len(input_shape) != 3:
        raise ValueError(
            "Invalid value received for argument `input_shape`. Expected (height, "
            f"width, channels). Received: input_shape={input_shape}"
        )


class _Layers:
    """The layers that repeat, with their batch normalizations."""

    def __init__(self, momentum: float) -> None:
        self._momentum = momentum

    def features(self, x: Any, levers: Levers) -> Any:
        x = self.conv(x, levers.stem, 3, 2, "stem")
        for index, block in enumerate(levers.blocks):
            x = self.inverted_residual(x, block, f"block_{index}")
        return self.conv(x, levers.head, 1, 1, "head")

    def conv(self, x: Any, filters: int, size: int, stride: int, name: str) -> Any:
        padding = "same" if size > 1 else "valid"
        x = keras.layers.Conv2D(
            filters, size, stride, padding=padding, use_bias=False, name=name
        )(x)
        return self._relu(self._norm(x, name), name)

    def inverted_residual(self, x: Any, block: Block, name: str) -> Any:
        source = x
        if block.expanded != block.inputs:
            x = self.conv(x, block.expanded, 1, 1, f"{name}_expand")
        depthwise, project = f"{name}_depthwise", f"{name}_project"
        x = keras.layers.DepthwiseConv2D(
            3, block.stride, padding="same", use_bias=False, name=depthwise
        )(x)
        x = self._relu(self._norm(x, depthwise), depthwise)
        x = keras.layers.Conv2D(block.outputs, 1, use_bias=False, name=project)(x)
        x = self._norm(x, project)
        if not block.is_residual:
            return x
        return keras.layers.Add(name=f"{name}_add")([source, x])

    def _norm(self, x: Any, name: str) -> Any:
        return keras.layers.BatchNormalization(
            momentum=self._momentum, epsilon=BATCH_NORM_EPSILON, name=f"{name}_bn"
        )(x)

    def _relu(self, x: Any, name: str) -> Any:
        return keras.layers.ReLU(6.0, name=f"{name}_relu")(x)
