"""Activation ranges, and how ranges and statistics follow the training batches.

The gradient of rounding is taken as 1 inside an activation's range (straight-through
estimator, Bengio et al. 2013, arXiv:1308.3432), as in Jacob et al. 2018
(arXiv:1712.05877).
"""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_omv.scales import (
    INT8_MIN,
    Quantization,
    activation_quantization,
    range_quantization,
)

# The narrowest activation range. TFLM aborts where a scale underflows.
MINIMUM_RANGE = 1e-3
# In steps: more than float32 errs about a half, less than means of windows differ.
_HALF_MARGIN = 1e-3


def kept_share(observations: Any, frozen: Any, momentum: float) -> Any:
    """Which share of an old average a batch leaves: the rest is the batch's own.

    Args:
        observations: How many batches were averaged before.
        frozen: Whether nothing moves, a number or a boolean.
        momentum: The share once 1 / (1 - momentum) batches have been averaged.

    Returns:
        A float32 tensor: what makes an average a mean at first, then an exponential
        moving average.
    """
    seen = tf.convert_to_tensor(observations)
    keep = tf.minimum(momentum, seen / (seen + 1.0))
    return tf.where(tf.cast(frozen, tf.bool), 1.0, keep)


def check_momentum(momentum: float) -> None:
    """Raises a `ValueError` for a momentum with which nothing settles."""
    if not 0 <= momentum < 1:
        raise ValueError(
            "Invalid value received for argument `momentum`. Expected a number "
            f"in [0, 1). Received: momentum={momentum}"
        )


class MovingAverage:
    """How far averages move with each training batch.

    The state is in variables: what a compiled step does can change without a retrace.

    Args:
        momentum: See `kept_share`.

    Raises:
        ValueError: If `momentum` is not in [0, 1).
    """

    def __init__(self, momentum: float) -> None:
        check_momentum(momentum)
        self._momentum = momentum
        self._observations = tf.Variable(0.0, trainable=False)
        self.frozen = tf.Variable(False, trainable=False)

    def restart(self) -> None:
        """Forgets all batches: the next is taken as it is."""
        self._observations.assign(0.0)

    def next_batch(self) -> Any:
        """Counts a batch; gives the share of the old averages that it leaves."""
        keep = kept_share(self._observations, self.frozen, self._momentum)
        self._observations.assign_add(1.0)
        return keep


class ActivationRange:
    """The range of an activation, with 0 inside; who inherits has the variables.

    Attributes:
        minimum: Scalar variable of the lower end.
        maximum: Scalar variable of the upper end.
    """

    minimum: Any
    maximum: Any

    def follow(self, inputs: Any, keep: Any) -> None:
        """Moves the range towards the extremes of a training batch.

        Args:
            inputs: The activation.
            keep: The share of the old range that stays.
        """
        self._move(*_extremes(inputs), keep)

    def rectify(self, inputs: Any, limit: float, keep: Any) -> Any:
        """A ReLU in a training step, and the rounding of what it gives, in one.

        Args:
            inputs: What enters the ReLU.
            limit: Where it ends: 6 for a ReLU6, infinity for a plain one.
            keep: The share of the old range that stays.
        """
        # The range begins at 0 and ends at the limit or before: rounding clips.
        highest = tf.clip_by_value(tf.reduce_max(inputs), 0.0, limit)
        self._move(0.0, highest, keep)
        return _fake_quantize(inputs, None, self._high())

    def _move(self, low: Any, high: Any, keep: Any) -> None:
        self.minimum.assign(keep * self.minimum + (1.0 - keep) * low)
        self.maximum.assign(keep * self.maximum + (1.0 - keep) * high)

    def widen(self, inputs: Any) -> None:
        """Takes the extremes of a calibration batch into the range."""
        low, high = _extremes(inputs)
        self.minimum.assign(tf.minimum(self.minimum, low))
        self.maximum.assign(tf.maximum(self.maximum, high))

    def round(self, inputs: Any) -> Any:
        """Rounds to the 256 levels of the range as it is."""
        return _fake_quantize(inputs, tf.convert_to_tensor(self.minimum), self._high())

    def round_average(self, inputs: Any) -> Any:
        """Rounds as AVERAGE_POOL_2D does: a half moves away from the int8 0."""
        scale = (self._high() - self.minimum) / 255.0
        zero_point = tf.floor(0.5 - self.minimum / scale) + float(INT8_MIN)
        halves = tf.sign(inputs + zero_point * scale) * (_HALF_MARGIN * scale)
        return self.round(inputs + halves)

    def _high(self) -> Any:
        return tf.maximum(self.maximum, self.minimum + MINIMUM_RANGE)

    def quantization_tensors(self) -> Quantization:
        """Scale and zero point of the range as it is, for use in a graph."""
        return range_quantization(tf.convert_to_tensor(self.minimum), self._high())

    @property
    def range(self) -> tuple[float, float]:
        """The range (low, high) as it is used, in the activation's unit."""
        low = self.minimum.numpy()
        high = np.maximum(self.maximum.numpy(), low + np.float32(MINIMUM_RANGE))
        return float(low), float(high)

    @property
    def quantization(self) -> tuple[np.float32, int]:
        """Scale and zero point of the range as it is used."""
        return activation_quantization(*self.range)


class ViewRange(ActivationRange):
    """A range of a quantized view: made faster than a Keras layer is."""

    def __init__(self) -> None:
        self.minimum = tf.Variable(0.0, trainable=False)
        self.maximum = tf.Variable(0.0, trainable=False)


def _fake_quantize(inputs: Any, low: Any, high: Any) -> Any:
    """Rounds to 256 levels; the gradient is 1 inside the range.

    TensorFlow's own gradient also sums those of both ends, which costs more than
    all the rest.

    Args:
        inputs: Float32 tensor.
        low: Lower end of the range, `None` for a constant 0.
        high: Upper end of the range.
    """

    def fake_quantize(x: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            # The mask of a ReLU6 is one vectorized pass, comparisons are four.
            above = x if low is None else x - low
            width = high if low is None else high - low
            return tf.raw_ops.Relu6Grad(
                gradients=upstream, features=above * (6.0 / width)
            )

        start = 0.0 if low is None else low
        return tf.quantization.fake_quant_with_min_max_vars(x, start, high), gradient

    return tf.custom_gradient(fake_quantize)(inputs)


def _extremes(inputs: Any) -> tuple[Any, Any]:
    """The smallest and largest value, with zero among them."""
    return (
        tf.minimum(tf.reduce_min(inputs), 0.0),
        tf.maximum(tf.reduce_max(inputs), 0.0),
    )
