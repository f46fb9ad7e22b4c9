"""Labelled images to measure accuracy on, taken from whatever holds them.

Images come as they enter the Keras model and are turned back into the pixels that a
camera has. Imports no TensorFlow.
"""

from typing import Any

import numpy as np

from keras_omv.errors import DatasetError
from keras_omv.sampling import spread_places

MOST_IMAGES = 20_000
"""How many images a dataset may give. At 96 px in colour they take 2.1 GiB as float32,
and TFLM about ten minutes at alpha 0.35."""
ENDLESS = -1
"""tf.data.INFINITE_CARDINALITY."""
_AT_ONCE = 256
"""Images turned into pixels together, so that no second copy of all is made."""


def gather(data: Any, *, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images and class numbers from a pair of arrays or a dataset of batches.

    Args:
        data: `(images, labels)`, or a tf.data dataset of batches of both, of at most
            `MOST_IMAGES` images. Labels are class numbers, or one-hot rows.
        limit: How many images are taken at most: of arrays, from all over them; of a
            dataset the first. Defaults to `None`: all.

    Returns:
        Images as they are and int64 labels of shape `(n,)`.

    Raises:
        DatasetError: If that is not what `data` is.
    """
    if hasattr(data, "as_numpy_iterator"):
        data = _take(data, limit)
    if not isinstance(data, tuple | list) or len(data) < 2:
        raise DatasetError(
            "Expected images and labels to measure accuracy on. Received: "
            f"{type(data).__name__}. Pass (images, labels) or a dataset of batches of "
            "both."
        )
    images, labels = np.asarray(data[0]), np.asarray(data[1])
    if len(images) != len(labels) or not len(images):
        raise DatasetError(
            "Expected as many labels as images, at least one. Received: "
            f"{len(images)} images and {len(labels)} labels. Check the data."
        )
    if limit is not None and len(images) > limit:
        chosen = spread_places(len(images), limit)
        images, labels = images[chosen], labels[chosen]
    if labels.ndim > 1 and labels.shape[-1] > 1:
        labels = np.argmax(labels, axis=-1)
    return images, labels.reshape(-1).astype("int64")


def check_labels(labels: np.ndarray, classes: int) -> None:
    """Checks that labels count the classes from 0.

    Raises:
        DatasetError: If they do not.
    """
    if labels.min() < 0 or labels.max() >= classes:
        raise DatasetError(
            f"Expected labels 0 to {classes - 1}. Received: {labels.min()} to "
            f"{labels.max()}. Count classes from 0, in the order of the class names."
        )


def check_pixels(images: np.ndarray, input_range: tuple[float, float]) -> None:
    """Checks that images are on a model's scale, as far as their values tell.

    Args:
        images: As they enter the model, `(n, height, width, channels)`.
        input_range: The values that pixels 0 and 255 have there. Values may be one
            grey level outside of it, as some resizing makes them.

    Raises:
        DatasetError: If values lie outside of the range or are no numbers, or if all
            are at most 1 where the model takes 0 to 255.
    """
    low, high = input_range
    level = (high - low) / 255
    darkest, brightest = float(np.min(images)), float(np.max(images))
    is_inside = low - level <= darkest and brightest <= high + level
    is_dark = (low, high) == (0, 255) and brightest <= 1
    if is_inside and not is_dark:
        return
    raise DatasetError(
        f"Expected evaluation images with pixels in [{low:g}, {high:g}]. Received: "
        f"values from {darkest:g} to {brightest:g}. Pass the images as they enter the "
        "model, scaled as those that it was trained on."
    )


def to_pixels(images: np.ndarray, input_range: tuple[float, float]) -> np.ndarray:
    """Images as they enter a model, turned back into camera pixels.

    Args:
        images: Shape `(n, height, width, channels)`.
        input_range: The values that pixels 0 and 255 have there.

    Returns:
        Uint8 array of the same shape.
    """
    low, high = input_range
    pixels = np.empty(images.shape, "uint8")
    for start in range(0, len(images), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        scaled = (np.asarray(images[part], "float32") - low) / (high - low) * 255
        pixels[part] = np.clip(np.rint(scaled), 0, 255)
    return pixels


def _take(dataset: Any, limit: int | None) -> tuple[np.ndarray, ...]:
    """The parts of a dataset's batches, up to a number of images."""
    if limit is None and int(dataset.cardinality()) == ENDLESS:
        raise DatasetError(
            "Expected a dataset that ends. Received: one that repeats for ever. "
            "Measure on it before .repeat(), or use .take(batches)."
        )
    batches: list[tuple[np.ndarray, ...]] = []
    count = 0
    for batch in dataset.as_numpy_iterator():
        batches.append(batch)
        count += len(batch[0])
        if limit is not None and count >= limit:
            break
        if count > MOST_IMAGES:
            raise DatasetError(
                f"Expected a dataset of at most {MOST_IMAGES:,} images. Received: one "
                "that gives more, or never ends. Use .take(batches)."
            )
    parts = zip(*batches, strict=True)
    return tuple(np.concatenate(part)[:limit] for part in parts)
