"""The arena over time, as rectangles in a plane of operations and bytes.

From left to right the operations of one inference; from bottom to top the arena's
addresses: activations and scratch where TFLM's planner puts them, above them what
stays. The numbers are those of `keras_omv.arena`.
"""

import dataclasses

from keras_omv.arena import Arena, Buffer
from keras_omv.network import Network
from keras_omv.report_figures import peak_op
from keras_omv.units import format_bytes

SHOWN_LIMIT = 1.6
"""A limit is drawn if it is at most this many times the model's RAM; one far above
would leave the picture empty."""
FULLEST_OPS = 6


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A rectangle: a tensor, scratch, or what stays.

    Attributes:
        kind: `"activation"`, `"scratch"` or `"fixed"`.
        left: The operation with which it begins.
        width: Over how many operations.
        bottom: Its first byte.
        height: Its bytes.
        title: What it is.
    """

    kind: str
    left: int
    width: int
    bottom: int
    height: int
    title: str


@dataclasses.dataclass(frozen=True, slots=True)
class LiveBytes:
    """What is alive at one operation.

    Attributes:
        index: Its position, counted from 0.
        kind: The TFLite operator.
        name: Of its output.
        activation_bytes: Activations alive at it.
        scratch_bytes: Scratch alive at it.
    """

    index: int
    kind: str
    name: str
    activation_bytes: int
    scratch_bytes: int

    @property
    def live_bytes(self) -> int:
        """Both together."""
        return self.activation_bytes + self.scratch_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryMap:
    """The picture.

    Attributes:
        ops: The number of operations, its width.
        height_bytes: Its height.
        ram_bytes: What the model takes.
        limit_bytes: The camera's limit, `None` where it is not in the picture.
        blocks: The rectangles.
        peak: The operation that holds the most bytes.
        fullest: The operations that hold the most, the fullest first.
    """

    ops: int
    height_bytes: int
    ram_bytes: int
    limit_bytes: int | None
    blocks: tuple[Block, ...]
    peak: LiveBytes
    fullest: tuple[LiveBytes, ...]


def memory_map(
    network: Network, arena: Arena, *, limit_bytes: int | None
) -> MemoryMap | None:
    """The picture of a network's arena; `None` for one without operations.

    Args:
        network: The network that the arena was planned for.
        arena: Its plan.
        limit_bytes: The largest arena that the camera takes, `None` for no limit.
    """
    if peak_op(network, arena) is None:
        return None
    live = [_live_bytes(network, arena, index) for index in range(len(network.ops))]
    shown = limit_bytes and limit_bytes <= SHOWN_LIMIT * arena.ram_bytes
    top_bytes = max(arena.ram_bytes, limit_bytes if shown and limit_bytes else 0)
    return MemoryMap(
        ops=len(network.ops),
        height_bytes=round(1.04 * top_bytes),
        ram_bytes=arena.ram_bytes,
        limit_bytes=limit_bytes if shown else None,
        blocks=(*map(_block, arena.buffers), *_fixed_blocks(arena, len(network.ops))),
        peak=live[arena.peak_op],
        fullest=tuple(
            sorted(live, key=lambda op: (-op.live_bytes, op.index))[:FULLEST_OPS]
        ),
    )


def _live_bytes(network: Network, arena: Arena, index: int) -> LiveBytes:
    op = network.ops[index]
    alive = [b for b in arena.buffers if b.first_op <= index <= b.last_op]
    scratch_bytes = sum(b.size_bytes for b in alive if b.is_scratch)
    total_bytes = sum(b.size_bytes for b in alive)
    name = network.tensors[op.outputs[0]].name if op.outputs else ""
    return LiveBytes(index, op.kind, name, total_bytes - scratch_bytes, scratch_bytes)


def _block(buffer: Buffer) -> Block:
    # The network's input is there before the first operation.
    first = max(0, buffer.first_op)
    return Block(
        "scratch" if buffer.is_scratch else "activation",
        first,
        buffer.last_op - first + 1,
        buffer.offset,
        buffer.size_bytes,
        f"{buffer.name}, {format_bytes(buffer.size_bytes)}",
    )


def _fixed_blocks(arena: Arena, ops: int) -> list[Block]:
    parts = (
        ("per-channel multipliers and shifts", arena.per_channel_bytes),
        ("TFLM's structures", arena.structure_bytes),
        ("added by the firmware", arena.ram_bytes - arena.arena_used_bytes),
    )
    bottom_bytes, blocks = arena.head_bytes, []
    for title, size_bytes in parts:
        title = f"{title}, {format_bytes(size_bytes)}"
        blocks.append(Block("fixed", 0, ops, bottom_bytes, size_bytes, title))
        bottom_bytes += size_bytes
    return blocks
