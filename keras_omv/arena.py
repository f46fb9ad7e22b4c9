"""TFLM's memory on a Cortex-M: what `ml.Model(...).ram` reports, before loading.

The arena has a head (activations and scratch, overlaid by a greedy planner) and a
tail (structures that stay, stacked downwards from the end). Both are re-computed
here for 32-bit Arm with CMSIS-NN kernels. Facts come from tensorflow/tflite-micro at
a57349f0 (paths below start at tensorflow/lite/micro), which OpenMV 4.5.9 to 4.8.1
ships and 5.0.0 agrees with in every measured figure, and from the ARM-software/
CMSIS-NN that it names, 01dee38e. Enums take one byte, as arm-none-eabi-gcc makes
them. Sizes are bytes.
"""

import bisect
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from keras_omv.errors import UnsupportedModelError
from keras_omv.network import Network, Op, Tensor

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
        UnsupportedModelError: For an operation whose memory is not known.
    """
    if core not in ("cortex-m7", "cortex-m55"):
        raise ValueError(
            f"Unknown core. Expected 'cortex-m7' or 'cortex-m55'. Received: {core!r}. "
            f"Next step: take `get_board(...).core`."
        )
    scratch = [kernel_of(op).scratch(network, op, core) for op in network.ops]
    buffers = place(buffer_requests(network, scratch))
    peak_op, activation_bytes, scratch_bytes = _peak(buffers, len(network.ops))
    tail_bytes, per_channel_bytes = _tail(network, core, sum(map(len, scratch)))
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


def align(count: int, alignment: int = 16) -> int:
    """Round bytes up; 16 is MicroArenaBufferAlignment() of micro_arena_constants.h."""
    return -(-count // alignment) * alignment


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
    lifetimes = _lifetimes(network)
    requests = [
        Request(tensor.name, align(tensor.size_bytes), *lifetimes.get(index, (-2, -2)))
        for index, tensor in enumerate(network.tensors)
        if not tensor.is_constant and tensor.size_bytes
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


def _lifetimes(network: Network) -> dict[int, tuple[int, int]]:
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


def _tail(network: Network, core: str, scratch_count: int) -> tuple[int, int]:
    """Return the tail's bytes and the per-channel part of them.

    The order is that of MicroInterpreter::AllocateTensors (micro_interpreter.cc);
    it matters because kernels' buffers start at multiples of 16.
    """
    kernels = [kernel_of(op) for op in network.ops]
    sizes = [(size_bytes, 4) for size_bytes in _ALLOCATOR_BYTES]
    sizes += [(_EVAL_TENSOR_BYTES * len(network.tensors), 4)]
    sizes += [(_NODE_BYTES * len(network.ops), 4)]
    sizes += [(kernel.options_bytes, kernel.options_alignment) for kernel in kernels]
    sizes += [(kernel.op_data_bytes, 16) for kernel in kernels]
    before_bytes = _stack(0, sizes)
    persistent = [
        (size_bytes, 16)
        for op, kernel in zip(network.ops, kernels, strict=True)
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


Sizes = Callable[[Network, Op, str], tuple[int, ...]]


def _nothing(network: Network, op: Op, core: str) -> tuple[int, ...]:
    return ()


class _Kernel(NamedTuple):
    """What one kind of operation takes.

    Attributes:
        options_bytes: sizeof its options (tensorflow/compiler/mlir/lite/core/c/
            builtin_op_data.h); 0 where lite/core/api/flatbuffer_conversions.cc
            allocates none.
        options_alignment: alignof the same.
        op_data_bytes: sizeof what the kernel's Init keeps (kernels/*.h, .cc).
        persistent: Buffers that Prepare keeps.
        scratch: Buffers that live during the operation.
    """

    options_bytes: int
    options_alignment: int
    op_data_bytes: int
    persistent: Sizes = _nothing
    scratch: Sizes = _nothing


def kernel_of(op: Op) -> _Kernel:
    """Return what an operation's kernel takes."""
    if op.kind in _KERNELS:
        return _KERNELS[op.kind]
    raise UnsupportedModelError(
        f"The memory of an operation is not known. Expected one of "
        f"{', '.join(_KERNELS)}. Received: {op.kind}. Next step: replace the layer "
        f"it comes from."
    )


def _channel_tables(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """Multiplier and shift per output channel (kernels/cmsis_nn/conv.cc, Prepare)."""
    channels = network.tensors[op.outputs[0]].shape[3]
    return 4 * channels, 4 * channels


def _dense_tables(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """Buffers of kernels/cmsis_nn/fully_connected.cc, Prepare.

    With more than two dimensions it runs as a 1x1 convolution and keeps tables;
    otherwise the M55 keeps one sum of weights per output.
    """
    weights, output = network.tensors[op.inputs[1]], network.tensors[op.outputs[0]]
    if len(weights.scales) > 1:
        raise UnsupportedModelError(
            f"A dense layer's weights are quantized per channel, which the camera's "
            f"TFLM refuses. Expected one scale. Received: {len(weights.scales)}. "
            f"Next step: convert again with per-channel quantization of dense layers "
            f"off."
        )
    output_bytes = 4 * output.shape[-1]
    if len(output.shape) > 2 and weights.shape[-1] % 4 == 0:
        return output_bytes, output_bytes
    return () if core == "cortex-m7" else (output_bytes,)


def _concatenation_tables(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """A scale and a zero point per input (kernels/concatenation.cc, Prepare)."""
    return 4 * len(op.inputs), 4 * len(op.inputs)


def _convolution_scratch(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """The im2col buffer (CMSIS-NN arm_convolve_get_buffer_sizes_s8.c)."""
    _, height, _, depth = network.tensors[op.inputs[0]].shape
    _, rows, columns, _ = network.tensors[op.inputs[1]].shape
    if rows == columns == 1 and _padding(network, op) == (0, 0) and _is_dense(op):
        return ()
    taps = rows * columns * depth
    if core == "cortex-m7":
        return (4 * align(taps, 4),)
    is_row = height == rows == 1 and op.options["stride_w"] * depth % 4 == 0
    if is_row and op.options["dilation_w"] == 1:
        return (_row_scratch_bytes(network, op) or 4 * align(taps),)
    return (4 * align(taps),)


def _is_dense(op: Op) -> bool:
    """Whether the window has no holes."""
    return bool(op.options["dilation_h"] == op.options["dilation_w"] == 1)


def _row_scratch_bytes(network: Network, op: Op) -> int:
    """The 1 x N convolution's buffer on the M55; 0 where it is not taken.

    From arm_convolve_1_x_n_s8_get_buffer_size_mve of the same file.
    """
    _, _, width, depth = network.tensors[op.inputs[0]].shape
    window, stride = network.tensors[op.inputs[1]].shape[2], op.options["stride_w"]
    result_width = network.tensors[op.outputs[0]].shape[2]
    left = _padding(network, op)[1]
    odd = ((result_width - 1) * stride + window - width) % 2
    right_count, left_count = -(-(left + odd) // stride), -(-left // stride)
    if right_count + left_count > result_width:
        return 0
    right = right_count if odd else left
    return int(max(window + left, window - 1 + right) * depth)


def _depthwise_scratch(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """CMSIS-NN arm_depthwise_conv_get_buffer_sizes_s8.c."""
    depth = network.tensors[op.inputs[0]].shape[3]
    _, rows, columns, channels = network.tensors[op.inputs[1]].shape
    if depth != channels or not _is_dense(op):
        return ()
    if core == "cortex-m55":
        return (4 * _MVE_BLOCK_CHANNELS * rows * columns,)
    is_small = rows == columns == 3 and max(_padding(network, op)) <= 1
    return () if is_small else (2 * depth * rows * columns,)


_MVE_BLOCK_CHANNELS = 124  # CH_IN_BLOCK_MVE, CMSIS-NN arm_nnsupportfunctions.h


def _padding(network: Network, op: Op) -> tuple[int, int]:
    """Return the rows above and the columns left (lite/kernels/padding.h)."""
    if op.options["padding"] == "VALID":
        return 0, 0
    source = network.tensors[op.inputs[0]].shape
    window = network.tensors[op.inputs[1]].shape
    result = network.tensors[op.outputs[0]].shape
    before = []
    for axis, key in ((1, "h"), (2, "w")):
        extent = (window[axis] - 1) * op.options[f"dilation_{key}"] + 1
        reach = (result[axis] - 1) * op.options[f"stride_{key}"] + extent
        before.append(max(0, reach - source[axis]) // 2)
    return before[0], before[1]


def _average_scratch(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """CMSIS-NN arm_avgpool_get_buffer_sizes_s8.c."""
    if core == "cortex-m55":
        return ()
    return (4 * network.tensors[op.inputs[0]].shape[3],)


def _mean_scratch(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """An int32 sum per output (kernels/reduce_common.cc, PrepareMeanOrSumHelper)."""
    return (4 * math.prod(network.tensors[op.outputs[0]].shape),)


def _reduce_scratch(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """An index per dimension and the axes (the same file, PrepareMaxHelper)."""
    source, axes = (network.tensors[index] for index in op.inputs)
    return 4 * len(source.shape), axes.size_bytes


_KERNELS = {
    "ADD": _Kernel(2, 1, 60),
    "AVERAGE_POOL_2D": _Kernel(40, 4, 36, scratch=_average_scratch),
    "CONCATENATION": _Kernel(8, 4, 24, _concatenation_tables),
    "CONV_2D": _Kernel(28, 4, 60, _channel_tables, _convolution_scratch),
    "DEPTHWISE_CONV_2D": _Kernel(28, 4, 60, _channel_tables, _depthwise_scratch),
    "DEQUANTIZE": _Kernel(0, 1, 32),
    "EXPAND_DIMS": _Kernel(0, 1, 0),
    "FULLY_CONNECTED": _Kernel(5, 1, 64, _dense_tables),
    "HARD_SWISH": _Kernel(0, 1, 20),
    "LEAKY_RELU": _Kernel(4, 4, 24),
    "LOGISTIC": _Kernel(0, 1, 16),
    "MAXIMUM": _Kernel(0, 1, 0),
    "MAX_POOL_2D": _Kernel(40, 4, 36),
    "MEAN": _Kernel(1, 1, 40, scratch=_mean_scratch),
    "MINIMUM": _Kernel(0, 1, 0),
    "MUL": _Kernel(1, 1, 36),
    "PACK": _Kernel(8, 4, 0),
    "PAD": _Kernel(0, 1, 56),
    "PADV2": _Kernel(0, 1, 56),
    "PRELU": _Kernel(0, 1, 28),
    "QUANTIZE": _Kernel(0, 1, 32),
    "REDUCE_MAX": _Kernel(1, 1, 40, scratch=_reduce_scratch),
    "RELU": _Kernel(0, 1, 28),
    "RELU6": _Kernel(0, 1, 2),
    "RESHAPE": _Kernel(36, 4, 0),
    "RESIZE_BILINEAR": _Kernel(2, 1, 0),
    "RESIZE_NEAREST_NEIGHBOR": _Kernel(2, 1, 0),
    "SHAPE": _Kernel(1, 1, 0),
    "SOFTMAX": _Kernel(4, 4, 64),
    "SQUEEZE": _Kernel(36, 4, 0),
    "STRIDED_SLICE": _Kernel(24, 4, 84),
    "SUB": _Kernel(2, 1, 52),
    "SUM": _Kernel(1, 1, 40, scratch=_mean_scratch),
    "TANH": _Kernel(0, 1, 16),
    "TRANSPOSE": _Kernel(0, 1, 0),
}
