"""What a MobileNetV2 costs, from its levers alone: exact, in microseconds.

The same numbers as writing the network (`flatbuffer.write`), planning it
(`arena.plan`) and counting it (`cost.cost_of`), added up without making one. A
`Trunk` (image, stem and blocks of one width and resolution) is added up once, block
by block; to cut it after a block and put a classifier on takes a few sums. Tests pin
them to the modules that do the work. Sizes are bytes.
"""

import copy
import dataclasses
import functools

from keras_omv.architecture import Levers
from keras_omv.arena import ARENA_EXTRA_BYTES
from keras_omv.boards import Board, Budget
from keras_omv.cost import (
    DEFAULT_CLOCK_HZ,
    Cost,
    estimate_latency_ms,
    latency_range_ms,
)
from keras_omv.placement import TrunkPlan, lifetimes_of
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
_FIRST_ADD_BYTES = 28  # The operator code, options and field tables of ADD.
_FIRST_STRIDE_BYTES = 20  # The options of depthwise convolutions with stride 2.
_FIELD_TABLE_BYTES = 8  # Of a buffer.
_COUNTS_BYTES = 16  # Two counts and a buffer between weights, beside the scales.
_BIAS_BYTES = 12  # A count and a buffer.
_VALUE_BYTES = 4  # Of a scale or a bias.
_LONE_FILTER_BYTES = 24  # The bias of a single filter keeps its quantization.

# The arena's tail, in the order and the words of `arena`.
_ALLOCATOR_BYTES = 132
_EVAL_TENSOR_BYTES, _NODE_BYTES, _POINTER_BYTES = 12, 32, 4
_FILTERS_OPTIONS_BYTES, _ADD_OPTIONS_BYTES, _CLASSIFIER_OPTIONS_BYTES = 28, 4, 12
_FIRST_OP_DATA_BYTES = 60  # The stem's; the others begin at multiples of 16:
_OP_DATA_BYTES, _MEAN_DATA_BYTES = 64, 48
_INTERFACE_BYTES = 116
_CLASSIFIER_TENSORS, _CLASSIFIER_OPS = 9, 4
_M55_DEPTHWISE_SCRATCH_BYTES = 4464  # As kernels.py computes it for a 3x3 window.


@dataclasses.dataclass(slots=True)
class _Counts:
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


class Trunk:
    """Image, stem and blocks of one width and resolution, to be cut after any block."""

    def __init__(
        self, *, alpha: float, resolution: int, channels: int, core: str = "cortex-m7"
    ) -> None:
        """Adds up all blocks.

        Args:
            alpha: Width multiplier.
            resolution: Height and width of the image in pixels.
            channels: 1 for grey, 3 for RGB.
            core: `"cortex-m7"` or `"cortex-m55"`. Defaults to `"cortex-m7"`.
        """
        levers = Levers(
            alpha=alpha, resolution=resolution, channels=channels, classes=2
        )
        self._is_m55 = core == "cortex-m55"
        self._now = _Counts(resolution, channels)
        # Shapes and lists of indices in the file, each with the blocks that it takes
        # until it is there: equal ones are written once.
        self._vectors: dict[tuple[int, ...], int] = {}
        self._buffer_bytes = [align(resolution * resolution * channels)]
        self._write(0, (1, resolution, resolution, channels))
        self._stem(levers.stem)
        self._counts = [copy.copy(self._now)]
        for depth, block in enumerate(levers.blocks, start=1):
            source = self._now.output
            if block.expanded != block.inputs:
                self._filters(depth, block.expanded)
            self._depthwise(depth, block.stride)
            self._filters(depth, block.outputs)
            if block.is_residual:
                self._add(depth, source)
            self._counts.append(copy.copy(self._now))
        residual = tuple(block.is_residual for block in levers.blocks)
        self._plan = TrunkPlan(self._buffer_bytes, lifetimes_of(residual, core))

    def flash_bytes(self, depth: int, head: int, classes: int) -> int:
        """The size of the .tflite file.

        Args:
            depth: How many blocks are kept.
            head: Channels of the last convolution.
            classes: Number of classes.
        """
        counts, vectors = self._counts[depth], self._vectors
        side, index = counts.side, counts.tensors
        added = {
            (1, side, side, head),
            (head, 1, 1, counts.channels),
            (head,),
            (index,),
            (2,),
            (index, index + 3),
            (1, head),
            (index + 4,),
            (classes, head),
            (classes,),
            (1, classes),
            (index + 5,),
            (index + 8,),
        }
        vector_bytes = 0
        for vector in added:
            if vectors.get(vector, depth + 1) > depth:
                vector_bytes += 4 + 4 * len(vector)
        return align(
            counts.file_bytes
            + (_FIRST_ADD_BYTES if counts.adds else 0)
            + (_FIRST_STRIDE_BYTES if depth > 1 else 0)
            + (_LONE_FILTER_BYTES if head == 1 else 0)
            + _filters_file_bytes(head * counts.channels, head)
            + _values_file_bytes(head * classes, scales=1, biases=classes)
            + vector_bytes
        )

    def ram_bytes(self, depth: int, head: int, classes: int) -> int:
        """What `ml.Model(...).ram` reports; arguments as in `flash_bytes`."""
        pixels = self._counts[depth].side ** 2
        head_bytes = self._plan.head_bytes(
            depth, pixels=pixels, head=head, classes=classes
        )
        return self._ram_bytes(head_bytes, depth, head, classes)

    def least_ram_bytes(self, depth: int, head: int, classes: int) -> int:
        """A lower bound of `ram_bytes` that takes less time."""
        return self._ram_bytes(self._plan.kept_bytes(depth), depth, head, classes)

    def macs(self, depth: int, head: int, classes: int) -> int:
        """Multiply-accumulates of one inference; arguments as in `flash_bytes`."""
        counts = self._counts[depth]
        return counts.macs + head * (counts.side**2 * counts.channels + classes)

    def cost(
        self,
        depth: int,
        head: int,
        classes: int,
        board: Board | Budget | None = None,
        *,
        flash_bytes: int | None = None,
    ) -> Cost:
        """The whole cost.

        Args:
            depth: How many blocks are kept.
            head: Channels of the last convolution.
            classes: Number of classes.
            board: Decides the clock. Defaults to `None`, a Cortex-M7 at 480 MHz.
            flash_bytes: Where it is known already.
        """
        counts, macs = self._counts[depth], self.macs(depth, head, classes)
        written = counts.written_values + (counts.side**2 + 1) * head + 2 * classes
        clock_hz = board.clock_hz if isinstance(board, Board) else DEFAULT_CLOCK_HZ
        latency_ms = estimate_latency_ms(macs, written, clock_hz)
        core = "cortex-m55" if self._is_m55 else "cortex-m7"
        return Cost(
            flash_bytes=flash_bytes or self.flash_bytes(depth, head, classes),
            ram_bytes=self.ram_bytes(depth, head, classes),
            macs=macs,
            parameters=counts.parameters
            + head * (counts.channels + 1)
            + classes * (head + 1),
            latency_ms=latency_ms,
            latency_range_ms=latency_range_ms(latency_ms, core),
        )

    def _ram_bytes(self, head_bytes: int, depth: int, head: int, classes: int) -> int:
        tail_bytes = self._tail_bytes(depth, head, classes)
        return align(head_bytes + tail_bytes) + ARENA_EXTRA_BYTES

    def _tail_bytes(self, depth: int, head: int, classes: int) -> int:
        counts = self._counts[depth]
        structure_bytes = (
            _ALLOCATOR_BYTES
            + _EVAL_TENSOR_BYTES * (counts.tensors + _CLASSIFIER_TENSORS)
            + _NODE_BYTES * (counts.ops + _CLASSIFIER_OPS)
            + _FILTERS_OPTIONS_BYTES * (counts.ops - counts.adds + 1)
            + _ADD_OPTIONS_BYTES * counts.adds
            + _CLASSIFIER_OPTIONS_BYTES
        )
        op_data_bytes = _OP_DATA_BYTES * (counts.ops + 2) + _MEAN_DATA_BYTES
        table_bytes = counts.table_bytes + 2 * align(4 * head)
        scratch_count = 2
        if self._is_m55:
            table_bytes += align(4 * classes)
            scratch_count += depth
        return (
            align(structure_bytes + _FIRST_OP_DATA_BYTES)
            + op_data_bytes
            + table_bytes
            + align(_POINTER_BYTES * (scratch_count + 1))
            + _INTERFACE_BYTES
        )

    def _stem(self, filters: int) -> None:
        now = self._now
        taps = 9 * now.channels
        now.side = -(-now.side // 2)
        self._op(0, filters, filters * taps, (filters, 3, 3, now.channels))
        # The field table of the buffers lies between these weights and the next.
        next_bytes = _weights_file_bytes(9 * filters, filters)
        now.file_bytes += align(next_bytes + _FIELD_TABLE_BYTES) - align(next_bytes)
        self._buffer_bytes.append(align(4 * align(taps, 16 if self._is_m55 else 4)))

    def _filters(self, depth: int, filters: int) -> None:
        channels = self._now.channels
        self._op(depth, filters, filters * channels, (filters, 1, 1, channels))

    def _depthwise(self, depth: int, stride: int) -> None:
        now = self._now
        now.side = -(-now.side // stride)
        self._op(depth, now.channels, 9 * now.channels, (1, 3, 3, now.channels))
        now.file_bytes += _DEPTHWISE_BYTES
        if self._is_m55:
            self._buffer_bytes.append(_M55_DEPTHWISE_SCRATCH_BYTES)

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
        now.file_bytes += _filters_file_bytes(weights, filters)
        self._write(depth, (1, now.side, now.side, filters))
        self._write(depth, shape)
        self._write(depth, (filters,))
        self._write(depth, (now.output,))
        self._buffer_bytes.append(align(pixels * filters))

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
        self._buffer_bytes.append(align(values))

    def _write(self, depth: int, vector: tuple[int, ...]) -> None:
        if vector not in self._vectors:
            self._vectors[vector] = depth
            self._now.file_bytes += 4 + 4 * len(vector)


def cost_of_levers(levers: Levers, *, board: Board | Budget | None = None) -> Cost:
    """Computes what a MobileNetV2 costs on a camera, to the byte.

    Args:
        levers: The candidate.
        board: The camera, which decides the core and its clock. Defaults to a
            Cortex-M7 at 480 MHz, as does a `Budget`.

    Returns:
        The cost without the arena's breakdown; `arena.plan` makes that.
    """
    core = board.core if board is not None else "cortex-m7"
    trunk = _trunk(levers.alpha, levers.resolution, levers.channels, core)
    return trunk.cost(levers.depth, levers.head, levers.classes, board)


@functools.lru_cache(maxsize=32)
def _trunk(alpha: float, resolution: int, channels: int, core: str) -> Trunk:
    return Trunk(alpha=alpha, resolution=resolution, channels=channels, core=core)


def _filters_file_bytes(weights: int, filters: int) -> int:
    return _FILTERS_BYTES + _values_file_bytes(weights, scales=filters, biases=filters)


def _values_file_bytes(weights: int, *, scales: int, biases: int) -> int:
    weights_bytes = align(_weights_file_bytes(weights, scales))
    return weights_bytes + _VALUE_BYTES * biases + _BIAS_BYTES


def _weights_file_bytes(weights: int, scales: int) -> int:
    return weights + _VALUE_BYTES * scales + _COUNTS_BYTES
