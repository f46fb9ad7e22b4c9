"""MobileNetV2 as numbers: its levers, its blocks, its int8 network.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
arXiv:1801.04381, as `keras.applications.MobileNetV2` builds it, whose last
convolution is always 1280 wide. At alpha 0.1 that is more than half of the flash and
10 KB of the RAM, so here it is a lever. This module imports NumPy only: what a
candidate costs is known before a model exists.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_omv.network import Network, Op, Tensor

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
        _check("alpha", self.alpha, self.alpha > 0, "a positive number, such as 0.35")
        _check("resolution", self.resolution, self.resolution > 0, "pixels above 0")
        _check(
            "channels", self.channels, self.channels in (1, 3), "1 (grey) or 3 (RGB)"
        )
        _check("classes", self.classes, self.classes >= 2, "2 or more")
        valid_depth = 1 <= self.depth <= BLOCKS
        _check("depth", self.depth, valid_depth, f"1 to {BLOCKS} blocks")
        valid_head = self.head_channels is None or self.head_channels > 0
        _check("head_channels", self.head_channels, valid_head, "a number above 0")

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
    return _Builder().build(levers)


class _Builder:
    """Appends the operations in the order in which the exporter does."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._ops: list[Op] = []

    def build(self, levers: Levers) -> Network:
        size, channels = levers.resolution, levers.channels
        image = self._activation("image", (size, size, channels))
        x = self._conv("stem", image, levers.stem, 3, 2, "RELU6")
        for index, block in enumerate(levers.blocks):
            x = self._block(f"block_{index}", x, block)
        x = self._conv("head", x, levers.head, 1, 1, "RELU6")
        axes = self._constant("axes", np.array([1, 2], "int32"))
        pool = self._activation("pool", (levers.head,))
        x = self._op("MEAN", (x, axes), pool, keep_dims=False)
        logits = self._activation("scores", (levers.classes,))
        weights = self._weights("scores", (levers.classes, levers.head), 1, 0)
        x = self._op("FULLY_CONNECTED", (x, *weights), logits, activation="NONE")
        scores = self._activation("scores/softmax", (levers.classes,))
        self._op("SOFTMAX", (x,), scores, beta=1.0)
        return Network(tuple(self._tensors), tuple(self._ops), (image,), (scores,))

    def _block(self, name: str, x: int, block: Block) -> int:
        source = x
        if block.expanded != block.inputs:
            x = self._conv(f"{name}_expand", x, block.expanded, 1, 1, "RELU6")
        x = self._depthwise(f"{name}_depthwise", x, block.stride)
        x = self._conv(f"{name}_project", x, block.outputs, 1, 1, "NONE")
        if not block.is_residual:
            return x
        total = self._activation(f"{name}_add", self._tensors[x].shape[1:])
        return self._op("ADD", (source, x), total, activation="NONE")

    def _conv(
        self, name: str, x: int, filters: int, size: int, stride: int, activation: str
    ) -> int:
        channels = self._tensors[x].shape[-1]
        output = self._activation(name, (*self._strided(x, stride), filters))
        weights = self._weights(name, (filters, size, size, channels), filters, 0)
        options = _convolution(stride, activation, same=size > 1)
        return self._op("CONV_2D", (x, *weights), output, **options)

    def _depthwise(self, name: str, x: int, stride: int) -> int:
        channels = self._tensors[x].shape[-1]
        output = self._activation(name, (*self._strided(x, stride), channels))
        weights = self._weights(name, (1, 3, 3, channels), channels, 3)
        options = {**_convolution(stride, "RELU6"), "depth_multiplier": 1}
        return self._op("DEPTHWISE_CONV_2D", (x, *weights), output, **options)

    def _strided(self, x: int, stride: int) -> tuple[int, int]:
        _, height, width, _ = self._tensors[x].shape
        return -(-height // stride), -(-width // stride)

    def _weights(
        self, name: str, shape: tuple[int, ...], scales: int, axis: int
    ) -> tuple[int, int]:
        weights = self._tensor(
            Tensor(
                f"{name}/weights",
                shape,
                "int8",
                np.ones(scales, "float32"),
                np.zeros(1, "int64"),
                axis,
                np.zeros(shape, "int8"),
            )
        )
        bias = self._tensor(
            Tensor(
                f"{name}/bias",
                (shape[axis],),
                "int32",
                np.ones(scales, "float32"),
                np.zeros(1, "int64"),
                0,
                np.zeros(shape[axis], "int32"),
            )
        )
        return weights, bias

    def _constant(self, name: str, values: np.ndarray) -> int:
        return self._tensor(Tensor(name, values.shape, "int32", data=values))

    def _activation(self, name: str, shape: tuple[int, ...]) -> int:
        scale, zero_point = np.ones(1, "float32"), np.zeros(1, "int64")
        return self._tensor(Tensor(name, (1, *shape), "int8", scale, zero_point))

    def _tensor(self, tensor: Tensor) -> int:
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _op(
        self, kind: str, inputs: tuple[int, ...], output: int, **options: Any
    ) -> int:
        self._ops.append(Op(kind, inputs, (output,), options))
        return output


def _convolution(stride: int, activation: str, *, same: bool = True) -> dict[str, Any]:
    return {
        "padding": "SAME" if same else "VALID",
        "stride_h": stride,
        "stride_w": stride,
        "dilation_h": 1,
        "dilation_w": 1,
        "activation": activation,
    }


def _check(name: str, value: Any, valid: bool, expected: str) -> None:
    if not valid:
        raise ValueError(
            f"Invalid value received for argument `{name}`. Expected {expected}. "
            f"Received: {name}={value}"
        )
