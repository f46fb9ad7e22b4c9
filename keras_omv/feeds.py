"""One dataset of images, fed at the resolution of each candidate.

The user gives images once, at their own size. Each resolution's images are scaled as
the camera scales its frames, once, and kept for the next candidate of that size.
"""

import collections
import os
import pathlib
import shutil
import tempfile
import weakref
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from keras_omv.errors import DatasetError
from keras_omv.preprocessing import camera_view
from keras_omv.progress import working
from keras_omv.sampling import spread_places

CACHE_LIMIT_BYTES = 1 << 30
"""Scaled images of more bytes than this are kept in files, not in memory."""


class Images(Protocol):
    """Labelled images at any resolution."""

    @property
    def count(self) -> int:
        """How many there are."""

    def at(self, resolution: int) -> tf.data.Dataset:
        """A dataset of single uint8 images of one resolution, and int64 labels."""

    def arrays(self, resolution: int, limit: int | None = None) -> Any:
        """Images and labels as arrays; of a number of images, from all over them."""


class Feed:
    """Labelled images at any resolution, as the camera would see them.

    Args:
        data: A `tf.data.Dataset` of images and labels, batched or not, or a pair of
            arrays: images of shape `(n, height, width, channels)` and labels. Pixels
            are in [0, 255]; labels are whole numbers or one-hot vectors.
        classes: Labels are 0 to `classes - 1`.
        channels: What the candidates take: 1 for grey, 3 for RGB.
        cache_directory: For the files of scaled images, where they are many.

    Raises:
        DatasetError: If the dataset cannot be used as it is.
    """

    def __init__(
        self, data: Any, *, classes: int, channels: int, cache_directory: pathlib.Path
    ) -> None:
        self._channels = channels
        self._directory = cache_directory
        self._images = _single_images(data)
        self._files: str | None = None
        self._scaled: collections.OrderedDict[int, tf.data.Dataset] = (
            collections.OrderedDict()
        )
        _check_pixels(self._images)
        self.count = _check_labels(self._images, classes)

    def at(self, resolution: int) -> tf.data.Dataset:
        """The images of one resolution.

        Args:
            resolution: Height and width in pixels.

        Returns:
            A dataset of single images, uint8 of shape
            `(resolution, resolution, channels)`, and int64 labels. The first pass
            scales them, later ones find them scaled.
        """
        if resolution not in self._scaled:
            self._scaled[resolution] = self._scale(resolution)
            self._forget_oldest()
        self._scaled.move_to_end(resolution)
        return self._scaled[resolution]

    def arrays(self, resolution: int, limit: int | None = None) -> Any:
        """Images `(n, resolution, resolution, channels)` and labels `(n,)` as arrays.

        Args:
            resolution: Height and width in pixels.
            limit: How many images are taken at most, from all over them. Defaults
                to `None`: all.
        """
        places = spread_places(self.count, self.count if limit is None else limit)
        parts, seen = [], 0
        # To the end, also where few are wanted: a cache that was not filled to the
        # end is thrown away.
        with working(f"Scaling images to {resolution} px"):
            for images, labels in self.at(resolution).batch(256).as_numpy_iterator():
                here = places[(places >= seen) & (places < seen + len(labels))] - seen
                parts.append((images[here], labels[here]))
                seen += len(labels)
        images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
        return images, labels

    def _scale(self, resolution: int) -> tf.data.Dataset:
        view = camera_view(resolution, channels=self._channels, dtype="uint8")
        scaled = self._images.map(
            lambda image, label: (view(image), _class_number(label)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        known = tf.data.experimental.assert_cardinality(self.count)
        return scaled.cache(self._file(resolution)).apply(known)

    def _size_bytes(self, resolution: int) -> int:
        return self.count * resolution**2 * self._channels

    def _forget_oldest(self) -> None:
        """Leave what fits in memory; what was dropped is scaled again when needed."""
        in_memory = [side for side in self._scaled if not self._needs_file(side)]
        while len(in_memory) > 1 and (
            sum(map(self._size_bytes, in_memory)) > CACHE_LIMIT_BYTES
        ):
            del self._scaled[in_memory.pop(0)]

    def _needs_file(self, resolution: int) -> bool:
        return self._size_bytes(resolution) > CACHE_LIMIT_BYTES

    def _file(self, resolution: int) -> str:
        if not self._needs_file(resolution):
            return ""  # In memory.
        if self._files is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._files = tempfile.mkdtemp(dir=self._directory)
            weakref.finalize(self, shutil.rmtree, self._files, ignore_errors=True)
        return os.path.join(self._files, f"{resolution}px")


def _single_images(data: Any) -> tf.data.Dataset:
    """A dataset of single images and labels from whatever Keras' `fit` takes."""
    if isinstance(data, tf.data.Dataset):
        return _unbatched(data)
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise DatasetError(
            f"Expected images and labels. Received: {type(data).__name__}. Next step: "
            "pass a tf.data dataset of both, or (images, labels)."
        )
    images, labels = map(np.asarray, data)
    if images.ndim != 4 or len(images) != len(labels) or not len(images):
        raise DatasetError(
            "Expected images of shape (n, height, width, channels) and as many labels, "
            f"at least one. Received: images {images.shape}, labels {labels.shape}. "
            "Next step: look at how they are made."
        )
    return tf.data.Dataset.from_tensor_slices((images, labels))


def _unbatched(data: tf.data.Dataset) -> tf.data.Dataset:
    if int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise DatasetError(
            "Expected a dataset that ends. Received: one that repeats for ever. Next "
            "step: pass it as it was before .repeat()."
        )
    spec = data.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2:
        raise DatasetError(
            f"Expected a dataset of images and labels. Received: elements of {spec}. "
            "Next step: dataset.map(lambda ...: (image, label))."
        )
    rank = spec[0].shape.rank
    if rank not in (3, 4):
        raise DatasetError(
            "Expected images of shape (height, width, channels), or batches of them. "
            f"Received: elements of shape {spec[0].shape}. Next step: set their shape."
        )
    data = data.map(lambda image, label, *_: (image, label))
    return data if rank == 3 else data.unbatch()


def _check_pixels(images: tf.data.Dataset) -> None:
    brightest = max(
        (float(np.max(image)) for image, _ in images.take(64).as_numpy_iterator()),
        default=255.0,
    )
    if brightest <= 1:
        raise DatasetError(
            "Expected pixels in [0, 255], as the camera has them. Received: no pixel "
            f"above {brightest:g} in the first images. Next step: leave out the "
            "division by 255; the model rescales."
        )


def _check_labels(images: tf.data.Dataset, classes: int) -> int:
    """Return how many there are."""
    numbers = images.map(lambda image, label: _class_number(label)).batch(1024)
    with working("Reading images"):
        found = list(numbers.as_numpy_iterator())
    if not found:
        raise DatasetError(
            "Expected some images. Received: an empty dataset. Next step: look at how "
            "it is made."
        )
    labels = np.concatenate(found)
    if labels.min() < 0 or labels.max() >= classes:
        raise DatasetError(
            f"Expected labels 0 to {classes - 1}. Received: {labels.min()} to "
            f"{labels.max()}. Next step: count classes from 0, and check `classes`."
        )
    return len(labels)


def _class_number(label: Any) -> Any:
    if label.shape.rank and label.shape[-1] != 1:
        return tf.argmax(label, axis=-1, output_type=tf.int64)
    return tf.cast(tf.reshape(label, []), tf.int64)
