"""What a MobileNetV2 costs, from its levers alone: exact, in microseconds.

The same numbers as writing the network (`flatbuffer.write`), planning it
(`arena.plan`) and counting it (`cost.cost_of`), added up without making one. A
`Trunk` (image, stem and blocks of one width and resolution) is added up once, by
`keras_omv.trunk_counts`; to cut it after a block and put a classifier on takes a few
sums. Tests pin them to the modules that do the work. Sizes are bytes.
"""

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
from keras_omv.trunk_counts import TrunkCounts, filters_file_bytes, values_file_bytes
from keras_omv.units import align

# Beside what `trunk_counts` counts in the file.
_FIRST_ADD_BYTES = 28  # The operator code, options and field tables of ADD.
_FIRST_STRIDE_BYTES = 20  # The options of depthwise convolutions with stride 2.
_LONE_FILTER_BYTES = 24  # The bias of a single filter keeps its quantization.

# The arena's tail, in the order and the words of `arena`.
_ALLOCATOR_BYTES = 132
_EVAL_TENSOR_BYTES, _NODE_BYTES, _POINTER_BYTES = 12, 32, 4
_FILTERS_OPTIONS_BYTES, _ADD_OPTIONS_BYTES, _CLASSIFIER_OPTIONS_BYTES = 28, 4, 12
_FIRST_OP_DATA_BYTES = 60  # The stem's; the others begin at multiples of 16:
_OP_DATA_BYTES, _MEAN_DATA_BYTES = 64, 48
_INTERFACE_BYTES = 116
_CLASSIFIER_TENSORS, _CLASSIFIER_OPS = 9, 4


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
        self._is_m55 = core == "cortex-m55"
        trunk = TrunkCounts(
            alpha=alpha, resolution=resolution, channels=channels, is_m55=self._is_m55
        )
        self._counts, self._vectors = trunk.by_depth, trunk.vectors
        lifetimes = lifetimes_of(trunk.is_residual, core)
        self._plan = TrunkPlan(trunk.buffer_bytes, lifetimes)

    def flash_bytes(self, depth: int, head: int, classes: int) -> int:
        """The size of the .tflite file.

        Args:
            depth: How many blocks are kept.
            head: Channels of the last convolution.
            classes: Number of classes.
        """
        counts = self._counts[depth]
        return align(
            counts.file_bytes
            + (_FIRST_ADD_BYTES if counts.adds else 0)
            + (_FIRST_STRIDE_BYTES if depth > 1 else 0)
            + (_LONE_FILTER_BYTES if head == 1 else 0)
            + filters_file_bytes(head * counts.channels, head)
            + values_file_bytes(head * classes, scales=1, biases=classes)
            + self._classifier_vector_bytes(depth, head, classes)
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

    def _classifier_vector_bytes(self, depth: int, head: int, classes: int) -> int:
        """Shapes and lists of indices that the trunk has not written already."""
        counts = self._counts[depth]
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
            if self._vectors.get(vector, depth + 1) > depth:
                vector_bytes += 4 + 4 * len(vector)
        return vector_bytes

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
