"""TFLM's int8 arithmetic, for whole batches in TensorFlow.

Whole numbers are held in floats: int8 values less their zero point in float32, sums
and what becomes of them in float64, which TensorFlow computes faster than integers.
Nothing is lost for sums below 2^22; beyond, a result could differ that lies within
2^-40 of a step from where the rounding turns.

TFLM scales a sum x by a factor that it keeps as a 31-bit multiplier and a shift,
and rounds twice: floor(x * multiplier / 2^31 + 1/2), then a division by 2^-shift
whose halves go away from 0. The first rounding is seen only by numbers close to
the second's halves, so that both are one: floor(x * factor + 1/2 +- 2^(shift - 1)),
with the sign of x, where shift < 0, and floor(x * factor + 1/2) elsewhere.

Reference:
    tensorflow/lite/kernels/internal/common.cc (MultiplyByQuantizedMultiplier, with
    double rounding, as TFLM and CMSIS-NN are built for the camera) and
    quantization_util.cc (QuantizeMultiplier), tflite-micro of August 2026.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_omv.scales import INT8_MAX, INT8_MIN, Quantization

# Of a float64: bits below the 31 that a multiplier keeps, and the exponent's.
_DROPPED_BITS = 22
_EXPONENT_BITS = 0x7FF << 52
# ADD shifts its inputs left by 20 bits (micro/kernels/add_common.cc).
_ADD_HEADROOM = 2.0**20
# Float32 means of up to 2,500 steps err by less, and differ by more from halves.
_HALF_MARGIN = 1e-4


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """A factor as TFLM has it, float64 tensors.

    Attributes:
        value: Multiplier times 2^(shift - 31).
        beyond_half: 2^(shift - 1) where shift < 0, else 0.
    """

    value: Any
    beyond_half: Any


def factor(real: Any) -> Factor:
    """Rounds a positive float64 factor to 31 bits, halves upwards."""
    bits = tf.bitcast(real, tf.int64) + (1 << (_DROPPED_BITS - 1))
    kept = tf.bitwise.bitwise_and(bits, -(1 << _DROPPED_BITS))
    value = tf.bitcast(kept, tf.float64)
    return Factor(value, _beyond_half(_leading_bit(value)))


def mean_factor(real: Any, count: int) -> Factor:
    """The factor by which MEAN scales the sum of `count` values.

    Reference:
        QuantizedMeanOrSum, tensorflow/lite/kernels/internal/reference/reduce.h.
    """
    scaled = factor(real).value
    leading = _leading_bit(scaled)
    unit = leading * 2.0**-30
    widening = 2.0 ** (count.bit_length() - 1)
    multiplier = tf.floor(scaled / unit * widening / count)
    return Factor(multiplier * unit / widening, _beyond_half(leading / widening))


def _leading_bit(value: Any) -> Any:
    """The largest power of two that is not above a value."""
    bits = tf.bitwise.bitwise_and(tf.bitcast(value, tf.int64), _EXPONENT_BITS)
    return tf.bitcast(bits, tf.float64)


def _beyond_half(leading_bit: Any) -> Any:
    return tf.where(leading_bit < 0.5, leading_bit, 0.0)


def scale_sums(sums: Any, by: Factor, bias: Any = 0.0, *, signed: bool = True) -> Any:
    """Scales whole numbers and rounds the results as TFLM does.

    Args:
        sums: Whole numbers, float32 or float64.
        by: For all of them, or of the shape of the last axis.
        bias: Whole numbers to add first, float64, of the shape of the last axis.
        signed: Whether negative results matter. Where a ReLU makes them 0 anyway,
            that saves time.

    Returns:
        Whole numbers as float64.
    """
    sums = tf.cast(sums, tf.float64)
    # The bias is scaled apart, which saves a pass over all sums.
    if not signed:
        return tf.floor(sums * by.value + (bias * by.value + 0.5 + by.beyond_half))
    sums = sums + bias
    return tf.floor(sums * by.value + (0.5 + tf.sign(sums) * by.beyond_half))


def saturate(values: Any, output: Quantization, activation: str = "linear") -> Any:
    """Cuts results, less the zero point, to int8 and to the activation's range.

    Reference:
        CalculateActivationRangeQuantized, tensorflow/lite/kernels/kernel_util.cc.
    """
    low, high = INT8_MIN - output.zero_point, INT8_MAX - output.zero_point
    if activation != "linear":
        low = 0.0
    if activation == "relu6":
        six = tf.floor(tf.cast(6.0 / output.scale, tf.float64) + 0.5)
        high = tf.minimum(high, tf.cast(six, tf.float32))
    return tf.clip_by_value(tf.cast(values, tf.float32), low, high)


def requantize(values: Any, real: Any, output: Quantization) -> Any:
    """QUANTIZE of int8 values to another scale; `real` is the scales' ratio."""
    return saturate(scale_sums(values, factor(real)), output)


def add(
    values: Sequence[Any],
    scales: Sequence[Any],
    output: Quantization,
    activation: str,
) -> Any:
    """ADD of two values, whose scales are `scales`.

    Reference:
        AddFunc, tensorflow/lite/kernels/internal/reference/integer_ops/add.h.
    """
    widest = 2 * tf.maximum(double(scales[0]), double(scales[1]))
    total = sum(
        scale_sums(value * _ADD_HEADROOM, factor(double(scale) / widest))
        for value, scale in zip(values, scales, strict=True)
    )
    by = factor(widest / (_ADD_HEADROOM * double(output.scale)))
    return saturate(scale_sums(total, by), output, activation)


def mean(values: Any, shape: tuple[int, ...], real: Any, output: Quantization) -> Any:
    """MEAN over height and width; `real` is the ratio of the scales."""
    count = math.prod(values.shape[1:3])
    total = tf.reduce_sum(tf.cast(values, tf.float64), axis=(1, 2))
    result = saturate(scale_sums(total, mean_factor(real, count)), output)
    return tf.reshape(result, (-1, *shape))


def round_average(averages: Any, output: Quantization) -> Any:
    """AVERAGE_POOL_2D's rounding: a half moves away from the int8 value 0.

    Args:
        averages: Means of int8 values less their zero point, float32.
        output: Of the averages, and of the values they are of.

    Reference:
        AveragePool, tensorflow/lite/kernels/internal/reference/integer_ops/pooling.h.
    """
    steps = averages + output.zero_point
    away = tf.sign(steps) * tf.floor(tf.abs(steps) + (0.5 + _HALF_MARGIN))
    return away - output.zero_point


def double(scale: Any) -> Any:
    """A scale in the precision in which TFLM computes factors."""
    return tf.cast(scale, tf.float64)
