"""What each TFLM kernel allocates on a Cortex-M, with CMSIS-NN.

Read from tensorflow/tflite-micro at a57349f0 (paths below start at
tensorflow/lite/micro where they name no other project) and from the
ARM-software/CMSIS-NN that it names, 01dee38e. Sizes are bytes on 32-bit Arm. Those
of options and op data are also the constants in the object code of the release
libraries for the Cortex-M7 and the Cortex-M55 in openmv/libtflm at 73eb1aa, which
OpenMV 4.6 to 4.8.1 links; 5.0.0 links another build, which refuses dense weights per
channel as they do, so that it is no later than September 2024.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from keras_omv.errors import UnsupportedModelError
from keras_omv.network import Network, Op, Tensor
from keras_omv.units import align

Sizes = Callable[[Network, Op, str], tuple[int, ...]]


def _nothing(network: Network, op: Op, core: str) -> tuple[int, ...]:
    return ()


class Kernel(NamedTuple):
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


def kernel_of(op: Op) -> Kernel:
    """Return what an operation's kernel takes."""
    if op.kind in _KERNELS:
        return _KERNELS[op.kind]
    raise UnsupportedModelError(
        f"The memory of an operation is not known. Expected one of "
        f"{', '.join(sorted(_KERNELS))}. Received: {op.kind}. Next step: replace the "
        f"layer it comes from."
    )


def _operand(network: Network, op: Op, place: int, rank: int | None = None) -> Tensor:
    """Return an input of an operation, of `rank` dimensions."""
    return _checked(network, op, op.inputs, place, rank)


def _result(network: Network, op: Op, rank: int | None = None) -> Tensor:
    """Return the output of an operation, of `rank` dimensions."""
    return _checked(network, op, op.outputs, 0, rank)


def _checked(
    network: Network, op: Op, indices: tuple[int, ...], place: int, rank: int | None
) -> Tensor:
    index = indices[place] if place < len(indices) else -1
    if index >= 0:
        tensor = network.tensors[index]
        if rank is None or len(tensor.shape) == rank:
            return tensor
    what = f"shape {network.tensors[index].shape}" if index >= 0 else "none"
    raise UnsupportedModelError(
        f"An operation is not as TFLM takes it. Expected {op.kind} with a tensor"
        f"{f' of {rank} dimensions' if rank else ''} at place {place} of {indices}. "
        f"Received: {what}. Next step: convert the model again."
    )


def _is_int8(network: Network, op: Op, *, has_weights: bool = True) -> bool:
    """Whether the quantized kernel runs; the float one keeps and needs nothing.

    The types are those of kernels/cmsis_nn/conv.cc, Prepare; int16 and int4 have
    buffers of their own, which are not known here.
    """
    dtypes = {_operand(network, op, place).dtype for place in range(1 + has_weights)}
    if dtypes in ({"int8"}, {"float32"}):
        return dtypes == {"int8"}
    raise UnsupportedModelError(
        f"The memory of an operation is not known. Expected {op.kind} on int8 or "
        f"float32 values and weights. Received: {', '.join(sorted(dtypes))}. Next "
        f"step: convert the model to int8."
    )


def _channel_tables(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """Multiplier and shift per output channel (kernels/cmsis_nn/conv.cc, Prepare)."""
    channels = _result(network, op, 4).shape[3]
    return (4 * channels, 4 * channels) if _is_int8(network, op) else ()


def _dense_tables(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """Buffers of kernels/cmsis_nn/fully_connected.cc, Prepare.

    With more than two dimensions it runs as a 1x1 convolution and keeps tables;
    otherwise the M55 keeps one sum of constant weights per output.
    """
    weights, output = _operand(network, op, 1, 2), _result(network, op)
    if len(weights.scales) > 1:
        raise UnsupportedModelError(
            f"A dense layer's weights are quantized per channel, which the camera's "
            f"TFLM refuses. Expected one scale. Received: {len(weights.scales)}. "
            f"Next step: convert again with per-channel quantization of dense layers "
            f"off."
        )
    if not _is_int8(network, op):
        return ()
    output_bytes = 4 * output.shape[-1] if output.shape else 4
    if len(output.shape) > 2 and weights.shape[-1] % 4 == 0:
        return output_bytes, output_bytes
    return () if core == "cortex-m7" or not weights.is_constant else (output_bytes,)


def _dense_scratch(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """The M55's sums of weights that are no constants (the same file, Prepare)."""
    weights, output = _operand(network, op, 1, 2), _result(network, op)
    is_point = len(output.shape) > 2 and weights.shape[-1] % 4 == 0
    if core == "cortex-m7" or weights.is_constant or is_point:
        return ()
    return (4 * output.shape[-1] if output.shape else 4,)


def _concatenation_tables(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """A scale and a zero point per input (kernels/concatenation.cc, Prepare)."""
    if _result(network, op).dtype != "int8":
        return ()
    return 4 * len(op.inputs), 4 * len(op.inputs)


def _dimensions(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """A copy of the output's shape (kernels/kernel_util.cc, ...DimsWithCopy)."""
    return (4 + 4 * len(_result(network, op).shape),)


def _convolution_scratch(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """The im2col buffer (CMSIS-NN arm_convolve_get_buffer_sizes_s8.c)."""
    _, height, _, depth = _operand(network, op, 0, 4).shape
    _, rows, columns, _ = _operand(network, op, 1, 4).shape
    is_point = rows == columns == 1 and _padding(network, op) == (0, 0)
    if not _is_int8(network, op) or (is_point and _is_dense(op)):
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
    batch, _, _, depth = _operand(network, op, 0, 4).shape
    _, rows, columns, channels = _operand(network, op, 1, 4).shape
    if not _is_int8(network, op):
        return ()
    if batch != 1:
        raise UnsupportedModelError(
            f"A depthwise convolution takes one image at a time in the camera's TFLM. "
            f"Expected a batch of 1. Received: {batch}. Next step: leave out its "
            f"dilation, which converters turn into batches."
        )
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
    source, window = (_operand(network, op, place, 4).shape for place in (0, 1))
    result = _result(network, op, 4).shape
    before = []
    for axis, key in ((1, "h"), (2, "w")):
        extent = (window[axis] - 1) * op.options[f"dilation_{key}"] + 1
        reach = (result[axis] - 1) * op.options[f"stride_{key}"] + extent
        before.append(max(0, reach - source[axis]) // 2)
    return before[0], before[1]


def _average_scratch(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """CMSIS-NN arm_avgpool_get_buffer_sizes_s8.c."""
    channels = _operand(network, op, 0, 4).shape[3]
    if not _is_int8(network, op, has_weights=False) or core == "cortex-m55":
        return ()
    return (4 * channels,)


def _mean_scratch(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """An int32 sum per output (kernels/reduce_common.cc, PrepareMeanOrSumHelper)."""
    if _operand(network, op, 0).dtype not in ("int8", "int16"):
        return ()
    return (4 * math.prod(_result(network, op).shape),)


def _reduce_scratch(network: Network, op: Op, core: str) -> tuple[int, ...]:
    """An index per dimension and the axes (the same file, PrepareMaxHelper)."""
    source, axes = (_operand(network, op, place) for place in (0, 1))
    return 4 * len(source.shape), 4 * math.prod(axes.shape)


# Neither options nor op data nor buffers.
_PLAIN = """
BATCH_TO_SPACE_ND CEIL COS EXP EXPAND_DIMS FLOOR LOG MAXIMUM MINIMUM NEG ROUND SIN SLICE
SQRT SQUARE TRANSPOSE
"""
_KERNELS = {
    **dict.fromkeys(_PLAIN.split(), Kernel(0, 1, 0)),
    "ABS": Kernel(0, 1, 20),
    "ADD": Kernel(2, 1, 60),
    "ARG_MAX": Kernel(1, 1, 0),
    "ARG_MIN": Kernel(1, 1, 0),
    "AVERAGE_POOL_2D": Kernel(40, 4, 36, scratch=_average_scratch),
    "CAST": Kernel(2, 1, 0),
    "CONCATENATION": Kernel(8, 4, 24, _concatenation_tables),
    "CONV_2D": Kernel(28, 4, 60, _channel_tables, _convolution_scratch),
    "DEPTHWISE_CONV_2D": Kernel(28, 4, 60, _channel_tables, _depthwise_scratch),
    "DEPTH_TO_SPACE": Kernel(4, 4, 0, _dimensions),
    "DEQUANTIZE": Kernel(0, 1, 32),
    "DIV": Kernel(1, 1, 28),
    "ELU": Kernel(0, 1, 256),
    "FULLY_CONNECTED": Kernel(5, 1, 64, _dense_tables, _dense_scratch),
    "HARD_SWISH": Kernel(0, 1, 20),
    "L2_NORMALIZATION": Kernel(1, 1, 4),
    "LEAKY_RELU": Kernel(4, 4, 24),
    "LOGISTIC": Kernel(0, 1, 16),
    "MAX_POOL_2D": Kernel(40, 4, 36),
    "MEAN": Kernel(1, 1, 40, scratch=_mean_scratch),
    "MUL": Kernel(1, 1, 36),
    "PACK": Kernel(8, 4, 0),
    "PAD": Kernel(0, 1, 56),
    "PADV2": Kernel(0, 1, 56),
    "PRELU": Kernel(0, 1, 28),
    "QUANTIZE": Kernel(0, 1, 32),
    "REDUCE_MAX": Kernel(1, 1, 40, scratch=_reduce_scratch),
    "RELU": Kernel(0, 1, 28),
    "RELU6": Kernel(0, 1, 2),
    "RESHAPE": Kernel(36, 4, 0),
    "RESIZE_BILINEAR": Kernel(2, 1, 0),
    "RESIZE_NEAREST_NEIGHBOR": Kernel(2, 1, 0),
    "RSQRT": Kernel(0, 1, 20),
    "SHAPE": Kernel(1, 1, 0),
    "SOFTMAX": Kernel(4, 4, 64),
    "SPACE_TO_BATCH_ND": Kernel(0, 1, 4),
    "SPACE_TO_DEPTH": Kernel(4, 4, 0, _dimensions),
    "SPLIT": Kernel(4, 4, 0),
    "SPLIT_V": Kernel(4, 4, 0),
    "SQUARED_DIFFERENCE": Kernel(0, 1, 112),
    "SQUEEZE": Kernel(36, 4, 0),
    "STRIDED_SLICE": Kernel(24, 4, 84),
    "SUB": Kernel(2, 1, 52),
    "SUM": Kernel(1, 1, 40, scratch=_mean_scratch),
    "TANH": Kernel(0, 1, 16),
    "UNPACK": Kernel(8, 4, 0),
}
