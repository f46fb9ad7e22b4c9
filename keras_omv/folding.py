"""The int8 weights and int32 biases of a step, batch normalization folded in.

The int8 values are those of the unfolded kernel, as in training: a factor per
channel changes a channel's scale, not its rounding. Inference through the view and
the export take their weights from here, in float64, so that a compiled graph and a
plain call give the same bits.
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_omv.calls import layer_affine
from keras_omv.graph import Step
from keras_omv.scales import INT8_MAX, kernel_axes, weight_quantization

# A bias keeps one bit in reserve below int32's limit for the sum it starts.
_BIAS_LIMIT = 2.0**30
# Products below this share of an output step are too small to count.
_NEGLIGIBLE = 2.0**-20


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class IntegerWeights:
    """What a weighted operation of the file holds, as tensors.

    Attributes:
        kernel: Whole numbers -127 to 127, float32, of the step's kernel's shape; of
            an affine step `(1, 1, channels, 1)`.
        scales: Float32 of shape `(channels,)`, `(1,)` for a whole tensor.
        bias: Whole numbers of int32, float64 of shape `(channels,)`.
    """

    kernel: Any
    scales: Any
    bias: Any


def integer_weights(step: Step, source_scale: Any, output_scale: Any) -> IntegerWeights:
    """The weights of a convolution, a dense layer or an affine step.

    Args:
        step: Of kind `"conv"`, `"depthwise"`, `"dense"` or `"affine"`.
        source_scale: Scale of the input, float32.
        output_scale: Scale of the output, float32.
    """
    kernel, scales, bias = _affine(step) if step.kind == "affine" else _folded(step)
    source = tf.cast(source_scale, tf.float64)
    limits = tf.abs(bias) / (source * _BIAS_LIMIT)
    limits = limits if step.per_channel else tf.reduce_max(limits)
    floor = tf.maximum(limits, tf.cast(output_scale, tf.float64) / source * _NEGLIGIBLE)
    raised = tf.cast(tf.maximum(scales, floor), tf.float32)
    ratio = tf.cast(scales / tf.cast(raised, tf.float64), tf.float32)
    return IntegerWeights(
        kernel=tf.round(kernel * _along_kernel(step, kernel, ratio)),
        scales=raised,
        bias=tf.round(bias / tf.cast(source_scale * raised, tf.float64)),
    )


def _folded(step: Step) -> tuple[Any, Any, Any]:
    """Int8 kernel, float64 scales and real bias."""
    axes = kernel_axes(step.kind, per_channel=step.per_channel)
    kernel, scales = weight_quantization(step.kernel, axes)
    scales = tf.reshape(tf.cast(scales, tf.float64), (-1,))
    # A bias is written even where it is zero: LiteRT's optimized depthwise kernel
    # crashes without one.
    bias = tf.zeros(_channels(step), tf.float64)
    if step.bias is not None:
        bias = _float64(step.bias)
    if step.batch_norm is None:
        return kernel, scales, bias
    gain, offset = _normalization(step.batch_norm)
    signs = tf.cast(tf.where(gain < 0, -1.0, 1.0), tf.float32)
    kernel = kernel * _along_kernel(step, kernel, signs)
    return kernel, scales * tf.abs(gain), bias * gain + offset


def _affine(step: Step) -> tuple[Any, Any, Any]:
    """A scale and offset per channel, as a 1x1 depthwise convolution."""
    channels = step.shape[-1]
    if isinstance(step.layer, keras.layers.BatchNormalization):
        gain, offset = _normalization(step.layer)
    else:
        scale, shift = layer_affine(step.layer)
        gain = tf.broadcast_to(tf.cast(scale, tf.float64), (channels,))
        offset = tf.broadcast_to(tf.cast(shift, tf.float64), (channels,))
    kernel = tf.cast(tf.where(gain < 0, -INT8_MAX, INT8_MAX), tf.float32)
    return tf.reshape(kernel, (1, 1, channels, 1)), tf.abs(gain) / INT8_MAX, offset


def _normalization(layer: Any) -> tuple[Any, Any]:
    """What a `BatchNormalization` does at inference: a gain and an offset."""
    gain = 1 / tf.sqrt(_float64(layer.moving_variance) + layer.epsilon)
    if layer.gamma is not None:
        gain = gain * _float64(layer.gamma)
    offset = -_float64(layer.moving_mean) * gain
    if layer.beta is not None:
        offset = offset + _float64(layer.beta)
    return gain, offset


def _channels(step: Step) -> int:
    shape = step.kernel.shape
    return int(shape[-2] * shape[-1] if step.kind == "depthwise" else shape[-1])


def _along_kernel(step: Step, kernel: Any, values: Any) -> Any:
    """Values of the output channels, in a shape that multiplies a kernel."""
    depthwise = step.kind in ("depthwise", "affine")
    return tf.reshape(values, kernel.shape[2:]) if depthwise else values


def _float64(variable: Any) -> Any:
    return tf.cast(tf.convert_to_tensor(variable), tf.float64)
