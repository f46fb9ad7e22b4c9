"""Images from folders, one folder per class, as arrays at the model's resolution.

The pictures are cut as main.py cuts the camera's: the largest window of the model's
shape from the middle. Grey follows the firmware's formula (`COLOR_RGB888_TO_Y`,
`lib/imlib/imlib.h:322`, OpenMV 5.0.0). This module imports no TensorFlow.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import logging
import operator
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from keras_omv.deploy import class_labels
from keras_omv.errors import DatasetError

logger = logging.getLogger(__name__)

TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "validation", "valid")
"""The first of these beside the training folder is the test side."""

CLUTTER_SUFFIXES = frozenset(
    (".txt", ".json", ".csv", ".xml", ".yaml", ".yml", ".md", ".html", ".ini", ".db")
)
"""Passed over, as hidden files are; every other file must be an image."""

CLUTTER_FOLDERS = frozenset(("__macosx", "@eadir"))
"""Left behind by archives of macOS and by Synology's file servers."""

GREY_WEIGHTS = np.array([38, 75, 15], np.uint16)
"""Y = (38 R + 75 G + 15 B) >> 7: `COLOR_RGB888_TO_Y`, OpenMV 5.0.0."""
GREY_SHIFT = 7

DIGIT_LEVELS = 16
"""The brightest value in scikit-learn's digits."""

Size = tuple[int, int]
"""Height and width in pixels."""

Listing = Mapping[str, Sequence[pathlib.Path]]
"""The image files of each class, by class name in order."""


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
    size = _check_size(resolution)
    _check_options(channels, on_bad_image, validation_split)
    roots = _find_roots(pathlib.Path(directory))
    listings = [_list_classes(root) for root in roots]
    names = _same_classes(roots, listings)
    needed = 2 if len(roots) == 1 else 1  # each side of the split gets one
    for listing, root in zip(listings, roots, strict=True):
        _check_counts(map(len, listing.values()), names, root, needed)
    read = functools.partial(_read_image, size=size, channels=channels)
    report = _counter(sum(map(_count, listings)), progress)
    sides = [_read_side(listing, read, report) for listing in listings]
    _report_unreadable(sides, on_bad_image)
    for side, root in zip(sides, roots, strict=True):
        counts = np.bincount(side.labels, minlength=len(names))
        _check_counts(counts, names, root, needed)
    return _assemble(names, sides, validation_split, seed)


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
    size = _check_size(resolution)
    _check_options(channels, "error", validation_split)
    from sklearn import datasets  # slow to import, and only needed here

    digits = datasets.load_digits()
    grey = np.round(digits.images * (255 / DIGIT_LEVELS)).astype(np.uint8)
    images = np.stack([_fit(Image.fromarray(picture), size) for picture in grey])
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


def _check_size(resolution: int | Size) -> Size:
    sides = resolution if isinstance(resolution, tuple | list) else (resolution,) * 2
    try:
        height, width = map(operator.index, sides)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(
            f"Invalid value for argument `resolution`. Expected a positive integer or "
            f"(height, width). Received: {resolution!r}."
        )
    return height, width


def _check_options(channels: int, on_bad_image: str, validation_split: float) -> None:
    allowed = {
        "channels": (channels, channels in (1, 3), "1 or 3"),
        "on_bad_image": (
            on_bad_image,
            on_bad_image in ("error", "skip"),
            "error, skip",
        ),
        "validation_split": (
            validation_split,
            0 < validation_split < 1,
            "0 < share < 1",
        ),
    }
    for name, (value, is_valid, expected) in allowed.items():
        if not is_valid:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected: {expected}. "
                f"Received: {value!r}."
            )


def _find_roots(directory: pathlib.Path) -> list[pathlib.Path]:
    """Return the folder itself, or its training and its test folder."""
    if not directory.is_dir():
        raise DatasetError(
            f"No images. Expected a folder with one folder per class. Received: "
            f"{directory}, which "
            f"{'is a file' if directory.exists() else 'does not exist'}. "
            f"Next step: check the path."
        )
    folders = {folder.name.lower(): folder for folder in _folders(directory)}
    train = [folders[name] for name in TRAIN_FOLDERS if name in folders]
    test = [folders[name] for name in TEST_FOLDERS if name in folders]
    if not (train and test and _folders(train[0]) and _folders(test[0])):
        return [directory]
    used = [train[0], test[0]]
    unused = [folder.name for folder in folders.values() if folder not in used]
    if unused:
        logger.warning("Not used of %s: %s", directory, ", ".join(sorted(unused)))
    return used


def _list_classes(root: pathlib.Path) -> Listing:
    """Return the image files of each class folder, classes ordered by name."""
    folders = _folders(root)
    if len(folders) < 2:
        raise _too_few_classes(root, folders)
    class_labels(folder.name for folder in folders)
    return {folder.name: _list_images(folder) for folder in folders}


def _too_few_classes(root: pathlib.Path, folders: list[pathlib.Path]) -> DatasetError:
    if folders:
        came = f"only one class folder, {folders[0].name!r}"
        step = f"add another class, or give {folders[0]} if the classes are in there"
    else:
        files = _files(root)
        came = f"{len(files)} files directly in it" if files else "an empty folder"
        step = "put the images of each class into a folder with the class's name"
    return DatasetError(
        f"{root} is no image data set. Expected one folder per class, two or more. "
        f"Received: {came}. Next step: {step}."
    )


def _list_images(folder: pathlib.Path) -> list[pathlib.Path]:
    nested = [inner for inner in _folders(folder) if any(map(_files, _tree(inner)))]
    files = _files(folder)
    if nested:
        came, step = f"images in {nested[0]}", f"move them up into {folder}"
    elif not files:
        came, step = "no images", "add images or remove the folder"
    else:
        return files
    raise DatasetError(
        f"Class folder {folder.name!r} cannot be used. Expected images directly in "
        f"{folder}. Received: {came}. Next step: {step}."
    )


def _tree(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return a folder and all folders below it."""
    return [folder, *itertools.chain.from_iterable(map(_tree, _folders(folder)))]


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [entry for entry in entries if not entry.name.startswith(".")]


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    wanted = (e for e in _visible(folder) if e.name.lower() not in CLUTTER_FOLDERS)
    return [entry for entry in wanted if entry.is_dir()]


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    wanted = (e for e in _visible(folder) if e.suffix.lower() not in CLUTTER_SUFFIXES)
    return [entry for entry in wanted if not entry.is_dir()]


def _same_classes(
    roots: Sequence[pathlib.Path], listings: Sequence[Listing]
) -> tuple[str, ...]:
    train, test = listings[0].keys(), listings[-1].keys()
    if train != test:
        raise DatasetError(
            f"{roots[0]} and {roots[-1]} do not match. Expected the same class "
            f"folders in both. Received: only in one of them {sorted(train ^ test)}. "
            f"Next step: add the missing folders or remove the others."
        )
    return tuple(train)


def _count(listing: Listing) -> int:
    return sum(map(len, listing.values()))


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
    listing: Listing,
    read: Callable[[pathlib.Path], np.ndarray | str],
    report: Callable[[], None],
) -> _Side:
    """Read all images of one folder, several at a time."""
    paths = list(itertools.chain.from_iterable(listing.values()))
    labels = np.repeat(np.arange(len(listing)), [len(p) for p in listing.values()])
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


def _check_counts(
    counts: Iterable[int], names: Sequence[str], root: pathlib.Path, needed: int
) -> None:
    for name, count in zip(names, counts, strict=True):
        if count < needed:
            raise DatasetError(
                f"Class {name!r} has too few images. Expected {needed} or more that "
                f"can be read in {root / name}, so that each side of the split has "
                f"one. Received: {count}. Next step: add images or remove the class."
            )


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


def _read_image(path: pathlib.Path, *, size: Size, channels: int) -> np.ndarray | str:
    """Return an image of shape `(height, width, channels)`, or why it has none."""
    try:
        with Image.open(path) as image:
            image.load()  # to the end: a truncated file fails here
            picture = _fit(_to_rgb(ImageOps.exif_transpose(image)), size)
    except Exception as error:  # Pillow raises many kinds for broken files
        return f"{type(error).__name__}: {error}"
    return _to_grey(picture) if channels == 1 else picture


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB; what is transparent becomes white, like paper."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):  # 16 bits: keep the upper 8
        levels = np.clip(np.asarray(image, np.int32), 0, 0xFFFF) >> 8
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert("RGB")


def _fit(image: Image.Image, size: Size) -> np.ndarray:
    """Cut the largest centred part of the size's shape and scale it, bilinear."""
    height, width = size
    cut_width = max(1, min(image.width, image.height * width // height))
    cut_height = max(1, min(image.height, image.width * height // width))
    left = (image.width - cut_width) // 2
    top = (image.height - cut_height) // 2
    part = image.crop((left, top, left + cut_width, top + cut_height))
    return np.asarray(part.resize((width, height), Image.Resampling.BILINEAR))


def _to_grey(picture: np.ndarray) -> np.ndarray:
    weighted = picture.astype(np.uint16) @ GREY_WEIGHTS  # at most 128 * 255: 16 bits
    grey: np.ndarray = (weighted >> GREY_SHIFT).astype(np.uint8)
    return grey[..., np.newaxis]
