"""Image folders: the class folders, their files, and a split that a folder brings.

Lists and checks names and counts only; no image is opened here.
"""

import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Iterable, Mapping, Sequence

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


@dataclasses.dataclass(frozen=True, slots=True)
class ClassFolders:
    """One folder with the image files of each class.

    Attributes:
        root: The folder.
        files: The image files by class name, classes and files ordered by name.
    """

    root: pathlib.Path
    files: Mapping[str, Sequence[pathlib.Path]]

    @property
    def file_count(self) -> int:
        """The files of all classes."""
        return sum(map(len, self.files.values()))

    def check_counts(self, counts: Iterable[int], needed: int) -> None:
        """Raise `DatasetError` where a class has too few images.

        Args:
            counts: Images of each class, in the order of `files`.
            needed: What each class must have at least.
        """
        for name, count in zip(self.files, counts, strict=True):
            if count < needed:
                raise DatasetError(
                    f"Class {name!r} has too few images. Expected {needed} or more "
                    f"that can be read in {self.root / name}, so that each side of "
                    f"the split has one. Received: {count}. Next step: add images or "
                    f"remove the class."
                )


def find_class_folders(directory: pathlib.Path) -> list[ClassFolders]:
    """Return the folder's classes, or those of its training and its test folder.

    Raises:
        DatasetError: If it holds no two class folders with images directly in them,
            or if its training and its test folder hold other classes.
    """
    if not directory.is_dir():
        came = "is a file" if directory.exists() else "does not exist"
        raise DatasetError(
            f"No images. Expected a folder with one folder per class. Received: "
            f"{directory}, which {came}. Next step: check the path."
        )
    sides = [_list_classes(root) for root in _find_roots(directory)]
    _check_same_classes(sides[0], sides[-1])
    return sides


def _find_roots(directory: pathlib.Path) -> list[pathlib.Path]:
    """Return the folder itself, or its training and its test folder."""
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


def _check_same_classes(train: ClassFolders, test: ClassFolders) -> None:
    differing = train.files.keys() ^ test.files.keys()
    if differing:
        raise DatasetError(
            f"{train.root} and {test.root} do not match. Expected the same class "
            f"folders in both. Received: only in one of them {sorted(differing)}. "
            f"Next step: add the missing folders or remove the others."
        )


def _list_classes(root: pathlib.Path) -> ClassFolders:
    folders = _folders(root)
    if len(folders) < 2:
        raise _too_few_classes(root, folders)
    class_labels(folder.name for folder in folders)
    files = {folder.name: _list_images(folder) for folder in folders}
    return ClassFolders(root, files)


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
