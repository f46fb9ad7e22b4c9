"""A .tflite file as a Keras model: its weights, its layers, its activation ranges.

Whatever the file's types are (float, float16, weights of int8 alone, int8, uint8), the
model computes in float32 what the file says, and can be exported, measured or trained
on like any other. The ranges of the file's int8 or uint8 activations come along, so
that an export need not take them from images again.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_omv.network import Network, Op, Tensor
from keras_omv.old_ops import (
    activation_of,
    affine,
    convolution_options,
    range_of_bytes,
    unsupported,
)
from keras_omv.saved_model import INPUT, NamedRanges

_CONSTANT_TYPES = ("float32", "float16", "int8", "uint8", "int32")
# Operators that compute the shape for a RESHAPE, whose output says it as well.
_SHAPES = frozenset({"SHAPE", "STRIDED_SLICE", "PACK"})


def to_keras(network: Network) -> tuple[Any, NamedRanges]:
    """Makes the Keras model that computes what a network does, in float32.

    Args:
        network: What a .tflite file holds: an image classifier with one input of
            shape `(1, height, width, channels)` and one output of scores.

    Returns:
        The model, and the activation ranges by the layers' names; those of float
        activations are not known.

    Raises:
        UnsupportedModelError: If an operator, a type or a shape is none that a Keras
            layer of an image classifier has, with all reasons.
    """
    return _Decoder(network).decode()


class _Decoder:
    """Walks the operators and calls a layer for each."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._tensors = network.tensors
        self._values: dict[int, Any] = {}
        self._constants: dict[int, np.ndarray] = {}
        self._ranges: NamedRanges = {}

    def decode(self) -> tuple[Any, NamedRanges]:
        _check(self._network)
        image = keras.Input(self._network.input.shape[1:], name="image")
        self._values[self._network.inputs[0]] = image
        self._note_range(INPUT, self._network.input)
        for op in self._network.ops:
            self._decode_op(op)
        scores = self._values[self._network.outputs[0]]
        if len(scores.shape) > 2:
            scores = keras.layers.Flatten(name="flat_scores")(scores)
        return keras.Model(image, scores), self._ranges

    def _decode_op(self, op: Op) -> None:
        output = op.outputs[0]
        if op.kind in _SHAPES:
            return
        if op.kind == "DEQUANTIZE" and self._tensors[op.inputs[0]].is_constant:
            self._constants[output] = self._constant(op.inputs[0])
            return
        name = f"{op.kind.lower()}_{output}"
        self._values[output] = _LAYERS[op.kind](self, op, name)
        self._note_range(name, self._tensors[output])
        is_first = op.kind == "QUANTIZE" and op.inputs[0] == self._network.inputs[0]
        if is_first and INPUT not in self._ranges:
            self._note_range(INPUT, self._tensors[output])

    def _note_range(self, name: str, tensor: Tensor) -> None:
        if found := range_of_bytes(tensor):
            self._ranges[name] = found

    def _value(self, op: Op, place: int = 0) -> Any:
        """What is computed of the image, as an operator's input."""
        index = op.inputs[place]
        if index not in self._values:
            raise unsupported(f"{op.kind} reads the constant {self._name(index)!r}")
        return self._values[index]

    def _name(self, index: int) -> str:
        return self._tensors[index].name

    def _constant(self, index: int) -> np.ndarray:
        """A constant's values as float32, whatever type they have in the file."""
        if index in self._constants:
            return self._constants[index]
        tensor = self._tensors[index]
        if tensor.data is None or tensor.dtype not in _CONSTANT_TYPES:
            state = tensor.dtype if tensor.is_constant else "computed from the image"
            raise unsupported(f"the weights {tensor.name!r} are {state}")
        values = np.asarray(tensor.data, "float32")
        if not tensor.scales.size:
            return values
        if tensor.scales.size == 1:
            zero = tensor.zero_points.astype("float32").reshape(-1)[:1].sum()
            return np.asarray((values - zero) * tensor.scales[0], "float32")
        shape = [1] * values.ndim
        shape[tensor.axis] = -1
        zero_points = tensor.zero_points.astype("float32").reshape(-1)
        zero = zero_points.reshape(shape) if zero_points.size > 1 else zero_points
        return np.asarray((values - zero) * tensor.scales.reshape(shape), "float32")

    def _bias(self, op: Op, size: int) -> np.ndarray:
        """A bias; files for cameras leave its scale out, which follows."""
        if len(op.inputs) < 3 or op.inputs[2] < 0:
            return np.zeros(size, "float32")
        bias = self._tensors[op.inputs[2]]
        if bias.dtype != "int32" or bias.scales.size:
            return self._constant(op.inputs[2])
        source, weights = (self._tensors[index].scales for index in op.inputs[:2])
        return np.asarray(bias.data * (source.astype("f8") * weights), "float32")

    def convolution(self, op: Op, name: str) -> Any:
        kernel = np.moveaxis(self._constant(op.inputs[1]), 0, -1)
        source = self._value(op)
        layer = keras.layers.Conv2D(
            kernel.shape[-1],
            kernel.shape[:2],
            groups=source.shape[-1] // kernel.shape[2],
            **convolution_options(op),
            name=name,
        )
        return _with_weights(layer, source, kernel, self._bias(op, kernel.shape[-1]))

    def depthwise(self, op: Op, name: str) -> Any:
        source, kernel = self._value(op), self._constant(op.inputs[1])
        channels = kernel.shape[-1]
        layer = keras.layers.DepthwiseConv2D(
            kernel.shape[1:3],
            depth_multiplier=channels // source.shape[-1],
            **convolution_options(op),
            name=name,
        )
        kernel = kernel.reshape(*kernel.shape[1:3], source.shape[-1], -1)
        return _with_weights(layer, source, kernel, self._bias(op, channels))

    def dense(self, op: Op, name: str) -> Any:
        source, kernel = self._value(op), self._constant(op.inputs[1]).T
        if len(source.shape) > 2:
            source = keras.layers.Flatten(name=f"{name}_flat")(source)
        if source.shape[-1] != kernel.shape[0]:
            raise unsupported(
                f"{op.kind} ({name}) has weights for {kernel.shape[0]} inputs, not for "
                f"all {source.shape[-1]}"
            )
        units = kernel.shape[1]
        layer = keras.layers.Dense(units, activation=activation_of(op), name=name)
        return _with_weights(layer, source, kernel, self._bias(op, units))

    def add(self, op: Op, name: str) -> Any:
        if all(index in self._values for index in op.inputs):
            total = keras.layers.Add(name=name)([self._values[i] for i in op.inputs])
            activation = activation_of(op)
            if activation == "linear":
                return total
            return keras.layers.Activation(activation, name=f"{name}_act")(total)
        return self.arithmetic(op, name)

    def arithmetic(self, op: Op, name: str) -> Any:
        """A sum, difference, product or quotient with constants of the channels."""
        number_first, image_first = (i in self._values for i in op.inputs[::-1])
        if number_first == image_first:
            raise unsupported(f"{op.kind} ({name}) is not of a value and a constant")
        if activation_of(op) != "linear":
            raise unsupported(f"{op.kind} ({name}) of a constant has an activation")
        constant = self._constant(op.inputs[0 if number_first else 1])
        source = self._value(op, 1 if number_first else 0)
        self._check_channels(op, constant, source)
        scale, offset = affine(op.kind, constant.reshape(-1), number_first)
        return keras.layers.Rescaling(scale, offset, name=name)(source)

    def _check_channels(self, op: Op, constant: np.ndarray, source: Any) -> None:
        """Raises where a constant is neither one number nor one for each channel."""
        is_number = constant.size == 1
        per_channel = constant.shape[-1:] == (constant.size,) == source.shape[-1:]
        result = self._tensors[op.outputs[0]].shape
        if not (is_number or per_channel) or result[1:] != source.shape[1:]:
            raise unsupported(
                f"{op.kind} has a constant of shape {constant.shape} for values of "
                f"{source.shape[1:]}, not one number or one for each channel"
            )

    def pool(self, op: Op, name: str) -> Any:
        maker = {
            "MAX_POOL_2D": keras.layers.MaxPooling2D,
            "AVERAGE_POOL_2D": keras.layers.AveragePooling2D,
        }[op.kind]
        options = op.options
        pooled = maker(
            (options["filter_h"], options["filter_w"]),
            strides=(options["stride_h"], options["stride_w"]),
            padding=options["padding"].lower(),
            name=name,
        )(self._value(op))
        if activation_of(op) == "linear":
            return pooled
        return keras.layers.Activation(activation_of(op), name=f"{name}_act")(pooled)

    def reduction(self, op: Op, name: str) -> Any:
        rank = len(self._value(op).shape)
        axes = sorted(int(axis) % rank for axis in self._constant(op.inputs[1]).ravel())
        if rank != 4 or axes != [1, 2]:
            raise unsupported(f"{op.kind} ({name}) is over axes {axes}, not 1 and 2")
        maker = {
            "MEAN": keras.layers.GlobalAveragePooling2D,
            "REDUCE_MAX": keras.layers.GlobalMaxPooling2D,
        }[op.kind]
        keepdims = len(self._tensors[op.outputs[0]].shape) == rank
        return maker(keepdims=keepdims, name=name)(self._value(op))

    def reshape(self, op: Op, name: str) -> Any:
        source, shape = self._value(op), self._tensors[op.outputs[0]].shape
        if math.prod(shape[1:]) != math.prod(source.shape[1:]):
            raise unsupported(f"{op.kind} ({name}) does not keep the batch's axis")
        return keras.layers.Reshape(shape[1:], name=name)(source)

    def pad(self, op: Op, name: str) -> Any:
        pads = self._constant(op.inputs[1]).astype("int64").tolist()
        if len(pads) != 4 or any(pads[0]) or any(pads[3]):
            raise unsupported(f"PAD ({name}) pads more than height and width")
        layer = keras.layers.ZeroPadding2D(tuple(map(tuple, pads[1:3])), name=name)
        return layer(self._value(op))

    def concatenation(self, op: Op, name: str) -> Any:
        values = [self._value(op, place) for place in range(len(op.inputs))]
        rank = len(values[0].shape)
        if op.options["axis"] not in (-1, rank - 1) or activation_of(op) != "linear":
            raise unsupported(f"CONCATENATION ({name}) is not of channels alone")
        return keras.layers.Concatenate(name=name)(values)

    def activation(self, op: Op, name: str) -> Any:
        beta = op.options.get("beta", 1.0)
        if op.kind == "SOFTMAX" and beta != 1:
            raise unsupported(f"SOFTMAX has beta={beta:g}, Keras' has 1")
        kind = "sigmoid" if op.kind == "LOGISTIC" else op.kind.lower()
        return keras.layers.Activation(kind, name=name)(self._value(op))

    def passed(self, op: Op, name: str) -> Any:
        return self._value(op)


_LAYERS: dict[str, Callable[[_Decoder, Op, str], Any]] = {
    "ADD": _Decoder.add,
    "AVERAGE_POOL_2D": _Decoder.pool,
    "CONCATENATION": _Decoder.concatenation,
    "CONV_2D": _Decoder.convolution,
    "DEPTHWISE_CONV_2D": _Decoder.depthwise,
    "DEQUANTIZE": _Decoder.passed,
    "DIV": _Decoder.arithmetic,
    "EXPAND_DIMS": _Decoder.reshape,
    "FULLY_CONNECTED": _Decoder.dense,
    "LOGISTIC": _Decoder.activation,
    "MAX_POOL_2D": _Decoder.pool,
    "MEAN": _Decoder.reduction,
    "MUL": _Decoder.arithmetic,
    "PAD": _Decoder.pad,
    "QUANTIZE": _Decoder.passed,
    "REDUCE_MAX": _Decoder.reduction,
    "RELU": _Decoder.activation,
    "RELU6": _Decoder.activation,
    "RESHAPE": _Decoder.reshape,
    "SOFTMAX": _Decoder.activation,
    "SQUEEZE": _Decoder.reshape,
    "SUB": _Decoder.arithmetic,
    "TANH": _Decoder.activation,
}


def _check(network: Network) -> None:
    """Raises with everything that can be told before the first layer is made."""
    found = list(network.file_problems)
    if len(network.inputs) > 1 or len(network.outputs) > 1:
        ends = f"{len(network.inputs)} inputs and {len(network.outputs)} outputs"
        found.append(f"it has {ends}, not one of each")
    source, scores = network.input.shape, network.output.shape
    if len(source) != 4 or source[-1] not in (1, 3):
        found.append(f"its input of shape {source} takes no image")
    if max(scores, default=1) != int(np.prod(scores)):
        found.append(f"its output of shape {scores} is no list of scores")
    kinds = {op.kind for op in network.ops} - _LAYERS.keys() - _SHAPES
    found += [f"the operator {kind} has no Keras layer here" for kind in sorted(kinds)]
    if found:
        raise unsupported("; ".join(found))


def _with_weights(layer: Any, source: Any, *weights: np.ndarray) -> Any:
    output = layer(source)
    layer.set_weights(list(weights))
    return output
