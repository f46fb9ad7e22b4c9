"""MobileNetV2 as numbers: its levers, its blocks, its int8 network.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
arXiv:1801.04381, as `keras.applications.MobileNetV2` builds it, whose last
convolution is always 1280 wide. At alpha 0.1 that is more than half of the flash and
10 KB of the RAM, so here it is a lever. This module imports NumPy only: what a
candidate costs is known before a model exists.
"""

import dataclasses
import math
import numbers
from typing import Any

import numpy as np

from keras_omv.builder import NetworkBuilder, convolution_options
from keras_omv.network import Network

# (expansion, channels at alpha 1, repeats, stride of the first), table 2 of the paper.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
BLOCKS = sum(repeats for _, _, repeats, _ in STAGES)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One inverted residual.

    Attributes:
        inputs: Channels that go in.
        expanded: Channels of its depthwise convolution.
        outputs: Channels that come out.
        stride: Of its depthwise convolution.
    """

    inputs: int
    expanded: int
    outputs: int
    stride: int

    @property
    def is_residual(self) -> bool:
        """Whether its input is added to its output."""
        return self.stride == 1 and self.inputs == self.outputs


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """What can be chosen about a MobileNetV2.

    Attributes:
        alpha: Width multiplier, above 0.
        resolution: Height and width of the image in pixels.
        channels: 1 for grey, 3 for RGB.
        classes: Number of classes, at least 2.
        head_channels: Width of the last convolution. `None` stands for 1280, and
            more in proportion for an alpha above 1, as in the paper.
        depth: How many of the 17 blocks are kept, from the input on.
    """

    alpha: float
    resolution: int
    channels: int = 3
    classes: int
    head_channels: int | None = None
    depth: int = BLOCKS

    def __post_init__(self) -> None:
        alpha, resolution, classes = self.alpha, self.resolution, self.classes
        channels, head, depth = self.channels, self.head_channels, self.depth
        valid = _is_finite(alpha) and alpha > 0
        _check("alpha", alpha, valid, "a positive number, such as 0.35")
        valid = _is_whole(resolution) and resolution > 0
        _check("resolution", resolution, valid, "whole pixels of a side, above 0")
        valid = _is_whole(channels) and channels in (1, 3)
        _check("channels", channels, valid, "1 (grey) or 3 (RGB)")
        valid = _is_whole(classes) and classes >= 2
        _check("classes", classes, valid, "a whole number, 2 or more")
        valid = _is_whole(depth) and 1 <= depth <= BLOCKS
        _check("depth", depth, valid, f"1 to {BLOCKS} blocks, a whole number")
        valid = head is None or (_is_whole(head) and head > 0)
        _check("head_channels", head, valid, "a whole number above 0, or None")

    @property
    def stem(self) -> int:
        """Channels of the first convolution."""
        return make_divisible(STEM_CHANNELS * self.alpha)

    @property
    def head(self) -> int:
        """Channels of the last convolution."""
        return self.head_channels or make_divisible(
            HEAD_CHANNELS * max(1.0, self.alpha)
        )

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The inverted residuals that are kept."""
        made = []
        channels = self.stem
        for expansion, width, repeats, stride in STAGES:
            outputs = make_divisible(int(width * self.alpha))
            for index in range(repeats):
                first = stride if index == 0 else 1
                made.append(Block(channels, channels * expansion, outputs, first))
                channels = outputs
        return tuple(made[: self.depth])


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Rounds a width to a multiple of 8, never below 90 % of it.

    As `keras.applications.MobileNetV2` does.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def network_of_levers(levers: Levers) -> Network:
    """The int8 network that a MobileNetV2 of these levers is exported as.

    Its weights are zeros: only its sizes mean something.
    """
    return _Architect().build(levers)


class _Architect:
    """Appends the operations in the order in which the exporter does."""

    def __init__(self) -> None:
        self._builder = NetworkBuilder()

    def build(self, levers: Levers) -> Network:
        add, side = self._builder, levers.resolution
        image = add.activation("image", (side, side, levers.channels))
        x = self._conv("stem", image, levers.stem, 3, 2, "relu6")
        for index, block in enumerate(levers.blocks):
            x = self._block(f"block_{index}", x, block)
        x = self._conv("head", x, levers.head, 1, 1, "relu6")
        axes = add.integers("axes", np.array([1, 2]))
        pool = add.activation("pool", (levers.head,))
        x = add.op("MEAN", (x, axes), pool, keep_dims=False)
        logits = add.activation("scores", (levers.classes,))
        weights = self._weights("scores", (levers.classes, levers.head), axis=0)
        x = add.op("FULLY_CONNECTED", (x, *weights), logits, activation="NONE")
        scores = add.activation("scores/softmax", (levers.classes,))
        return add.build(image, add.op("SOFTMAX", (x,), scores, beta=1.0))

    def _block(self, name: str, x: int, block: Block) -> int:
        source = x
        if block.expanded != block.inputs:
            x = self._conv(f"{name}_expand", x, block.expanded, 1, 1, "relu6")
        x = self._depthwise(f"{name}_depthwise", x, block.stride)
        x = self._conv(f"{name}_project", x, block.outputs, 1, 1, "linear")
        if not block.is_residual:
            return x
        total = self._builder.activation(f"{name}_add", self._shape(x))
        return self._builder.op("ADD", (source, x), total, activation="NONE")

    def _conv(
        self, name: str, x: int, filters: int, size: int, stride: int, activation: str
    ) -> int:
        output = self._builder.activation(name, (*self._strided(x, stride), filters))
        shape = (filters, size, size, self._shape(x)[-1])
        options = convolution_options(
            padding="same" if size > 1 else "valid",
            activation=activation,
            strides=(stride, stride),
        )
        inputs = (x, *self._weights(name, shape, axis=0))
        return self._builder.op("CONV_2D", inputs, output, **options)

    def _depthwise(self, name: str, x: int, stride: int) -> int:
        channels = self._shape(x)[-1]
        output = self._builder.activation(name, (*self._strided(x, stride), channels))
        options = convolution_options(
            padding="same", activation="relu6", strides=(stride, stride)
        )
        inputs = (x, *self._weights(name, (1, 3, 3, channels), axis=3))
        return self._builder.op(
            "DEPTHWISE_CONV_2D", inputs, output, **options, depth_multiplier=1
        )

    def _shape(self, x: int) -> tuple[int, ...]:
        return self._builder.tensors[x].shape[1:]

    def _strided(self, x: int, stride: int) -> tuple[int, int]:
        height, width, _ = self._shape(x)
        return -(-height // stride), -(-width // stride)

    def _weights(
        self, name: str, shape: tuple[int, ...], *, axis: int
    ) -> tuple[int, int]:
        channels = shape[axis]
        # A dense layer is quantized as a whole, see Step.per_channel.
        scales = np.ones(1 if len(shape) == 2 else channels, "float32")
        weights = np.zeros(shape, "int8")
        bias = np.zeros(channels, "int32")
        return (
            self._builder.weights(name, weights, scales, axis=axis),
            self._builder.bias(name, bias, scales),
        )


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _check(name: str, value: Any, valid: bool, expected: str) -> None:
    if not valid:
        raise ValueError(
            f"Invalid value received for argument `{name}`. Expected {expected}. "
            f"Received: {name}={value!r}"
        )
