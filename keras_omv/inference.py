"""The steps of a graph, computed as the camera computes them.

Values are int8 values less their zero point, in float32: what pads is 0, and pools
and reshapes are the model's own layers. Every step gives what TFLM gives, bit for
bit, but for softmax, sigmoid and tanh: TFLM approximates them to about 1e-7, so that
one result in many thousands is the next int8 value.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_omv import fixed_point
from keras_omv.fixed_point import double
from keras_omv.folding import integer_weights
from keras_omv.graph import FIXED, Graph, Step
from keras_omv.scales import INT8_MAX, INT8_MIN, Quantization

FIXED_QUANTIZATIONS = {
    "softmax": Quantization(1 / 256, INT8_MIN),
    "sigmoid": Quantization(1 / 256, INT8_MIN),
    "tanh": Quantization(1 / 128, 0),
}
_FIXED_FUNCTIONS = {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid, "tanh": tf.tanh}
# Float32 adds whole numbers without an error up to here.
_EXACT_SUM = 2**24
_LARGEST_PRODUCT = INT8_MAX * (INT8_MAX - INT8_MIN)


class IntegerInference:
    """Runs a graph's steps on int8 values.

    Args:
        graph: The steps.
        quantizations: Of every value of the graph, by its number.
    """

    def __init__(self, graph: Graph, quantizations: Mapping[int, Quantization]) -> None:
        self._graph = graph
        self._quantizations = quantizations
        self._last = _last_fixed_step(graph)

    def __call__(self, image: Any) -> Any:
        """The model's output.

        Args:
            image: Int8 pixels less their zero point, float32, of shape
                `(batch, height, width, channels)`.

        Returns:
            Real scores on the steps of int8, of shape `(batch, classes)`.
            Probabilities below half a step of 1/256, which is 0 on the camera, are
            given as they are, so that a loss can be computed from them.
        """
        values = {self._graph.input_value: image}
        for step in self._graph.steps:
            sources = [values[value] for value in step.inputs]
            values[step.output] = self._compute(step, sources)
        output = self._graph.output
        return values[output] * tf.cast(self._quantizations[output].scale, tf.float32)

    def _compute(self, step: Step, sources: list[Any]) -> Any:
        compute = _STEPS.get(step.kind)
        if compute is not None:
            return compute(self, step, sources)
        if step.kind in FIXED:
            return self._fixed(step, sources[0])
        # Pools, padding and reshapes keep int8 values as they are.
        return sources[0] if step.kind == "identity" else step.layer(sources[0])

    def _weighted(self, step: Step, sources: list[Any]) -> Any:
        source, output = self._source(step), self._quantizations[step.output]
        weights = integer_weights(step, source.scale, output.scale)
        if step.per_channel:
            products = double(source.scale) * double(weights.scales)
        else:
            # FULLY_CONNECTED multiplies in float32 (kernel_util.cc,
            # GetQuantizedConvolutionMultipler), convolutions in float64.
            products = double(source.scale * weights.scales)
        sums = _sums(step, sources[0], weights.kernel)
        by = fixed_point.factor(products / double(output.scale))
        signed = step.activation == "linear"
        scaled = fixed_point.scale_sums(sums, by, weights.bias, signed=signed)
        return fixed_point.saturate(scaled, output, step.activation)

    def _add(self, step: Step, sources: list[Any]) -> Any:
        first, second = (self._quantizations[value].scale for value in step.inputs)
        output = self._quantizations[step.output]
        return fixed_point.add(sources, (first, second), output, step.activation)

    def _concat(self, step: Step, sources: list[Any]) -> Any:
        output = self._quantizations[step.output]
        pairs = zip(sources, step.inputs, strict=True)
        return tf.concat([self._shared(x, n, output) for x, n in pairs], axis=-1)

    def _shared(self, x: Any, value: int, output: Quantization) -> Any:
        """A value in the quantization of the concatenation that reads it."""
        own = self._quantizations[value]
        if own is output:
            return x
        ratio = double(own.scale) / double(output.scale)
        return fixed_point.requantize(x, ratio, output)

    def _mean(self, step: Step, sources: list[Any]) -> Any:
        source, output = self._source(step), self._quantizations[step.output]
        ratio = double(source.scale) / double(output.scale)
        return fixed_point.mean(sources[0], step.shape, ratio, output)

    def _average_pool(self, step: Step, sources: list[Any]) -> Any:
        output = self._quantizations[step.output]
        return fixed_point.round_average(step.layer(sources[0]), output)

    def _relu(self, step: Step, sources: list[Any]) -> Any:
        # RELU divides in float32 (micro/kernels/activations_common.cc). What the
        # file holds for a ReLU6 is a RELU too, see convert.py.
        source, output = self._source(step), self._quantizations[step.output]
        by = fixed_point.factor(double(source.scale / output.scale))
        scaled = fixed_point.scale_sums(sources[0], by, signed=False)
        return fixed_point.saturate(scaled, output, "relu")

    def _fixed(self, step: Step, x: Any) -> Any:
        output = FIXED_QUANTIZATIONS[step.kind]
        real = _FIXED_FUNCTIONS[step.kind](double(x) * double(self._source(step).scale))
        steps = real / output.scale
        rounded = tf.sign(steps) * tf.floor(tf.abs(steps) + 0.5)
        if step is self._last:
            rounded = tf.where(rounded == 0, steps, rounded)
        return fixed_point.saturate(rounded, output)

    def _source(self, step: Step) -> Quantization:
        return self._quantizations[step.inputs[0]]


_STEPS: dict[str, Callable[[IntegerInference, Step, list[Any]], Any]] = {
    "conv": IntegerInference._weighted,
    "depthwise": IntegerInference._weighted,
    "dense": IntegerInference._weighted,
    "affine": IntegerInference._weighted,
    "add": IntegerInference._add,
    "concat": IntegerInference._concat,
    "mean": IntegerInference._mean,
    "average_pool": IntegerInference._average_pool,
    "relu": IntegerInference._relu,
}


def apply_kernel(step: Step, x: Any, kernel: Any) -> Any:
    """The convolution or matrix product of a step, without its bias."""
    if step.kind == "dense":
        return tf.matmul(x, kernel)
    apply = keras.ops.conv if step.kind == "conv" else keras.ops.depthwise_conv
    return apply(
        x,
        kernel,
        strides=step.strides,
        padding=step.padding,
        data_format="channels_last",
        dilation_rate=step.dilation,
    )


def _sums(step: Step, x: Any, kernel: Any) -> Any:
    """Sums of products of int8 values: exact, in the fastest precision that is."""
    if step.kind == "affine":
        return x * tf.reshape(kernel, (-1,))
    taps = kernel.shape[:2] if step.kind == "depthwise" else kernel.shape[:-1]
    if math.prod(taps) * _LARGEST_PRODUCT <= _EXACT_SUM:
        return apply_kernel(step, x, kernel)
    return apply_kernel(step, double(x), double(kernel))


def _last_fixed_step(graph: Graph) -> Step | None:
    """The softmax or the like whose results the model returns, if any."""
    steps = {step.output: step for step in graph.steps}
    step = steps.get(graph.output)
    while step is not None and step.kind in ("identity", "reshape"):
        step = steps.get(step.inputs[0])
    return step if step is not None and step.kind in FIXED else None
