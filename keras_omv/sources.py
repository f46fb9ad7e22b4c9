"""What a search was given: a folder, a dataset or arrays, as feeds of images."""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_omv.errors import DatasetError
from keras_omv.feeds import CACHE_LIMIT_BYTES, Feed, Images
from keras_omv.folders import find_class_folders
from keras_omv.images import ImageData, load_image_folder
from keras_omv.progress import working

_SMALL_PX = 32
"""A resolution at which counting images is quick, and that is often needed."""


def make_feeds(
    x: Any,
    y: Any,
    validation_data: Any,
    *,
    classes: int,
    channels: int,
    seed: int,
    cache_directory: pathlib.Path,
) -> "tuple[Images, Images]":
    """What to train on and what to judge by, from what a search was given.

    Args:
        x: A folder, a dataset, or an array of images.
        y: Labels, where `x` is an array.
        validation_data: As `x`, or images and labels; `None` for a folder.
        classes: Number of classes.
        channels: 1 for grey, 3 for RGB.
        seed: Decides the split of a folder.
        cache_directory: See `Feed`.

    Raises:
        DatasetError: If they cannot be used as they are.
    """
    is_folder = isinstance(x, str | os.PathLike)
    if is_folder and (y is not None or validation_data is not None):
        raise DatasetError(
            "Expected a folder alone: it is split, or has train and test folders. "
            "Received: y or validation_data beside it. Next step: leave them out."
        )
    if is_folder:
        folder = FolderFeed(x, channels=channels, seed=seed)
        names = folder.class_names
        if len(names) != classes:
            raise DatasetError(
                f"Expected {classes} class folders. Received: {len(names)}: "
                f"{', '.join(names)}. Next step: classes={len(names)}."
            )
        return folder.train, folder.validation
    if x is None or validation_data is None:
        raise DatasetError(
            "Expected training images and validation_data to judge by. Received: "
            f"x={type(x).__name__}, validation_data={type(validation_data).__name__}. "
            "Next step: tuner.search(train, validation_data=validation)."
        )
    feed = functools.partial(
        Feed, classes=classes, channels=channels, cache_directory=cache_directory
    )
    return feed(x if y is None else (x, y)), feed(validation_data)


class FolderFeed:
    """The images of a folder of class folders, read anew for each resolution.

    Args:
        directory: As for `keras-omv train`: class folders, or a training and a test
            folder of them.
        channels: 1 for grey, 3 for RGB.
        seed: Decides the split.

    Raises:
        DatasetError: If the folder cannot be used as it is.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, channels: int, seed: int = 0
    ) -> None:
        self._directory = directory
        self._channels = channels
        self._seed = seed
        self._read: collections.OrderedDict[int, ImageData] = collections.OrderedDict()
        self.train = _Side(self, "train")
        self.validation = _Side(self, "test")

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the class folders, in the order of the labels."""
        return class_names_of(self._directory)

    def data(self, resolution: int) -> ImageData:
        """Both sides at one resolution; read once while there is memory for it."""
        if resolution not in self._read:
            with working("Reading images") as progress:
                self._read[resolution] = load_image_folder(
                    self._directory,
                    resolution=resolution,
                    channels=self._channels,
                    seed=self._seed,
                    progress=progress,
                )
            while len(self._read) > 1 and _bytes(self._read) > CACHE_LIMIT_BYTES:
                self._read.popitem(last=False)
        self._read.move_to_end(resolution)
        return self._read[resolution]


def class_names_of(data: Any) -> Sequence[str]:
    """The names of the classes, where a folder or a dataset has some.

    Args:
        data: A folder, or what `Feed` takes; Keras' own folder datasets have a
            `class_names`.
    """
    if isinstance(data, str | os.PathLike):
        return tuple(find_class_folders(pathlib.Path(data))[0].files)
    return getattr(data, "class_names", ())


@dataclasses.dataclass(frozen=True, slots=True)
class _Side:
    """The training or the test images of a folder, as `Images`."""

    folder: FolderFeed
    name: str

    @property
    def count(self) -> int:
        return len(self.arrays(_SMALL_PX)[1])

    def at(self, resolution: int) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(self.arrays(resolution))

    def arrays(self, resolution: int, limit: int | None = None) -> Any:
        data = self.folder.data(resolution)
        images = getattr(data, f"{self.name}_images")
        # They are shuffled: the first ones are from all over them.
        return images[:limit], getattr(data, f"{self.name}_labels")[:limit]


def _bytes(read: dict[int, ImageData]) -> int:
    return sum(d.train_images.nbytes + d.test_images.nbytes for d in read.values())
