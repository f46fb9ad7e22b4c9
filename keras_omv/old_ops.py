"""What the operations of an old .tflite file mean, as plain values for Keras.

Part of `keras_omv.old_tflite`. Imports no TensorFlow.
"""

from typing import Any

import numpy as np

from keras_omv.errors import UnsupportedModelError
from keras_omv.firmware import AGAIN
from keras_omv.network import Op, Tensor

_BYTES = {"int8": (-128, 127), "uint8": (0, 255)}
_ACTIVATIONS = {"NONE": "linear", "RELU": "relu", "RELU6": "relu6"}


def unsupported(what: str) -> UnsupportedModelError:
    """What to raise for a file that is not understood."""
    return UnsupportedModelError(
        f"Expected the .tflite file of an image classifier. Received: {what}. Next "
        f"step: {AGAIN}."
    )


def range_of_bytes(tensor: Tensor) -> tuple[float, float] | None:
    """The least and the greatest value that a tensor of bytes can stand for."""
    if tensor.dtype not in _BYTES or tensor.scales.size != 1:
        return None
    low, high = np.array(_BYTES[tensor.dtype]) - tensor.zero_points[0]
    return float(low * tensor.scales[0]), float(high * tensor.scales[0])


def convolution_options(op: Op) -> dict[str, Any]:
    """The arguments of a Keras convolution."""
    options = op.options
    return {
        "strides": (options["stride_h"], options["stride_w"]),
        "dilation_rate": (options["dilation_h"], options["dilation_w"]),
        "padding": options["padding"].lower(),
        "activation": activation_of(op),
    }


def activation_of(op: Op) -> str:
    """The activation within an operation, by Keras' name."""
    name = op.options.get("activation", "NONE")
    if name not in _ACTIVATIONS:
        raise unsupported(f"{op.kind} has the activation {name}")
    return _ACTIVATIONS[name]


def affine(kind: str, constant: np.ndarray, number_first: bool) -> tuple[Any, Any]:
    """Scale and offset of arithmetic with constants."""
    if kind == "DIV" and number_first:
        raise unsupported("DIV has a constant above the line")
    if kind == "DIV" and not constant.all():
        raise unsupported("DIV is by zero")
    one, zero = np.ones_like(constant), np.zeros_like(constant)
    scale, offset = {
        "ADD": (one, constant),
        "SUB": (-one, constant) if number_first else (one, -constant),
        "MUL": (constant, zero),
        "DIV": (1 / np.where(constant, constant, 1), zero),
    }[kind]
    if constant.size == 1:
        return float(scale[0]), float(offset[0])
    return scale.tolist(), offset.tolist()
