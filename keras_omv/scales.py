"""Scales and zero points of int8 tensors: of pixels, activations and weights.

Weights are symmetric: q = round(w / scale), scale = max|w| / 127, per output
channel, for dense layers per tensor. Activations are asymmetric on 256 levels
that include zero.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from keras_omv.errors import UnsupportedModelError

INT8_MIN, INT8_MAX = -128, 127


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Quantization:
    """How a tensor's int8 values q stand for real ones: (q - zero_point) * scale.

    Attributes:
        scale: Float32, a number or a tensor of one.
        zero_point: A whole number in -128..127, likewise.
    """

    scale: Any
    zero_point: Any


def pixel_quantization(scale: float, offset: float) -> tuple[np.float32, int]:
    """The input quantization that makes camera pixel p the int8 value p - 128.

    The firmware feeds pixel - 128 whatever the model's input scale is
    (py_image.c, releases 4.0 to 5.0), so this one is the only correct one.

    Args:
        scale: With `offset`, what the preprocessing makes of pixel p:
            `scale * p + offset`.
        offset: See `scale`.

    Returns:
        Scale and zero point of the input tensor. For [-1, 1] the exact zero point
        is -0.5; it becomes -1, and the network sees half a grey level less.

    Raises:
        UnsupportedModelError: If 0, the value of padding, is no pixel's value.
    """
    zero_point = int(np.floor(pixel_zero_point(scale, offset)))
    if not INT8_MIN <= zero_point <= INT8_MAX:
        raise UnsupportedModelError(
            "Expected preprocessing that makes some grey level 0, the value that "
            "padding has. Received: pixels 0 to 255 become "
            f"{offset:g} to {255 * scale + offset:g}. Rescale to [0, 1] or [-1, 1]."
        )
    return np.float32(scale), zero_point


def pixel_zero_point(scale: Any, offset: Any) -> Any:
    """The zero point of `pixel_quantization` before it is rounded down."""
    # Just below a half, so that halves fall the same way in float32 and float64.
    return INT8_MIN - offset / scale + 0.499


def activation_quantization(low: float, high: float) -> tuple[np.float32, int]:
    """Scale and zero point of an activation range, as TensorFlow nudges it.

    Args:
        low: Lower end of the range, at most 0.
        high: Upper end of the range, at least 0.

    Returns:
        The scale and the zero point in -128..127 that represent 0 exactly.

    Reference:
        `Nudge` in tensorflow/core/kernels/fake_quant_ops_functor.h, float32.
    """
    low32, high32 = np.float32(low), np.float32(high)
    scale = np.float32((high32 - low32) / np.float32(255))
    zero_point = np.float32(0) - low32 / scale
    nudged = int(np.clip(np.floor(zero_point + np.float32(0.5)), 0, 255))
    return scale, nudged + INT8_MIN


def range_quantization(low: Any, high: Any) -> Quantization:
    """The same as `activation_quantization`, on tensors."""
    scale = divide(high - low, 255)
    nudged = tf.clip_by_value(tf.floor(0.5 - low / scale), 0.0, 255.0)
    return Quantization(scale, nudged + float(INT8_MIN))


def weight_quantization(kernel: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """Int8 weights and their scales.

    Args:
        kernel: Float32 weights.
        axes: The axes that share a scale.

    Returns:
        Whole numbers -127 to 127 of the kernel's shape and scales with `axes` kept
        as 1, float32 tensors both. A channel of zeros has scale 0.
    """
    kernel = tf.convert_to_tensor(kernel)
    scales = divide(tf.reduce_max(tf.abs(kernel), axis=axes, keepdims=True), INT8_MAX)
    return tf.round(tf.math.divide_no_nan(kernel, scales)), scales


def kernel_axes(kind: str, *, per_channel: bool) -> tuple[int, ...]:
    """The axes of a kernel that share a scale, by the kind of its step."""
    if kind == "conv":
        return (0, 1, 2)
    if kind == "depthwise":
        return (0, 1)
    return (0,) if per_channel else (0, 1)


def fake_quantize_kernel(kernel: Any, axes: tuple[int, ...]) -> Any:
    """Rounds a kernel to int8 steps, with the gradient passed straight through.

    Args:
        kernel: Float32 weights.
        axes: The axes that share a scale.

    Returns:
        A tensor of the kernel's shape whose zeros are where the kernel's are.
    """
    kernel = tf.convert_to_tensor(kernel)
    values, scales = weight_quantization(tf.stop_gradient(kernel), axes)
    return kernel + tf.stop_gradient(values * scales - kernel)


def divide(values: Any, number: int) -> Any:
    """Divides float32 values by a whole number, to the last bit.

    A compiled graph multiplies by the reciprocal instead, which in float64 is
    still exact enough to round to the same float32.
    """
    return tf.cast(tf.cast(values, tf.float64) / number, tf.float32)
