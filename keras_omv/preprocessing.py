"""The camera's pixels in TensorFlow: a function for tf.data and a Keras layer.

Both do what `camera.see` does, bit for bit, so that a model trains on the pixels that
it will get. The numbers are whole and below 2**24, so float32 holds them exactly and
the result is the same in eager mode, in a graph and compiled by XLA.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_omv.camera import (
    GREY_SHIFT,
    GREY_WEIGHT_BITS,
    GREY_WEIGHTS,
    RGB565_BITS,
    RGB565_WEIGHT_BITS,
    Size,
    as_size,
    check_channels,
)

_RGB565_STEPS = 2.0 ** (8 - RGB565_BITS.astype("float32"))
"""Grey levels of 8 bits to one of RGB565."""


def camera_view(
    resolution: int | Size, *, channels: int = 3, dtype: str = "float32"
) -> Callable[..., Any]:
    """Return a function for `dataset.map` that shows images as the camera will.

    Example:
        >>> images = np.zeros((4, 120, 160, 3), np.uint8)
        >>> labels = np.arange(4)
        >>> train = tf.data.Dataset.from_tensor_slices((images, labels))
        >>> train = train.map(omv.camera_view(96)).batch(2)
        >>> train.element_spec[0].shape
        TensorShape([None, 96, 96, 3])

    Args:
        resolution: Pixels of each side of the model's input, or `(height, width)`.
        channels: Channels of the model's input: 3 for colour, 1 for grey.
        dtype: `"float32"`, or `"uint8"`, which caches in a quarter of the memory.

    Returns:
        A function of images, or of images and what belongs to them (labels, sample
        weights), which it passes on. Images have the shape
        `(height, width, c)` or `(batch, height, width, c)` with 3 or 1 channels, any
        size and pixels from 0 to 255; floats are rounded. The largest part of the
        model's shape is cut from the middle, as main.py does. The result has the
        shape `(..., *resolution, channels)` and whole numbers from 0 to 255.

    Raises:
        ValueError: If an argument is out of range, here or for the images' shape.
    """
    size = as_size(resolution)
    check_channels(channels)
    if dtype not in ("float32", "uint8"):
        raise ValueError(
            f"Invalid value for argument `dtype`. Expected: float32 or uint8. "
            f"Received: {dtype!r}."
        )

    def view(images: Any, *others: Any) -> Any:
        seen = tf.cast(_see(images, size, channels), dtype)
        return (seen, *others) if others else seen

    return view


@keras.saving.register_keras_serializable(package="keras_omv")
class CameraView(keras.layers.Layer):
    """Shows images as the camera will, in training and at inference alike.

    Does what `camera_view` does, as a preprocessing layer. It has no weights and no
    gradient.

    Example:
        >>> layer = omv.CameraView(96)
        >>> layer(np.zeros((2, 240, 320, 3), np.uint8)).shape
        TensorShape([2, 96, 96, 3])

    Args:
        resolution: Pixels of each side of the model's input, or `(height, width)`.
        channels: Channels of the result: 3 for colour, 1 for grey.
        **kwargs: As for every layer; `dtype="uint8"` gives whole numbers of that type.

    Input shape:
        `(height, width, c)` or `(batch, height, width, c)`; 3 or 1 channels, pixels
        from 0 to 255.

    Output shape:
        `(..., *resolution, channels)`, whole numbers from 0 to 255.

    Raises:
        ValueError: If an argument is out of range, here or for the images' shape.
    """

    def __init__(
        self, resolution: int | Size, channels: int = 3, **kwargs: Any
    ) -> None:
        # Half precision would round the images before the layer sees them.
        super().__init__(**{"autocast": False, **kwargs})
        as_size(resolution)
        check_channels(channels)
        self.resolution = resolution
        self.channels = channels

    def call(self, inputs: Any) -> Any:
        seen = _see(inputs, as_size(self.resolution), self.channels)
        return tf.cast(seen, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-3], *as_size(self.resolution), self.channels)

    def get_config(self) -> dict[str, Any]:
        config = {"resolution": self.resolution, "channels": self.channels}
        return {**super().get_config(), **config}


def _see(images: Any, size: Size, channels: int) -> tf.Tensor:
    """`camera.see` of a tensor of any number type, as float32."""
    images = tf.stop_gradient(tf.convert_to_tensor(images))
    _check_shape(images.shape)
    if channels == 1:
        return _resize(images, size, _to_grey, GREY_WEIGHT_BITS)
    return _from_rgb565(_resize(images, size, _to_rgb565, RGB565_WEIGHT_BITS))


def _check_shape(shape: tf.TensorShape) -> None:
    if shape.rank not in (3, 4) or shape[-1] not in (1, 3):
        raise ValueError(
            "Expected images of shape (height, width, channels) or (batch, height, "
            f"width, channels) with 1 or 3 channels. Received: shape {shape}. Where "
            "the shape is unknown, set it with tf.ensure_shape."
        )


def _pixels(images: tf.Tensor) -> tf.Tensor:
    if not images.dtype.is_floating:
        return tf.cast(images, tf.float32)
    return tf.clip_by_value(tf.round(tf.cast(images, tf.float32)), 0.0, 255.0)


def _to_grey(images: tf.Tensor) -> tf.Tensor:
    if images.shape[-1] == 1:
        return _pixels(images)
    weights = tf.constant(GREY_WEIGHTS, tf.float32)
    total = tf.reduce_sum(_pixels(images) * weights, axis=-1, keepdims=True)
    return tf.floor(total / 2**GREY_SHIFT)


def _to_rgb565(images: tf.Tensor) -> tf.Tensor:
    return tf.floor(_pixels(images) / _RGB565_STEPS)


def _from_rgb565(levels: tf.Tensor) -> tf.Tensor:
    pixels = levels * _RGB565_STEPS
    return pixels + tf.floor(pixels * _RGB565_STEPS / 256)  # the top bits fill up


def _resize(
    images: tf.Tensor,
    size: Size,
    convert: Callable[[tf.Tensor], tf.Tensor],
    weight_bits: int,
) -> tf.Tensor:
    """`camera.resize_bilinear` of the converted window in the middle of images.

    Only the pixels that are read are converted.
    """
    frame = tf.unstack(tf.shape(images, tf.int64)[-3:-1])
    window = _window_size(frame, size)
    is_same = (window[0] == size[0]) & (window[1] == size[1])
    is_nearest = is_same | (tf.minimum(*window) <= 1)
    rows, columns = (
        _sample_points(extent, side, resolution, weight_bits, is_nearest)
        for extent, side, resolution in zip(frame, window, size, strict=True)
    )
    above = tf.gather(images, rows.first, axis=-3)
    below = tf.gather(images, rows.second, axis=-3)
    left, right = (
        _mix(
            convert(tf.gather(above, column, axis=-2)),
            convert(tf.gather(below, column, axis=-2)),
            rows.weights[:, tf.newaxis, tf.newaxis],
            weight_bits,
        )
        for column in (columns.first, columns.second)
    )
    return _mix(left, right, columns.weights[:, tf.newaxis], weight_bits)


def _window_size(frame: Sequence[tf.Tensor], shape: Size) -> Sequence[tf.Tensor]:
    """As `camera.window_size`."""
    (frame_height, frame_width), (height, width) = frame, shape
    return (
        tf.maximum(tf.minimum(frame_height, frame_width * height // width), 1),
        tf.maximum(tf.minimum(frame_width, frame_height * width // height), 1),
    )


class _Points(NamedTuple):
    """Where the pixels of a row or column are read."""

    first: tf.Tensor
    second: tf.Tensor
    weights: tf.Tensor


def _sample_points(
    extent: tf.Tensor,
    side: tf.Tensor,
    resolution: int,
    weight_bits: int,
    is_nearest: tf.Tensor,
) -> _Points:
    """As `camera.sample_points`, of the side in the middle of an extent.

    Quotients are taken in float64 and then rounded to float32, which gives the same
    as a correct division in float32; on GPUs that one may be approximate.
    """
    scale = _rounded(resolution / tf.cast(side, tf.float64))
    step = tf.cast(tf.floor(_rounded(65536.0 / scale)), tf.int64)
    positions = tf.range(resolution, dtype=tf.int64) * step
    interpolates = tf.cast(~is_nearest, tf.int64)
    positions -= 32768 * interpolates
    first = positions // 65536
    weights = positions // 2 ** (16 - weight_bits) % 2**weight_bits
    start = (extent - side) // 2
    return _Points(
        start + tf.clip_by_value(first, 0, side - 1),
        start + tf.clip_by_value(first + 1, 0, side - 1),
        tf.cast(weights * interpolates, tf.float32),
    )


def _rounded(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(value, tf.float32), tf.float64)


def _mix(
    first: tf.Tensor, second: tf.Tensor, weights: tf.Tensor, weight_bits: int
) -> tf.Tensor:
    whole = 2.0**weight_bits
    total = first * (whole - weights) + second * weights + whole / 2
    return tf.floor(total / whole)
