"""Labelled images as arrays at the model's resolution, from folders or digits.

Reads what `keras_omv.folders` finds, cuts it as `keras_omv.pictures` does, and splits
it into a training and a test side. This module imports no TensorFlow.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import logging
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from keras_omv.camera import Size, as_size
from keras_omv.errors import DatasetError
from keras_omv.folders import find_class_folders
from keras_omv.pictures import cut_and_scale, read_picture

logger = logging.getLogger(__name__)

DIGITS = "digits"
"""What stands for scikit-learn's digits where no folder is called so."""
DIGIT_LEVELS = 16
"""The brightest value in scikit-learn's digits."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ImageData:
    """Labelled images, split into a training and a test side.

    Attributes:
        class_names: Names in the order of the labels.
        train_images: uint8 array of shape `(n, height, width, channels)`, 0 to 255,
            in shuffled order.
        train_labels: int64 array of shape `(n,)`, indices into `class_names`.
        test_images: As `train_images`, for measuring.
        test_labels: As `train_labels`.
        skipped: Files that were left out, each with the reason.
    """

    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    skipped: tuple[tuple[pathlib.Path, str], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """The pictures of one folder, those that could be read."""

    images: np.ndarray
    labels: np.ndarray
    skipped: tuple[tuple[pathlib.Path, str], ...] = ()


def load_image_folder(
    directory: str | os.PathLike[str],
    *,
    resolution: int | Size,
    channels: int = 3,
    on_bad_image: Literal["error", "skip"] = "error",
    validation_split: float = 0.2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ImageData:
    """Load a folder that holds one folder per class.

    A folder that holds a training and a test folder (`train` and `test`, `val`,
    `validation` or `valid`) with class folders inside is taken with that split.
    Classes are ordered by name. Hidden files, notes and tables are passed over.

    Args:
        directory: The folder.
        resolution: Pixels of each side, or `(height, width)`.
        channels: 3 for colour, 1 for grey as the camera computes it.
        on_bad_image: `"error"` refuses images that cannot be read, by name;
            `"skip"` leaves them out and reports them in `skipped`.
        validation_split: Share of each class that is kept for measuring, between 0
            and 1; not used where the folder brings its own split.
        seed: Decides the split and the order.
        progress: Called with the number of images read so far and of all images.

    Raises:
        DatasetError: If the folder cannot be used as it is.
        ValueError: If an argument is out of range.
    """
    size = as_size(resolution)
    _check_options(channels, on_bad_image, validation_split)
    folders = find_class_folders(pathlib.Path(directory))
    needed = 2 if len(folders) == 1 else 1  # each side of the split gets one
    for folder in folders:
        folder.check_counts(map(len, folder.files.values()), needed)
    read = functools.partial(read_picture, size=size, channels=channels)
    report = _counter(sum(folder.file_count for folder in folders), progress)
    sides = [_read_side(folder.files, read, report) for folder in folders]
    _report_unreadable(sides, on_bad_image)
    for folder, side in zip(folders, sides, strict=True):
        counts = np.bincount(side.labels, minlength=len(folder.files))
        folder.check_counts(counts, needed)
    return _assemble(tuple(folders[0].files), sides, validation_split, seed)


def is_digits(folder: str | os.PathLike[str]) -> bool:
    """Whether a name stands for scikit-learn's digits: no folder is called so.

    Args:
        folder: Where images are to come from.
    """
    return os.fspath(folder) == DIGITS and not os.path.isdir(DIGITS)


def load_digits(
    *,
    resolution: int | Size,
    channels: int = 1,
    validation_split: float = 0.2,
    seed: int = 0,
) -> ImageData:
    """Load scikit-learn's 1797 handwritten digits, enlarged; nothing is downloaded.

    Args:
        resolution: Pixels of each side, or `(height, width)`; the originals are 8x8.
        channels: 1, or 3 for the same grey in every channel.
        validation_split: Share of each digit that is kept for measuring.
        seed: Decides the split and the order.

    Reference:
        E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI,
        1998: 8x8 pixels, 16 levels of ink above 0.
    """
    size = as_size(resolution)
    _check_options(channels, "error", validation_split)
    from sklearn import datasets  # slow to import, and only needed here

    digits = datasets.load_digits()
    grey = np.round(digits.images * (255 / DIGIT_LEVELS)).astype(np.uint8)
    images = np.stack(
        [cut_and_scale(Image.fromarray(picture), size) for picture in grey]
    )
    images = np.repeat(images[..., np.newaxis], channels, axis=-1)
    side = _Side(images, digits.target.astype(np.int64))
    names = tuple(str(name) for name in digits.target_names)
    return _assemble(names, [side], validation_split, seed)


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split indices so that each class is divided in the same proportion.

    Example:
        >>> train, test = stratified_split(np.array([0, 0, 0, 1, 1, 1]), 0.3, 0)
        >>> len(train), len(test)
        (4, 2)

    Args:
        labels: Array of shape `(n,)`; each class must be there twice or more.
        fraction: Share of each class on the second side, between 0 and 1; each side
            gets at least one of each class.
        seed: Decides which go where, and the order.

    Returns:
        Two arrays of indices, both shuffled; together they are all of `range(n)`.

    Raises:
        DatasetError: If a class is there only once.
    """
    generator = np.random.default_rng(seed)
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for label in np.unique(labels):
        indices = generator.permutation(np.flatnonzero(labels == label))
        if len(indices) < 2:
            raise DatasetError(
                f"A class cannot be split. Expected 2 or more of each class. "
                f"Received: 1 of class {label}. Next step: add images."
            )
        test_count = min(max(round(fraction * len(indices)), 1), len(indices) - 1)
        sides[0].append(indices[test_count:])
        sides[1].append(indices[:test_count])
    train, test = (generator.permutation(np.concatenate(side)) for side in sides)
    return train, test


def _check_options(channels: int, on_bad_image: str, validation_split: float) -> None:
    in_range = 0 < validation_split < 1
    bad_image_modes = ("error", "skip")
    options = (
        ("channels", channels, channels in (1, 3), "1 or 3"),
        ("on_bad_image", on_bad_image, on_bad_image in bad_image_modes, "error, skip"),
        ("validation_split", validation_split, in_range, "0 < share < 1"),
    )
    for name, value, is_valid, expected in options:
        if not is_valid:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected: {expected}. "
                f"Received: {value!r}."
            )


def _counter(
    total: int, progress: Callable[[int, int], None] | None
) -> Callable[[], None]:
    """Return a function that counts its calls and reports them."""
    counts = itertools.count(1)

    def count() -> None:
        done = next(counts)
        if progress is not None:
            progress(done, total)

    return count


def _read_side(
    files: Mapping[str, Sequence[pathlib.Path]],
    read: Callable[[pathlib.Path], np.ndarray | str],
    report: Callable[[], None],
) -> _Side:
    """Read all images of one folder, several at a time."""
    paths = list(itertools.chain.from_iterable(files.values()))
    labels = np.repeat(np.arange(len(files)), [len(p) for p in files.values()])
    results = _map_threaded(read, paths, report)
    kept = [
        index for index, result in enumerate(results) if not isinstance(result, str)
    ]
    images = [result for result in results if not isinstance(result, str)]
    skipped = [
        (path, result)
        for path, result in zip(paths, results, strict=True)
        if isinstance(result, str)
    ]
    stacked = np.stack(images) if images else np.zeros(0, np.uint8)
    return _Side(stacked, labels[kept].astype(np.int64), tuple(skipped))


def _map_threaded(
    read: Callable[[pathlib.Path], np.ndarray | str],
    paths: Sequence[pathlib.Path],
    report: Callable[[], None],
) -> list[np.ndarray | str]:
    """Read files in threads, in order; an interrupt drops what is still to be read."""
    results = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for result in pool.map(read, paths):
                results.append(result)
                report()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def _report_unreadable(sides: Sequence[_Side], on_bad_image: str) -> None:
    """Refuse or log the images that could not be read."""
    skipped = [pair for side in sides for pair in side.skipped]
    shown = "; ".join(f"{path} ({reason})" for path, reason in skipped[:5])
    more = "" if len(skipped) <= 5 else f" and {len(skipped) - 5} more"
    if skipped and on_bad_image == "error":
        raise DatasetError(
            f"Unreadable images. Expected files that Pillow can decode to the end. "
            f"Received: {shown}{more}. Next step: repair or remove them, or pass "
            f'on_bad_image="skip" to leave them out.'
        )
    if skipped:
        logger.warning("Left out, unreadable: %s%s", shown, more)


def _assemble(
    names: tuple[str, ...], sides: Sequence[_Side], validation_split: float, seed: int
) -> ImageData:
    train, test = sides[0], sides[-1]
    if train is test:
        first, second = stratified_split(train.labels, validation_split, seed)
    else:
        first = np.random.default_rng(seed).permutation(len(train.labels))
        second = np.arange(len(test.labels))
    return ImageData(
        class_names=names,
        train_images=train.images[first],
        train_labels=train.labels[first],
        test_images=test.images[second],
        test_labels=test.labels[second],
        skipped=tuple(itertools.chain.from_iterable(side.skipped for side in sides)),
    )
