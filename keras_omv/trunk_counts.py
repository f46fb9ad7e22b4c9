"""The image, stem and blocks of a MobileNetV2, added up block by block.

What they take in the file that `flatbuffer.write` makes of them and in the arena that
`arena.plan` plans, and what they compute; `keras_omv.screening` cuts them after a block
and adds the classifier. Sizes are bytes.
"""

import copy
import dataclasses

from keras_omv.architecture import Block, Levers
from keras_omv.units import align

# The file as `flatbuffer.write` lays it out. Its parts are multiples of 4, so that
# they add up in any order; only the values of weights are aligned, to 16.
_FIXED_BYTES = 936
"""Of every MobileNetV2: header, root, operator codes, options, field tables, and what
the image and the classifier have beyond the sums below."""
_ACTIVATION_BYTES = 52  # 32 of quantization, its table, its place in the list.
_FILTERS_BYTES = 104 + _ACTIVATION_BYTES
"""A 1x1 convolution without values, scales, shapes and indices."""
_DEPTHWISE_BYTES = 8  # More than that: its operator code, its quantized dimension.
_ADD_BYTES = 28 + _ACTIVATION_BYTES
_FIELD_TABLE_BYTES = 8  # Of a buffer.
_COUNTS_BYTES = 16  # Two counts and a buffer between weights, beside the scales.
_BIAS_BYTES = 12  # A count and a buffer.
_VALUE_BYTES = 4  # Of a scale or a bias.
_M55_DEPTHWISE_SCRATCH_BYTES = 4464  # As kernels.py computes it for a 3x3 window.


@dataclasses.dataclass(slots=True)
class Counts:
    """What the image, the stem and the first blocks add up to.

    Attributes:
        side: Height and width of their output in pixels.
        channels: Channels of their output.
        output: The tensor that holds it.
        tensors: Tensors in the file.
        ops: Operations.
        adds: How many of those are additions.
        file_bytes: Their part of the file.
        table_bytes: Multipliers and shifts in the arena.
        macs: Multiply-accumulates.
        parameters: Weights and biases.
        written_values: Values that the operations write.
    """

    side: int
    channels: int
    output: int = 0
    tensors: int = 1
    ops: int = 0
    adds: int = 0
    file_bytes: int = _FIXED_BYTES
    table_bytes: int = 0
    macs: int = 0
    parameters: int = 0
    written_values: int = 0


class TrunkCounts:
    """What a trunk of one width and resolution adds up to, after every block.

    Args:
        alpha: Width multiplier.
        resolution: Height and width of the image in pixels.
        channels: 1 for grey, 3 for RGB.
        is_m55: Whether the core is a Cortex-M55, whose kernels ask for more.

    Attributes:
        by_depth: The counts of the stem, and with each number of blocks.
        vectors: Shapes and lists of indices in the file, each with the blocks that it
            takes until it is there: equal ones are written once.
        buffer_bytes: Of the arena's buffers, in the order of their creation.
        is_residual: Whether a block ends in an addition, for each block.
    """

    def __init__(
        self, *, alpha: float, resolution: int, channels: int, is_m55: bool
    ) -> None:
        levers = Levers(
            alpha=alpha, resolution=resolution, channels=channels, classes=2
        )
        self._is_m55 = is_m55
        self._now = Counts(resolution, channels)
        self.vectors: dict[tuple[int, ...], int] = {}
        self.buffer_bytes = [align(resolution * resolution * channels)]
        self.is_residual = tuple(block.is_residual for block in levers.blocks)
        self._write(0, (1, resolution, resolution, channels))
        self._stem(levers.stem)
        self.by_depth = [copy.copy(self._now)]
        for depth, block in enumerate(levers.blocks, start=1):
            self._block(depth, block)
            self.by_depth.append(copy.copy(self._now))

    def _block(self, depth: int, block: Block) -> None:
        source = self._now.output
        if block.expanded != block.inputs:
            self._filters(depth, block.expanded)
        self._depthwise(depth, block.stride)
        self._filters(depth, block.outputs)
        if block.is_residual:
            self._add(depth, source)

    def _stem(self, filters: int) -> None:
        now = self._now
        taps = 9 * now.channels
        now.side = -(-now.side // 2)
        self._op(0, filters, filters * taps, (filters, 3, 3, now.channels))
        # The field table of the buffers lies between these weights and the next.
        next_bytes = _weights_file_bytes(9 * filters, filters)
        now.file_bytes += align(next_bytes + _FIELD_TABLE_BYTES) - align(next_bytes)
        self.buffer_bytes.append(align(4 * align(taps, 16 if self._is_m55 else 4)))

    def _filters(self, depth: int, filters: int) -> None:
        channels = self._now.channels
        self._op(depth, filters, filters * channels, (filters, 1, 1, channels))

    def _depthwise(self, depth: int, stride: int) -> None:
        now = self._now
        now.side = -(-now.side // stride)
        self._op(depth, now.channels, 9 * now.channels, (1, 3, 3, now.channels))
        now.file_bytes += _DEPTHWISE_BYTES
        if self._is_m55:
            self.buffer_bytes.append(_M55_DEPTHWISE_SCRATCH_BYTES)

    def _op(
        self, depth: int, filters: int, weights: int, shape: tuple[int, ...]
    ) -> None:
        """Adds a convolution of any kind; `side` is that of its output already."""
        now = self._now
        pixels = now.side**2
        now.channels, now.output = filters, now.tensors
        now.tensors += 3
        now.ops += 1
        now.table_bytes += 2 * align(4 * filters)
        now.macs += pixels * weights
        now.parameters += weights + filters
        now.written_values += pixels * filters
        now.file_bytes += filters_file_bytes(weights, filters)
        self._write(depth, (1, now.side, now.side, filters))
        self._write(depth, shape)
        self._write(depth, (filters,))
        self._write(depth, (now.output,))
        self.buffer_bytes.append(align(pixels * filters))

    def _add(self, depth: int, source: int) -> None:
        now = self._now
        self._write(depth, (source, now.output))
        self._write(depth, (now.tensors,))
        now.output = now.tensors
        now.tensors += 1
        now.ops += 1
        now.adds += 1
        now.file_bytes += _ADD_BYTES
        values = now.side**2 * now.channels
        now.written_values += values
        self.buffer_bytes.append(align(values))

    def _write(self, depth: int, vector: tuple[int, ...]) -> None:
        if vector not in self.vectors:
            self.vectors[vector] = depth
            self._now.file_bytes += 4 + 4 * len(vector)


def filters_file_bytes(weights: int, filters: int) -> int:
    """A 1x1 convolution, without shapes and indices."""
    return _FILTERS_BYTES + values_file_bytes(weights, scales=filters, biases=filters)


def values_file_bytes(weights: int, *, scales: int, biases: int) -> int:
    """The values, scales and biases of an operation."""
    weights_bytes = align(_weights_file_bytes(weights, scales))
    return weights_bytes + _VALUE_BYTES * biases + _BIAS_BYTES


def _weights_file_bytes(weights: int, scales: int) -> int:
    return weights + _VALUE_BYTES * scales + _COUNTS_BYTES
