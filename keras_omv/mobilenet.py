"""MobileNetV2 with its levers: width, resolution, head and depth.

Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
arXiv:1801.04381. Layer for layer the network of `keras.applications.MobileNetV2`,
whose last convolution is always 1280 wide: at alpha 0.1 that is more than half of
the flash and 10 KB of the RAM, so here it is a lever.
"""

import dataclasses
from typing import Any

import keras

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
BATCH_NORM_EPSILON = 1e-3


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


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Rounds a width to a multiple of 8, never below 90 % of it.

    As `keras.applications.MobileNetV2` does.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def blocks(alpha: float, depth: int = BLOCKS) -> tuple[Block, ...]:
    """The inverted residuals of a width.

    Args:
        alpha: Width multiplier.
        depth: How many of the 17 blocks to keep, from the input on.
    """
    made = []
    channels = make_divisible(STEM_CHANNELS * alpha)
    for expansion, width, repeats, stride in STAGES:
        outputs = make_divisible(int(width * alpha))
        for index in range(repeats):
            first = stride if index == 0 else 1
            made.append(Block(channels, channels * expansion, outputs, first))
            channels = outputs
    return tuple(made[:depth])


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
    _check_levers(input_shape, classes, alpha, head_channels, depth)
    image = keras.Input(input_shape, name="image")
    x = image
    if include_rescaling:
        x = keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(x)
    norm = _BatchNorm(batch_norm_momentum)
    x = _conv(x, make_divisible(STEM_CHANNELS * alpha), 3, 2, norm, "stem")
    for index, block in enumerate(blocks(alpha, depth)):
        x = _inverted_residual(x, block, norm, f"block_{index}")
    head = head_channels or make_divisible(HEAD_CHANNELS * max(1.0, alpha))
    x = _conv(x, head, 1, 1, norm, "head")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = keras.layers.Dense(classes, activation="softmax", name="scores")(x)
    digits = f"{alpha:.2f}".replace(".", "")
    return keras.Model(
        image, x, name=name or f"mobilenetv2_a{digits}_r{input_shape[0]}"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _BatchNorm:
    momentum: float

    def __call__(self, x: Any, name: str) -> Any:
        layer = keras.layers.BatchNormalization(
            momentum=self.momentum, epsilon=BATCH_NORM_EPSILON, name=f"{name}_bn"
        )
        return layer(x)


def _conv(
    x: Any, filters: int, size: int, stride: int, norm: _BatchNorm, name: str
) -> Any:
    x = keras.layers.Conv2D(
        filters, size, stride, padding="same", use_bias=False, name=name
    )(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(norm(x, name))


def _inverted_residual(x: Any, block: Block, norm: _BatchNorm, name: str) -> Any:
    source = x
    if block.expanded != block.inputs:
        x = _conv(x, block.expanded, 1, 1, norm, f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(
        3, block.stride, padding="same", use_bias=False, name=f"{name}_depthwise"
    )(x)
    x = keras.layers.ReLU(6.0, name=f"{name}_depthwise_relu")(
        norm(x, f"{name}_depthwise")
    )
    x = keras.layers.Conv2D(
        block.outputs, 1, use_bias=False, name=f"{name}_project"
    )(x)
    x = norm(x, f"{name}_project")
    if not block.is_residual:
        return x
    return keras.layers.Add(name=f"{name}_add")([source, x])


def _check_levers(
    input_shape: tuple[int, int, int],
    classes: int,
    alpha: float,
    head_channels: int | None,
    depth: int,
) -> None:
    if len(input_shape) != 3 or input_shape[2] not in (1, 3) or min(input_shape) < 1:
        raise ValueError(
            "Invalid value received for argument `input_shape`. Expected (height, "
            "width, channels) with 1 (grey) or 3 (RGB) channels. "
            f"Received: input_shape={input_shape}"
        )
    if classes < 2:
        raise ValueError(
            "Invalid value received for argument `classes`. Expected 2 or more. "
            f"Received: classes={classes}"
        )
    if not alpha > 0:
        raise ValueError(
            "Invalid value received for argument `alpha`. Expected a positive number, "
            f"such as 0.35. Received: alpha={alpha}"
        )
    if not 1 <= depth <= BLOCKS:
        raise ValueError(
            f"Invalid value received for argument `depth`. Expected 1 to {BLOCKS} "
            f"blocks. Received: depth={depth}"
        )
    if head_channels is not None and head_channels < 1:
        raise ValueError(
            "Invalid value received for argument `head_channels`. Expected a positive "
            f"number of channels. Received: head_channels={head_channels}"
        )
