"""Layers that round activations and pixels to int8 steps during training."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_omv.averaging import ActivationRange, check_momentum, kept_share
from keras_omv.scales import (
    INT8_MIN,
    Quantization,
    pixel_quantization,
    pixel_zero_point,
)


@keras.saving.register_keras_serializable(package="keras_omv")
class FakeQuantize(keras.layers.Layer, ActivationRange):
    """Rounds an activation to 256 levels over a range that training learns.

    In training steps the range follows the extremes of the batches: their mean at
    first, then an exponential moving average. Validation and inference leave it
    alone, and so does training once `frozen` is set. The shape of the input,
    such as `(batch, height, width, channels)`, is kept.

    Args:
        momentum: Share of the old range that a training step keeps once
            1 / (1 - momentum) steps have been averaged. Defaults to `0.99`.
        **kwargs: Of `keras.layers.Layer`.

    Raises:
        ValueError: If `momentum` is not in [0, 1).

    Example:

    >>> layer = FakeQuantize()
    >>> _ = layer(np.array([[-1.0, 2.0]], "float32"), training=True)
    >>> float(layer.maximum.numpy())
    2.0
    """

    def __init__(self, *, momentum: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_momentum(momentum)
        self.momentum = momentum

    def build(self, input_shape: Any) -> None:
        self.minimum = self._state("minimum")
        self.maximum = self._state("maximum")
        self.observations = self._state("observations")
        self.frozen = self._state("frozen")
        super().build(input_shape)

    def _state(self, name: str) -> Any:
        return self.add_weight(
            name=name, shape=(), initializer="zeros", trainable=False
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if training:
            keep = kept_share(self.observations, self.frozen, self.momentum)
            self.follow(inputs, keep)
            self.observations.assign_add(1.0)
        return self.round(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum}


@keras.saving.register_keras_serializable(package="keras_omv")
class PixelQuantize(keras.layers.Layer):
    """Rounds a preprocessed image to what the camera's pixels can be.

    Args:
        input_range: The values `(low, high)` that pixels 0 and 255 have where they
            enter the model: usually `(0, 255)`, `(0, 1)` or `(-1, 1)`. Defaults to
            `None`: taken from the first training batch.
        scale: With `offset`, what the model's own rescaling makes of a value x
            before it comes here: `scale * x + offset`. Defaults to `1.0`.
        offset: See `scale`. Defaults to `0.0`.
        **kwargs: Of `keras.layers.Layer`.

    Raises:
        ValueError: If `scale` is not positive or `input_range` is empty.
    """

    def __init__(
        self,
        *,
        input_range: tuple[float, float] | None = None,
        scale: float = 1.0,
        offset: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not scale > 0:
            raise ValueError(
                "Invalid value received for argument `scale`. Expected a positive "
                f"number. Received: scale={scale}"
            )
        if input_range is not None and not input_range[0] < input_range[1]:
            raise ValueError(
                "Invalid value received for argument `input_range`. Expected the "
                "values (low, high) of pixels 0 and 255, such as (0, 255). "
                f"Received: input_range={input_range}"
            )
        self.input_range = input_range
        self.scale = scale
        self.offset = offset

    def build(self, input_shape: Any) -> None:
        low, high = self.input_range or (0.0, 0.0)
        self.low = self._state("low", low)
        self.high = self._state("high", high)
        super().build(input_shape)

    def _state(self, name: str, value: float) -> Any:
        initializer = keras.initializers.Constant(value)
        return self.add_weight(
            name=name, shape=(), initializer=initializer, trainable=False
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if training and self.input_range is None:
            self.detect(inputs)
        return self.steps(inputs) * self.quantization_tensors().scale

    def steps(self, inputs: Any) -> Any:
        """The int8 pixels of an image, less their zero point, as float32."""
        scale, offset = (tf.cast(x, tf.float32) for x in self._affine())
        pixels = tf.clip_by_value(tf.round((inputs - offset) / scale), 0.0, 255.0)
        return pixels + (float(INT8_MIN) - self.quantization_tensors().zero_point)

    def quantization_tensors(self) -> Quantization:
        """Scale and zero point of the network's input, for use in a graph."""
        scale, offset = self._affine()
        zero_point = tf.floor(pixel_zero_point(scale, offset))
        return Quantization(tf.cast(scale, tf.float32), tf.cast(zero_point, tf.float32))

    def _affine(self) -> tuple[Any, Any]:
        """What pixel p becomes, scale * p + offset, in float64 as in the file."""
        low, high = (tf.cast(x, tf.float64) for x in (self.low, self.high))
        return (high - low) / 255 * self.scale, low * self.scale + self.offset

    def detect(self, inputs: Any) -> None:
        """Takes the range from a batch, unless one is known already."""
        values = (inputs - self.offset) / self.scale
        smallest, largest = tf.reduce_min(values), tf.reduce_max(values)
        signed = smallest < -0.5
        low = tf.where(signed, -1.0, 0.0)
        high = tf.where(largest > 2.0, 255.0, 1.0)
        unknown = tf.equal(self.low, self.high)
        # (-1, 255) stands for values that no preprocessing in use gives.
        self.low.assign(tf.where(unknown, low, self.low))
        self.high.assign(tf.where(unknown, high, self.high))

    @property
    def range(self) -> tuple[float, float] | None:
        """The range `(low, high)` in use, `None` before the first batch.

        Raises:
            ValueError: If the first batch had values that fit no usual range.
        """
        low, high = float(self.low.numpy()), float(self.high.numpy())
        if low == high:
            return None
        if self.input_range is None and (low, high) == (-1.0, 255.0):
            raise ValueError(
                "Expected images with pixels in [0, 255], [0, 1] or [-1, 1]. "
                "Received: values below -0.5 and above 2. Pass input_range=(low, "
                "high), what pixels 0 and 255 become; a mean and deviation per "
                "channel belong into a Normalization layer in the model."
            )
        return low, high

    @property
    def quantization(self) -> tuple[np.float32, int]:
        """Scale and zero point of the network's input tensor."""
        low, high = self.range or (0.0, 255.0)
        scale = (high - low) / 255 * self.scale
        return pixel_quantization(scale, low * self.scale + self.offset)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config = {
            "input_range": self.input_range,
            "scale": self.scale,
            "offset": self.offset,
        }
        return {**super().get_config(), **config}
