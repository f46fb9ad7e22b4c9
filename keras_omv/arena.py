"""TFLM's memory on a Cortex-M: what `ml.Model(...).ram` reports, before loading.

The arena has a head (activations and scratch, overlaid by a greedy planner) and a
tail (structures that stay, stacked downwards from the end). Both are re-computed
here for 32-bit Arm with the kernels of `keras_omv.kernels`. Facts come from
tensorflow/tflite-micro at a57349f0 (paths below start at tensorflow/lite/micro),
which OpenMV 4.5.9 to 4.8.1 ships and 5.0.0 agrees with in every measured figure.
Enums take one byte, as arm-none-eabi-gcc makes them. Sizes are bytes.
"""

import bisect
import dataclasses
from collections.abc import Sequence

from keras_omv.errors import UnsupportedModelError
from keras_omv.firmware import firmware_problems, will_not_load
from keras_omv.kernels import Kernel, kernel_of
from keras_omv.network import Network, Op, Tensor
from keras_omv.units import align

ARENA_EXTRA_BYTES = 512
"""Added to every arena (openmv lib/tflm/tflm_backend.cc:67)."""

# sizeof on 32-bit Arm, in the order in which the tail is filled: the single-arena
# allocator, the greedy planner, the micro allocator, the builtin-data allocator and
# the subgraph's record (arena_allocator/, memory_planner/, micro_allocator.h/.cc).
_ALLOCATOR_BYTES = (36, 44, 36, 8, 8)
_EVAL_TENSOR_BYTES = 12  # TfLiteEvalTensor, lite/core/c/common.h
_NODE_BYTES = 32  # NodeAndRegistration, micro_allocator.h
_TENSOR_BYTES = 32  # TfLiteTensor, lite/core/c/common.h
_QUANTIZATION_BYTES = 12  # TfLiteAffineQuantization, lite/core/c/common.h
_POINTER_BYTES = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Buffer:
    """One planned buffer of the arena's head.

    Attributes:
        name: The tensor's name, or `"scratch"`.
        offset: Bytes from the arena's start.
        size_bytes: Its size, rounded up to 16.
        first_op: The operation that creates it; -1 for the network's input.
        last_op: The last operation that needs it.
        is_scratch: Whether a kernel asked for it for one operation.
    """

    name: str
    offset: int
    size_bytes: int
    first_op: int
    last_op: int
    is_scratch: bool

    @property
    def end(self) -> int:
        """The first byte behind the buffer."""
        return self.offset + self.size_bytes

    def overlaps(self, other: "Buffer") -> bool:
        """Whether both are alive at one operation."""
        return self.first_op <= other.last_op and other.first_op <= self.last_op


@dataclasses.dataclass(frozen=True, slots=True)
class Arena:
    """The memory of one network on one core.

    Attributes:
        core: `"cortex-m7"` or `"cortex-m55"`.
        head_bytes: Activations and scratch as planned.
        tail_bytes: Everything that stays: per-channel data and structures.
        per_channel_bytes: Multipliers and shifts, part of the tail.
        buffers: The head's plan.
        peak_op: The operation that holds the most live bytes.
        peak_activation_bytes: Activations alive at that operation.
        peak_scratch_bytes: Scratch alive at that operation.
    """

    core: str
    head_bytes: int
    tail_bytes: int
    per_channel_bytes: int
    buffers: tuple[Buffer, ...]
    peak_op: int
    peak_activation_bytes: int
    peak_scratch_bytes: int

    @property
    def arena_used_bytes(self) -> int:
        """What `MicroInterpreter::arena_used_bytes()` returns."""
        return self.head_bytes + self.tail_bytes

    @property
    def ram_bytes(self) -> int:
        """What `ml.Model(...).ram` reports."""
        return align(self.arena_used_bytes) + ARENA_EXTRA_BYTES

    @property
    def structure_bytes(self) -> int:
        """The tail without per-channel data."""
        return self.tail_bytes - self.per_channel_bytes

    @property
    def fragmentation_bytes(self) -> int:
        """What the planner needs beyond the live bytes of the peak operation."""
        live_bytes = self.peak_activation_bytes + self.peak_scratch_bytes
        return self.head_bytes - live_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A buffer before it is placed; attributes as in `Buffer`."""

    name: str
    size_bytes: int
    first_op: int
    last_op: int
    is_scratch: bool = False


def plan(network: Network, core: str = "cortex-m7") -> Arena:
    """Compute the arena of a network.

    Args:
        network: The network; its tensors in the order of the file, which breaks the
            planner's ties.
        core: `"cortex-m7"` or `"cortex-m55"`.

    Raises:
        ValueError: For another core.
        UnsupportedModelError: For an operation whose memory is not known, or a
            network that the camera does not run (`keras_omv.firmware`).
    """
    if core not in ("cortex-m7", "cortex-m55"):
        raise ValueError(
            f"Unknown core. Expected 'cortex-m7' or 'cortex-m55'. Received: {core!r}. "
            f"Next step: take `get_board(...).core`."
        )
    kernels = [(op, kernel_of(op)) for op in network.ops]
    scratch = [kernel.scratch(network, op, core) for op, kernel in kernels]
    buffers = place(buffer_requests(network, scratch))
    peak_op, activation_bytes, scratch_bytes = _peak(buffers, len(network.ops))
    tail_bytes, per_channel_bytes = _tail(
        network, core, kernels, sum(map(len, scratch))
    )
    _check_runs(network)
    return Arena(
        core=core,
        head_bytes=max((buffer.end for buffer in buffers), default=0),
        tail_bytes=tail_bytes,
        per_channel_bytes=per_channel_bytes,
        buffers=buffers,
        peak_op=peak_op,
        peak_activation_bytes=activation_bytes,
        peak_scratch_bytes=scratch_bytes,
    )


def _check_runs(network: Network) -> None:
    problems = firmware_problems(network)
    if problems:
        raise UnsupportedModelError(
            f"Expected a network that the camera runs. Received: one that "
            f"{will_not_load(problems)}. Next step: convert the model to int8 again."
        )


def buffer_requests(
    network: Network, scratch: Sequence[Sequence[int]]
) -> list[Request]:
    """Return what the planner is asked for, in TFLM's order.

    Tensors come first, by index, then scratch by operation. An operation's outputs
    are alive from it to their last reader, the network's outputs to the end
    (micro_allocation_info.cc, MarkAllocationLifetimes).

    Args:
        network: The network.
        scratch: The scratch sizes of each operation.
    """
    alive = lifetimes(network)
    requests = [
        Request(tensor.name, align(tensor.size_bytes), *alive.get(index, (-2, -2)))
        for index, tensor in enumerate(network.tensors)
        if tensor.data is None and tensor.size_bytes
    ]
    requests += [
        Request("scratch", align(size_bytes), op, op, is_scratch=True)
        for op, sizes in enumerate(scratch)
        for size_bytes in sizes
    ]
    return requests


def place(requests: Sequence[Request]) -> tuple[Buffer, ...]:
    """Place buffers as memory_planner/greedy_memory_planner.cc does.

    Largest first, the later request first among equals; each goes to the lowest gap
    between the buffers already placed whose lifetimes overlap its own.
    """
    order = sorted(
        range(len(requests)), key=lambda index: (-requests[index].size_bytes, -index)
    )
    placed: list[Buffer] = []
    for index in order:
        request = requests[index]
        offset = _first_gap(placed, request)
        buffer = Buffer(
            request.name,
            offset,
            request.size_bytes,
            request.first_op,
            request.last_op,
            request.is_scratch,
        )
        bisect.insort_right(placed, buffer, key=lambda other: other.offset)
    return tuple(placed)


def _first_gap(placed: list[Buffer], request: Request) -> int:
    offset = 0
    for buffer in placed:
        if buffer.first_op > request.last_op or request.first_op > buffer.last_op:
            continue
        if buffer.offset - offset >= request.size_bytes:
            break
        offset = max(offset, buffer.offset + buffer.size_bytes)
    return offset


def lifetimes(network: Network) -> dict[int, tuple[int, int]]:
    """Return the first and last operation of each activation, by the tensor's index."""
    first = dict.fromkeys(network.inputs, -1)
    last = dict.fromkeys(network.inputs, -1)
    for index, op in enumerate(network.ops):
        for tensor in op.outputs:
            first.setdefault(tensor, index)
        last.update(dict.fromkeys((*op.inputs, *op.outputs), index))
    last.update(dict.fromkeys(network.outputs, len(network.ops) - 1))
    return {tensor: (first[tensor], last[tensor]) for tensor in first}


def _peak(buffers: Sequence[Buffer], op_count: int) -> tuple[int, int, int]:
    """Return the fullest operation, its activation bytes and its scratch bytes."""
    live = [[0, 0] for _ in range(max(op_count, 1))]
    for buffer in buffers:
        for op in range(max(buffer.first_op, 0), buffer.last_op + 1):
            live[op][buffer.is_scratch] += buffer.size_bytes
    peak_op = max(range(len(live)), key=lambda op: sum(live[op]))
    return peak_op, live[peak_op][0], live[peak_op][1]


def _tail(
    network: Network,
    core: str,
    kernels: Sequence[tuple[Op, Kernel]],
    scratch_count: int,
) -> tuple[int, int]:
    """Return the tail's bytes and the per-channel part of them.

    The order is that of MicroInterpreter::AllocateTensors (micro_interpreter.cc);
    it matters because kernels' buffers start at multiples of 16.
    """
    sizes = [(size_bytes, 4) for size_bytes in _ALLOCATOR_BYTES]
    sizes += [(_EVAL_TENSOR_BYTES * len(network.tensors), 4)]
    sizes += [(_NODE_BYTES * len(network.ops), 4)]
    sizes += [(kernel.options_bytes, kernel.options_alignment) for _, kernel in kernels]
    sizes += [(kernel.op_data_bytes, 16) for _, kernel in kernels]
    before_bytes = _stack(0, sizes)
    persistent = [
        (size_bytes, 16)
        for op, kernel in kernels
        for size_bytes in kernel.persistent(network, op, core)
    ]
    after_bytes = _stack(before_bytes, persistent)
    ends = [(_POINTER_BYTES * scratch_count, 4)]
    ends += _interface_sizes([network.tensors[index] for index in network.inputs])
    ends += _interface_sizes([network.tensors[index] for index in network.outputs])
    return _stack(after_bytes, ends), sum(size_bytes for size_bytes, _ in persistent)


def _stack(used_bytes: int, sizes: Sequence[tuple[int, int]]) -> int:
    for size_bytes, alignment in sizes:
        if size_bytes:
            used_bytes = align(used_bytes + size_bytes, alignment)
    return used_bytes


def _interface_sizes(tensors: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return what the interpreter's lists of inputs or outputs take."""
    sizes = [(_POINTER_BYTES * len(tensors), 16)]
    for tensor in tensors:
        sizes.append((_TENSOR_BYTES, 4))
        if len(tensor.scales) and len(tensor.zero_points):
            sizes.append((_QUANTIZATION_BYTES, 4))
            sizes.append((_POINTER_BYTES * (1 + len(tensor.scales)), 4))
    return sizes
