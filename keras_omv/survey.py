"""A first look at an image folder, before its images are read."""

import itertools
import os
import pathlib
import statistics

from PIL import Image

from keras_omv.folders import find_class_folders

SAMPLE = 64
"""How many images' sizes are looked at."""


def survey(directory: str | os.PathLike[str]) -> tuple[int, int | None]:
    """The number of classes in a folder, and the usual size of its images.

    Args:
        directory: As for `load_image_folder`.

    Returns:
        The number of classes, and the median of the shorter sides of some images in
        pixels, `None` where none could be read.

    Raises:
        DatasetError: If the folder holds no class folders.
    """
    folders = find_class_folders(pathlib.Path(directory))[0]
    share = -(-SAMPLE // len(folders.files))
    files = itertools.chain.from_iterable(
        itertools.islice(paths, share) for paths in folders.files.values()
    )
    sides = [side for path in files if (side := _side(path))]
    return len(folders.files), int(statistics.median(sides)) if sides else None


def _side(path: pathlib.Path) -> int | None:
    try:
        with Image.open(path) as image:
            return min(image.size)
    except Exception:  # Reported, by name, when the image is read.
        return None
