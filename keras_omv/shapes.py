"""Rules of shapes: TFLM believes those in the file and reads or writes past tensors.

On a PC that goes unnoticed or ends the process; a camera's memory has no guard. The
operators judged are those that `keras_omv.flatbuffer` writes, whose options a
`Network` holds. How large a result is follows tensorflow/tflite-micro at a57349f0,
tensorflow/lite/kernels/padding.h, and the operators' definitions.
"""

import math
from collections.abc import Callable, Iterator

from keras_omv.firmware import AGAIN, Violation
from keras_omv.network import Network, Op, Tensor

MOST_OUTPUT_DIMENSIONS = 4
"""ULAB_MAX_DIMS of every camera (boards/*/ulab_config.h@v5.0.0)."""


def shape_violations(network: Network) -> Iterator[Violation]:
    """Find operations whose tensors do not have the shapes that they compute on.

    Args:
        network: A network that the firmware has the operators and types for.
    """
    for index in network.outputs:
        yield from _output_violations(network.tensors[index])
    for op in network.ops:
        inputs = [network.tensors[index] for index in op.inputs if index >= 0]
        outputs = [network.tensors[index] for index in op.outputs]
        if op.kind in _RULES and not _fits(op, inputs, outputs):
            tensors = ", ".join(f"{t.name!r} {t.shape}" for t in (*inputs, *outputs))
            what = f"{op.kind} does not compute on tensors of these shapes: {tensors}"
            yield Violation("shapes", what, AGAIN)


def _output_violations(output: Tensor) -> Iterator[Violation]:
    if len(output.shape) > MOST_OUTPUT_DIMENSIONS:
        what = (
            f"output {output.name!r} of shape {output.shape} has more than "
            f"{MOST_OUTPUT_DIMENSIONS} dimensions, which the camera's arrays lack"
        )
        yield Violation("output", what, "flatten the model's output")


def _fits(op: Op, inputs: list[Tensor], outputs: list[Tensor]) -> bool:
    """Judge one operation; biases, the only inputs that may be missing, come last."""
    fewest, rule = _RULES[op.kind]
    if len(inputs) < fewest or len(outputs) != 1:
        return False
    if any(0 in tensor.shape for tensor in (*inputs, *outputs)):
        return False
    return rule(op, inputs, outputs[0].shape)


def _convolution(op: Op, inputs: list[Tensor], result: tuple[int, ...]) -> bool:
    source, weights = inputs[0].shape, inputs[1]
    if not len(source) == len(weights.shape) == len(result) == 4:
        return False
    count, height, width, depth = weights.shape
    swept = _swept(op, source, (height, width))
    return (
        result == (source[0], *swept, count)
        and source[3] % depth == 0
        and count % (source[3] // depth) == 0
        and _has_scales_of(weights, axis=0)
        and _has_bias_of(inputs, count)
    )


def _depthwise(op: Op, inputs: list[Tensor], result: tuple[int, ...]) -> bool:
    source, weights = inputs[0].shape, inputs[1]
    if not len(source) == len(weights.shape) == len(result) == 4:
        return False
    count, height, width, channels = weights.shape
    swept = _swept(op, source, (height, width))
    return (
        result == (source[0], *swept, channels)
        and count == 1
        and channels == source[3] * op.options["depth_multiplier"]
        and _has_scales_of(weights, axis=3)
        and _has_bias_of(inputs, channels)
    )


def _has_scales_of(weights: Tensor, *, axis: int) -> bool:
    """Whether there is one scale, or one for each channel along the kernel's axis."""
    if weights.scales.size <= 1:
        return True
    return weights.axis == axis and weights.scales.size == weights.shape[axis]


def _has_bias_of(inputs: list[Tensor], channels: int) -> bool:
    return len(inputs) < 3 or math.prod(inputs[2].shape) == channels


def _pool(op: Op, inputs: list[Tensor], result: tuple[int, ...]) -> bool:
    source = inputs[0].shape
    if not len(source) == len(result) == 4:
        return False
    swept = _swept(op, source, (op.options["filter_h"], op.options["filter_w"]))
    return result == (source[0], *swept, source[3])


def _swept(op: Op, source: tuple[int, ...], window: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns that a window leaves."""
    sizes = []
    for place, key in enumerate("hw"):
        extent = (window[place] - 1) * op.options.get(f"dilation_{key}", 1) + 1
        lost = extent - 1 if op.options["padding"] == "VALID" else 0
        sizes.append(-(-(source[1 + place] - lost) // op.options[f"stride_{key}"]))
    return sizes[0], sizes[1]


def _dense(op: Op, inputs: list[Tensor], result: tuple[int, ...]) -> bool:
    size, weights = math.prod(inputs[0].shape), inputs[1].shape
    if len(weights) != 2 or not result:
        return False
    units, depth = weights
    return (
        size % depth == 0
        and result[-1] == units
        and math.prod(result) == size // depth * units
        and _has_bias_of(inputs, units)
    )


def _same(op: Op, inputs: list[Tensor], result: tuple[int, ...]) -> bool:
    return inputs[0].shape == result


def _same_count(op: Op, inputs: list[Tensor], result: tuple[int, ...]) -> bool:
    return math.prod(inputs[0].shape) == math.prod(result)


def _broadcast(op: Op, inputs: list[Tensor], result: tuple[int, ...]) -> bool:
    one, other = (
        (1,) * (len(result) - len(tensor.shape)) + tensor.shape for tensor in inputs
    )
    return len(one) == len(other) == len(result) and all(
        size == max(pair) and min(pair) in (1, size)
        for size, *pair in zip(result, one, other, strict=True)
    )


def _concatenated(op: Op, inputs: list[Tensor], result: tuple[int, ...]) -> bool:
    rank, axis = len(result), op.options["axis"]
    if not -rank <= axis < rank or any(len(t.shape) != rank for t in inputs):
        return False
    axis %= rank
    joined = list(inputs[0].shape)
    joined[axis] = sum(tensor.shape[axis] for tensor in inputs)
    others = {(*t.shape[:axis], *t.shape[axis + 1 :]) for t in inputs}
    return tuple(joined) == result and len(others) == 1


def _padded(op: Op, inputs: list[Tensor], result: tuple[int, ...]) -> bool:
    source, paddings = inputs[0].shape, inputs[1]
    if paddings.shape != (len(source), 2) or paddings.data is None:
        return False
    if paddings.data.min() < 0:
        return False
    added = paddings.data.sum(axis=1).tolist()
    return result == tuple(map(sum, zip(source, added, strict=True)))


def _reduced(op: Op, inputs: list[Tensor], result: tuple[int, ...]) -> bool:
    rank, axes = len(inputs[0].shape), inputs[1].data
    if axes is None or any(not -rank <= axis < rank for axis in axes.flat):
        return False
    gone = {int(axis) % rank for axis in axes.flat}
    kept = [
        1 if axis in gone else size
        for axis, size in enumerate(inputs[0].shape)
        if op.options["keep_dims"] or axis not in gone
    ]
    return tuple(kept) == result


_Rule = Callable[[Op, list[Tensor], tuple[int, ...]], bool]
# kind: (the fewest inputs, the rule).
_RULES: dict[str, tuple[int, _Rule]] = {
    "ADD": (2, _broadcast),
    "AVERAGE_POOL_2D": (1, _pool),
    "CONCATENATION": (1, _concatenated),
    "CONV_2D": (2, _convolution),
    "DEPTHWISE_CONV_2D": (2, _depthwise),
    "FULLY_CONNECTED": (2, _dense),
    "LOGISTIC": (1, _same),
    "MAX_POOL_2D": (1, _pool),
    "MEAN": (2, _reduced),
    "PAD": (2, _padded),
    "QUANTIZE": (1, _same),
    "REDUCE_MAX": (2, _reduced),
    "RELU": (1, _same),
    "RELU6": (1, _same),
    "RESHAPE": (1, _same_count),
    "SOFTMAX": (1, _same),
    "TANH": (1, _same),
}
