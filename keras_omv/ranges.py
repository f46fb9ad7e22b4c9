"""Rules of int8 arithmetic: scales on which the camera hangs or answers wrongly.

TFLM turns scales into integer multipliers when it loads a model. On a scale that
is zero, not finite or out of proportion it aborts, which a camera does as an endless
loop, or answers the same to every image. Read from tensorflow/tflite-micro at
a57349f0; paths start at tensorflow/lite.
"""

import math
from collections.abc import Iterator

import numpy as np

from keras_omv.firmware import AGAIN, Violation
from keras_omv.network import WEIGHTED_OPS, Network, Op, Tensor

_QUANTIZED = {"int8": (-128, 127), "uint8": (0, 255), "int16": (0, 0)}
"""The types that need scales, and the zero points they may have; int16 is symmetric."""
_WEIGHTS_PLACE = 1
_BIAS_PLACE = 2
_CALIBRATE = "export again with images that show what the camera will see"

LEAST_MULTIPLIER = 2.0**-31
GREATEST_MULTIPLIER = 2.0**30
"""Beyond them kernels/internal/quantization_util.cc, QuantizeMultiplier, takes zero or
the greatest shift instead."""
_ADD_HEADROOM = 2.0**20
"""left_shift of micro/kernels/add_common.cc."""
_SOFTMAX_STEPS = 2.0**26
"""2 to the power of 31 - kScaledDiffIntegerBits (micro/kernels/softmax_common.cc)."""

_FIXED_OUTPUTS = {
    "SOFTMAX": (1 / 256, -128),
    "LOGISTIC": (1 / 256, -128),
    "TANH": (1 / 128, 0),
}
"""Scale and zero point of int8 results that the kernels have built in."""

# Kernels that move or compare values and never rescale them.
_COPYING = """
AVERAGE_POOL_2D BATCH_TO_SPACE_ND CONCATENATION DEPTH_TO_SPACE EXPAND_DIMS MAXIMUM
MAX_POOL_2D MINIMUM PACK PAD PADV2 RESHAPE RESIZE_NEAREST_NEIGHBOR SLICE
SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQUEEZE STRIDED_SLICE TRANSPOSE UNPACK
"""
_COPIERS = frozenset(_COPYING.split())
_SAME_SCALE = 1e-5


def range_violations(network: Network) -> Iterator[Violation]:
    """Find the scales and zero points that a camera cannot compute with.

    Args:
        network: A network that the firmware has the operators and types for.
    """
    sound = True
    for index in sorted(_computed_with(network)):
        for violation in _tensor_violations(network.tensors[index]):
            sound = False
            yield violation
    for op in network.ops if sound else ():
        yield from _op_violations(network, op)


def _computed_with(network: Network) -> set[int]:
    """Return the tensors whose scales TFLM reads: all but biases and what is unused."""
    read = {*network.inputs, *network.outputs}
    for op in network.ops:
        inputs = op.inputs[:_BIAS_PLACE] if op.kind in WEIGHTED_OPS else op.inputs
        read.update((*inputs, *op.outputs))
    return {index for index in read if index >= 0}


def _tensor_violations(tensor: Tensor) -> Iterator[Violation]:
    if tensor.dtype not in _QUANTIZED:
        return
    scales = tensor.scales.astype("float64")
    # TFLM reads neither where one is left out (micro/micro_allocator.cc:264-329).
    if not scales.size or not tensor.zero_points.size:
        what = f"tensor {tensor.name!r} of {tensor.dtype} has no scale or no zero point"
        yield Violation("range", what, AGAIN)
    elif not np.all(np.isfinite(scales)) or scales.min() < np.finfo("f4").tiny:
        what = (
            f"tensor {tensor.name!r} has the scale {_worst(scales):g}: on a range that "
            f"has collapsed TFLM aborts, so that the camera hangs, or answers nonsense"
        )
        yield Violation("range", what, _CALIBRATE)
    else:
        yield from _zero_point_violations(tensor)


def _zero_point_violations(tensor: Tensor) -> Iterator[Violation]:
    low, high = _QUANTIZED[tensor.dtype]
    if tensor.is_constant and tensor.dtype == "int8" and tensor.scales.size > 1:
        low, high = 0, 0
    zero_points = tensor.zero_points
    if low <= zero_points.min() and zero_points.max() <= high:
        return
    wrong = zero_points[(zero_points < low) | (zero_points > high)][0]
    what = (
        f"tensor {tensor.name!r} has the zero point {wrong}, where {tensor.dtype} "
        f"takes {low if low == high else f'{low} to {high}'}"
    )
    yield Violation("range", what, AGAIN)


def _worst(scales: np.ndarray) -> float:
    bad = scales[~np.isfinite(scales) | (scales <= 0)]
    return float(bad[0] if bad.size else scales.min())


def _op_violations(network: Network, op: Op) -> Iterator[Violation]:
    tensors = network.tensors
    inputs = [tensors[index] for index in op.inputs if index >= 0]
    if not inputs or not op.outputs or inputs[0].dtype not in _QUANTIZED:
        return
    output = tensors[op.outputs[0]]
    if op.kind in WEIGHTED_OPS and len(inputs) > 1:
        yield from _weighted_violations(op.kind, inputs[0], inputs[1], output)
    elif op.kind in ("ADD", "SUB"):
        yield from _add_violations(op.kind, inputs, output)
    elif op.kind in _FIXED_OUTPUTS and output.dtype == "int8":
        yield from _fixed_violations(op, inputs[0], output)
    elif op.kind in _COPIERS:
        yield from _copy_violations(op, inputs, [tensors[i] for i in op.outputs])


def _weighted_violations(
    kind: str, source: Tensor, weights: Tensor, output: Tensor
) -> Iterator[Violation]:
    """Judge the multipliers (kernels/kernel_util.cc, Populate...Params)."""
    if not weights.scales.size or not output.scales.size:
        return
    multipliers = (
        float(source.scales[0])
        * weights.scales.astype("float64")
        / float(output.scales[0])
    )
    if multipliers.max() >= GREATEST_MULTIPLIER:
        yield _disproportion(kind, source, output, "narrow")
    elif multipliers.max() < LEAST_MULTIPLIER:
        yield _disproportion(kind, source, output, "wide")


def _add_violations(
    kind: str, inputs: list[Tensor], output: Tensor
) -> Iterator[Violation]:
    """Judge a sum's multipliers, which must lie below one, or TFLM aborts."""
    scales = [float(tensor.scales[0]) for tensor in inputs if tensor.scales.size]
    if not scales or not output.scales.size:
        return
    multiplier = 2 * max(scales) / _ADD_HEADROOM / float(output.scales[0])
    if multiplier >= 1:
        yield _disproportion(kind, inputs[0], output, "narrow")
    elif multiplier < LEAST_MULTIPLIER:
        yield _disproportion(kind, inputs[0], output, "wide")


def _disproportion(kind: str, source: Tensor, output: Tensor, what: str) -> Violation:
    what = (
        f"{kind} reads {source.name!r} with the scale {float(source.scales[0]):g} and "
        f"writes {output.name!r} with {float(output.scales[0]):g}, too {what} a range "
        f"for it and its weights"
    )
    return Violation("range", what, _CALIBRATE)


def _fixed_violations(op: Op, source: Tensor, output: Tensor) -> Iterator[Violation]:
    scale, zero_point = _FIXED_OUTPUTS[op.kind]
    if _grid(output) != (scale, zero_point):
        what = (
            f"{op.kind} writes {output.name!r} with the scale "
            f"{float(output.scales[0]):g} and the zero point {output.zero_points[0]}, "
            f"where its kernel takes {scale:g} and {zero_point}"
        )
        yield Violation("range", what, AGAIN)
    if op.kind != "SOFTMAX":
        return
    if float(source.scales[0]) * op.options.get("beta", 1.0) * _SOFTMAX_STEPS <= 1:
        what = f"SOFTMAX reads {source.name!r}, too narrow a range: TFLM aborts on it"
        yield Violation("range", what, _CALIBRATE)


def _copy_violations(
    op: Op, inputs: list[Tensor], outputs: list[Tensor]
) -> Iterator[Violation]:
    """Compare the scales of kernels that pass values on as they are."""
    copied = [tensor for tensor in inputs if tensor.dtype == inputs[0].dtype]
    first = _grid(copied[0])
    for tensor in (*copied[1:], *outputs):
        scale, zero_point = _grid(tensor)
        close = math.isclose(scale, first[0], rel_tol=_SAME_SCALE)
        if not close or zero_point != first[1]:
            what = (
                f"{op.kind} passes {copied[0].name!r} on as {tensor.name!r}, whose "
                f"scale or zero point differs: the camera would misread the values"
            )
            yield Violation("range", what, AGAIN)
            return


def _grid(tensor: Tensor) -> tuple[float, int]:
    if not tensor.scales.size or not tensor.zero_points.size:
        return 0.0, 0
    return float(tensor.scales[0]), int(tensor.zero_points[0])
