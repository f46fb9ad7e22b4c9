"""Lowers a quantized view to the int8 network that the camera runs.

TensorFlow's converter could do it in 7 to 12 seconds for MobileNetV2. This one is
ours because the package's promises rest on it: the file's layout follows from the
architecture alone, so that flash and RAM are known before training; the int8
weights and the ranges are those of the training, to the bit; batch normalization
folds without falling back to float where a gamma is 0; and it takes 0.1 seconds,
so that accuracy on the device's arithmetic can be watched during training.

Arithmetic: the TensorFlow Lite 8-bit quantization specification. Weights are
symmetric, bias scale = input scale x weight scale, softmax and sigmoid put out
1/256 and -128, tanh 1/128 and 0.
"""

import math
from typing import Any

import numpy as np

from keras_omv.builder import ACTIVATIONS, NetworkBuilder, convolution_options
from keras_omv.calls import layer_affine
from keras_omv.errors import TrainingDivergedError
from keras_omv.graph import FIXED, Step
from keras_omv.network import Network
from keras_omv.quantization import (
    INT8_MIN,
    activation_quantization,
    kernel_axes,
    weight_quantization,
)
from keras_omv.view import QuantizedView

_FIXED_OUTPUTS = {
    "softmax": (1 / 256, INT8_MIN),
    "sigmoid": (1 / 256, INT8_MIN),
    "tanh": (1 / 128, 0),
}
_FIXED_KINDS = {"softmax": "SOFTMAX", "sigmoid": "LOGISTIC", "tanh": "TANH"}
# A bias keeps one bit in reserve below int32's limit for the sum it starts.
_BIAS_LIMIT = 2.0**30
# Products below this share of an output step are too small to count.
_NEGLIGIBLE = 2.0**-20


def lower(view: QuantizedView) -> Network:
    """Makes the int8 network of a view.

    Args:
        view: A view whose ranges have been trained or calibrated.

    Returns:
        The network: every tensor int8, biases int32, input pinned to the
        camera's pixel - 128, and probabilities out: a model that puts out logits
        gets a softmax (a sigmoid where it has one output).

    Raises:
        TrainingDivergedError: If a weight or a range is not a finite number.
    """
    return _Lowering(view).network()


class _Lowering:
    """Collects tensors and operations while it walks the steps."""

    def __init__(self, view: QuantizedView) -> None:
        self._view = view
        self._graph = view.graph
        self._ranges = view.get_ranges()
        self._builder = NetworkBuilder()
        self._values: dict[int, int] = {}

    def network(self) -> Network:
        graph = self._graph
        quantization = self._view.pixels.quantization
        image = self._builder.activation("image", graph.input_shape, *quantization)
        self._values[graph.input_value] = image
        for step in graph.steps:
            lower_step = getattr(self, f"_{step.kind}")
            self._values[step.output] = lower_step(step)
        scores = self._probabilities(self._values[graph.output])
        return self._builder.build(image, scores)

    # Steps, by their kinds. Each returns the tensor of the step's output.

    def _conv(self, step: Step) -> int:
        kernel, bias, scales = self._folded(step)
        weights = np.transpose(kernel, (3, 0, 1, 2))
        return self._convolution("CONV_2D", step, weights, scales, bias, axis=0)

    def _depthwise(self, step: Step) -> int:
        kernel, bias, scales = self._folded(step)
        weights = kernel.reshape(1, *kernel.shape[:2], -1)
        options = {"depth_multiplier": kernel.shape[3]}
        return self._convolution(
            "DEPTHWISE_CONV_2D", step, weights, scales, bias, axis=3, **options
        )

    def _dense(self, step: Step) -> int:
        kernel, bias, scales = self._folded(step)
        if step.per_channel:
            return self._dense_as_convolution(step, kernel, bias, scales)
        output = self._output(step)
        inputs = self._weighted_inputs(
            step, self._source(step), output, kernel.T, scales, bias, axis=0
        )
        options = {"activation": ACTIVATIONS[step.activation]}
        return self._builder.op("FULLY_CONNECTED", inputs, output, **options)

    def _dense_as_convolution(
        self, step: Step, kernel: np.ndarray, bias: np.ndarray, scales: np.ndarray
    ) -> int:
        source = self._reshaped(self._source(step), (1, 1, kernel.shape[0]))
        output = self._output(step, shape=(1, 1, *step.shape))
        weights = kernel.T[:, None, None, :]
        inputs = self._weighted_inputs(
            step, source, output, weights, scales, bias, axis=0
        )
        self._builder.op("CONV_2D", inputs, output, **_options(step))
        return self._reshaped(output, step.shape)

    def _affine(self, step: Step) -> int:
        """A scale and offset per channel, as a 1x1 depthwise convolution."""
        channels = step.shape[-1]
        scale, offset = layer_affine(step.layer)
        scale = np.broadcast_to(scale, (channels,))
        bias = np.broadcast_to(offset, (channels,))
        weights = np.where(scale < 0, -127, 127).astype("int8")
        scales = np.abs(scale) / np.float32(127)
        square = (1, 1, channels) if len(step.shape) == 1 else step.shape
        source = self._reshaped(self._source(step), square)
        output = self._output(step, shape=square)
        inputs = self._weighted_inputs(
            step, source, output, weights.reshape(1, 1, 1, -1), scales, bias, axis=3
        )
        options = {**_options(step), "depth_multiplier": 1}
        self._builder.op("DEPTHWISE_CONV_2D", inputs, output, **options)
        return self._reshaped(output, step.shape)

    def _add(self, step: Step) -> int:
        inputs = tuple(self._values[value] for value in step.inputs)
        options = {"activation": ACTIVATIONS[step.activation]}
        return self._builder.op("ADD", inputs, self._output(step), **options)

    def _concat(self, step: Step) -> int:
        output = self._output(step)
        inputs = tuple(self._requantized(value, step) for value in step.inputs)
        axis = len(step.shape)
        return self._builder.op(
            "CONCATENATION", inputs, output, axis=axis, activation="NONE"
        )

    def _max_pool(self, step: Step) -> int:
        return self._pool("MAX_POOL_2D", step)

    def _average_pool(self, step: Step) -> int:
        return self._pool("AVERAGE_POOL_2D", step)

    def _mean(self, step: Step) -> int:
        return self._reduce("MEAN", step)

    def _global_max(self, step: Step) -> int:
        return self._reduce("REDUCE_MAX", step)

    def _pad(self, step: Step) -> int:
        paddings = np.array([(0, 0), *step.pads, (0, 0)], "int32")
        inputs = (self._source(step), self._builder.integers("paddings", paddings))
        return self._builder.op("PAD", inputs, self._output(step))

    def _reshape(self, step: Step) -> int:
        return self._reshaped(self._source(step), step.shape)

    def _identity(self, step: Step) -> int:
        return self._source(step)

    def _relu(self, step: Step) -> int:
        # TFLM's RELU6 does not requantize, its RELU does; the output's range, of
        # which a ReLU6 leaves nothing above 6, clips like one.
        return self._builder.op("RELU", (self._source(step),), self._output(step))

    def _softmax(self, step: Step) -> int:
        return self._fixed(step.kind, step.name, self._source(step))

    _sigmoid = _tanh = _softmax

    # What steps share.

    def _probabilities(self, scores: int) -> int:
        """Adds the softmax or sigmoid that a model with logits left out."""
        if self._graph.output_kind in FIXED:
            return scores
        kind = "sigmoid" if self._graph.output_units == 1 else "softmax"
        return self._fixed(kind, kind, scores)

    def _fixed(self, kind: str, name: str, source: int) -> int:
        shape = self._builder.tensors[source].shape[1:]
        output = self._builder.activation(
            f"{name}/{kind}", shape, *_FIXED_OUTPUTS[kind]
        )
        options = {"beta": 1.0} if kind == "softmax" else {}
        return self._builder.op(_FIXED_KINDS[kind], (source,), output, **options)

    def _pool(self, kind: str, step: Step) -> int:
        options = {
            "padding": step.padding.upper(),
            "stride_h": step.strides[0],
            "stride_w": step.strides[1],
            "filter_h": step.window[0],
            "filter_w": step.window[1],
            "activation": "NONE",
        }
        return self._builder.op(
            kind, (self._source(step),), self._output(step), **options
        )

    def _reduce(self, kind: str, step: Step) -> int:
        axes = self._builder.integers("axes", np.array([1, 2], "int32"))
        keep = len(step.shape) == 3
        inputs = (self._source(step), axes)
        return self._builder.op(kind, inputs, self._output(step), keep_dims=keep)

    def _convolution(
        self,
        kind: str,
        step: Step,
        weights: np.ndarray,
        scales: np.ndarray,
        bias: np.ndarray,
        *,
        axis: int,
        **options: Any,
    ) -> int:
        output = self._output(step)
        inputs = self._weighted_inputs(
            step, self._source(step), output, weights, scales, bias, axis=axis
        )
        return self._builder.op(kind, inputs, output, **_options(step), **options)

    def _folded(self, step: Step) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Int8 kernel, real bias and weight scales, batch normalization folded.

        The int8 values are those of the unfolded kernel, as in training: a factor
        per channel changes a channel's scale, not its rounding.
        """
        kernel = _numpy(step.kernel, step.name)
        axes = kernel_axes(step.kind, per_channel=step.per_channel)
        values, scales = weight_quantization(kernel, axes)
        scales = scales.reshape(-1)
        # A bias is written even where it is zero: LiteRT's optimized depthwise
        # kernel crashes without one.
        channels = (
            math.prod(kernel.shape[-2:])
            if step.kind == "depthwise"
            else kernel.shape[-1]
        )
        bias = np.zeros(channels, "float32")
        if step.bias is not None:
            bias = _numpy(step.bias, step.name)
        if step.batch_norm is None:
            return values, bias, scales
        gain, offset = layer_affine(step.batch_norm)
        _check_finite(gain, step.name)
        signs = np.where(gain < 0, -1, 1).astype("int8")
        signs = signs.reshape(kernel.shape[2:]) if step.kind == "depthwise" else signs
        return values * signs, bias * gain + offset, scales * np.abs(gain)

    def _weighted_inputs(
        self,
        step: Step,
        source: int,
        output: int,
        weights: np.ndarray,
        scales: np.ndarray,
        bias: np.ndarray,
        *,
        axis: int,
    ) -> tuple[int, ...]:
        """The input tensors of a weighted operation: image, weights and bias."""
        source_scale = self._builder.tensors[source].scales[0]
        output_scale = self._builder.tensors[output].scales[0]
        _check_finite(bias, step.name)
        limits = np.abs(bias) / (source_scale * _BIAS_LIMIT)
        limits = limits if scales.size > 1 else np.max(limits)
        floor = np.maximum(limits, output_scale / source_scale * _NEGLIGIBLE)
        raised = np.maximum(scales, floor).astype("float32")
        shape = [1] * weights.ndim
        shape[axis] = raised.size
        ratio = (scales / raised).reshape(shape)
        weights = np.rint(weights * ratio).astype("int8")
        bias_scales = source_scale * raised
        quantized = np.rint(bias / bias_scales.astype("float64")).astype("int32")
        return (
            source,
            self._builder.weights(step.name, weights, raised, axis=axis),
            self._builder.bias(step.name, quantized, bias_scales),
        )

    def _source(self, step: Step) -> int:
        return self._values[step.inputs[0]]

    def _output(self, step: Step, *, shape: tuple[int, ...] | None = None) -> int:
        """A tensor for a step's output, with the quantization of its range."""
        owner = self._view.owners[step.output]
        quantization = self._quantization(owner)
        return self._builder.activation(step.name, shape or step.shape, *quantization)

    def _quantization(self, owner: int) -> tuple[Any, int]:
        if owner in self._ranges:
            low, high = self._ranges[owner]
            _check_finite(np.array([low, high]), "an activation range")
            return activation_quantization(low, high)
        tensor = self._builder.tensors[self._values[owner]]
        return tensor.scales[0], int(tensor.zero_points[0])

    def _requantized(self, value: int, concat: Step) -> int:
        """A value in the quantization of the concatenation that reads it."""
        tensor = self._values[value]
        owner = self._view.owners[concat.output]
        if self._view.owners[value] == owner:
            return tensor
        shape = self._builder.tensors[tensor].shape[1:]
        name = f"{concat.name}/requantized"
        output = self._builder.activation(name, shape, *self._quantization(owner))
        return self._builder.op("QUANTIZE", (tensor,), output)

    def _reshaped(self, source: int, shape: tuple[int, ...]) -> int:
        tensor = self._builder.tensors[source]
        if tensor.shape[1:] == shape:
            return source
        target = self._builder.integers("shape", np.array((1, *shape), "int32"))
        output = self._builder.activation(
            f"{tensor.name}/reshaped",
            shape,
            tensor.scales[0],
            int(tensor.zero_points[0]),
        )
        return self._builder.op("RESHAPE", (source, target), output)


def _options(step: Step) -> dict[str, Any]:
    return convolution_options(
        padding=step.padding,
        activation=step.activation,
        strides=step.strides,
        dilation=step.dilation,
    )


def _numpy(variable: Any, name: str) -> np.ndarray:
    values = np.asarray(variable, "float32")
    _check_finite(values, name)
    return values


def _check_finite(values: np.ndarray, name: str) -> None:
    if not np.all(np.isfinite(values)):
        raise TrainingDivergedError(
            f"Expected finite weights and ranges. Received: NaN or infinity in "
            f"{name!r}. The training diverged: lower the learning rate and check "
            "the images and labels for NaN."
        )
