"""Lowers a quantized view to the int8 network that the camera runs.

TensorFlow's converter could do it in 7 to 12 seconds for MobileNetV2. This one is
ours because the package's promises rest on it: the file's layout follows from the
architecture alone, so that flash and RAM are known before training; the int8
weights and the ranges are those of the training, to the bit; batch normalization
folds without falling back to float where a gamma is 0; and it takes 0.1 seconds,
so that accuracy on the device's arithmetic can be watched during training.

Arithmetic: the TensorFlow Lite 8-bit quantization specification. Weights are
symmetric (folding.py), bias scale = input scale x weight scale, softmax and sigmoid
put out 1/256 and -128, tanh 1/128 and 0.
"""

from typing import Any

import numpy as np

from keras_omv.builder import ACTIVATIONS, NetworkBuilder, convolution_options
from keras_omv.compaction import compact
from keras_omv.errors import TrainingDivergedError
from keras_omv.folding import integer_weights
from keras_omv.graph import FIXED, Step
from keras_omv.inference import FIXED_QUANTIZATIONS
from keras_omv.network import Network
from keras_omv.view import QuantizedView

_FIXED_KINDS = {"softmax": "SOFTMAX", "sigmoid": "LOGISTIC", "tanh": "TANH"}


def lower(view: QuantizedView, *, compacted: bool = True) -> Network:
    """Makes the int8 network of a view.

    Args:
        view: A view whose ranges have been trained or calibrated.
        compacted: Whether channels that are always zero are left out. Defaults to
            `True`.

    Returns:
        The network: every tensor int8, biases int32, input pinned to the
        camera's pixel - 128, and probabilities out: a model that puts out logits
        gets a softmax (a sigmoid where it has one output).

    Raises:
        TrainingDivergedError: If a weight or a range is not a finite number.
    """
    network = _Lowering(view).network()
    return compact(network) if compacted else network


class _Lowering:
    """Collects tensors and operations while it walks the steps."""

    def __init__(self, view: QuantizedView) -> None:
        self._view = view
        self._graph = view.graph
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
        return self._weighted("CONV_2D", step, self._source(step), step.shape)

    def _depthwise(self, step: Step) -> int:
        source = self._source(step)
        multiplier = step.kernel.shape[3]
        return self._weighted(
            "DEPTHWISE_CONV_2D", step, source, step.shape, depth_multiplier=multiplier
        )

    def _dense(self, step: Step) -> int:
        source = self._source(step)
        if not step.per_channel:
            return self._weighted("FULLY_CONNECTED", step, source, step.shape)
        pixel = self._reshaped(source, (1, 1, step.kernel.shape[0]))
        scores = self._weighted("CONV_2D", step, pixel, (1, 1, *step.shape))
        return self._reshaped(scores, step.shape)

    def _affine(self, step: Step) -> int:
        square = (1, 1, *step.shape) if len(step.shape) == 1 else step.shape
        source = self._reshaped(self._source(step), square)
        output = self._weighted(
            "DEPTHWISE_CONV_2D", step, source, square, depth_multiplier=1
        )
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
        fixed = FIXED_QUANTIZATIONS[kind]
        output = self._builder.activation(
            f"{name}/{kind}", shape, fixed.scale, fixed.zero_point
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

    def _weighted(
        self, kind: str, step: Step, source: int, shape: tuple[int, ...], **options: Any
    ) -> int:
        """A convolution or dense layer, with its weights and bias."""
        output = self._output(step, shape=shape)
        source_scale, output_scale = (
            self._builder.tensors[tensor].scales[0] for tensor in (source, output)
        )
        _check_variables(step)
        weights = integer_weights(step, source_scale, output_scale)
        scales, bias = weights.scales.numpy(), weights.bias.numpy()
        _check_finite(bias, step.name)
        kernel, axis = _in_file_order(kind, weights.kernel.numpy().astype("int8"))
        inputs = (
            source,
            self._builder.weights(step.name, kernel, scales, axis=axis),
            self._builder.bias(step.name, bias.astype("int32"), source_scale * scales),
        )
        if kind == "FULLY_CONNECTED":
            options = {"activation": ACTIVATIONS[step.activation]}
        else:
            options = {**_options(step), **options}
        return self._builder.op(kind, inputs, output, **options)

    def _source(self, step: Step) -> int:
        return self._values[step.inputs[0]]

    def _output(self, step: Step, *, shape: tuple[int, ...] | None = None) -> int:
        """A tensor for a step's output, with the quantization of its range."""
        owner = self._view.owners[step.output]
        quantization = self._quantization(owner)
        return self._builder.activation(step.name, shape or step.shape, *quantization)

    def _quantization(self, owner: int) -> tuple[Any, int]:
        quantizer = self._view.quantizers.get(owner)
        if quantizer is not None:
            _check_finite(np.array(quantizer.range), "an activation range")
            return quantizer.quantization
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


def _in_file_order(kind: str, kernel: np.ndarray) -> tuple[np.ndarray, int]:
    """A kernel as TFLite lays it out, and the axis of its output channels."""
    if kind == "DEPTHWISE_CONV_2D":
        return kernel.reshape(1, *kernel.shape[:2], -1), 3
    outputs_first = np.moveaxis(kernel, -1, 0)
    if kind == "CONV_2D" and kernel.ndim == 2:
        outputs_first = outputs_first[:, None, None, :]
    return outputs_first, 0


def _check_variables(step: Step) -> None:
    norm = [] if step.batch_norm is None else step.batch_norm.weights
    for variable in (step.kernel, step.bias, *norm):
        if variable is not None:
            _check_finite(np.asarray(variable), step.name)


def _check_finite(values: np.ndarray, name: str) -> None:
    if not np.all(np.isfinite(values)):
        raise TrainingDivergedError(
            f"Expected finite weights and ranges. Received: NaN or infinity in "
            f"{name!r}. The training diverged: lower the learning rate and check "
            "the images and labels for NaN."
        )
