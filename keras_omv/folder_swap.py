"""Writing a folder so that it is there whole or not at all.

The files go to a hidden sibling first and reach the disk; then two renames swap it
with the older folder. Whenever the process dies, one of the two is whole, and the
next call puts it in its place.
"""

import contextlib
import logging
import os
import pathlib
import shutil
from collections.abc import Collection, Mapping

logger = logging.getLogger(__name__)


def write_whole(
    path: pathlib.Path, files: Mapping[str, bytes], *, replaces: Collection[str]
) -> None:
    """Write a folder, or leave the one that is there as it is.

    Args:
        path: The folder; its parents are made.
        files: Contents by file name.
        replaces: Names that are not kept of an older folder; what else is in there
            moves to the new one.

    Raises:
        OSError: If the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path, replaces)
        _write_files(_new(path), files)
        _swap(path)
    finally:
        _settle(path, replaces)


def put_back(path: pathlib.Path) -> None:
    """Undo the first of the two renames if the second one never came."""
    if _old(path).exists() and not path.exists():
        _old(path).rename(path)
        logger.warning("An interrupted export was undone: %s is as it was.", path)


def _new(path: pathlib.Path) -> pathlib.Path:
    """Return the sibling that a new folder is written to."""
    return path.with_name(f".{path.name}.keras_omv-new")


def _old(path: pathlib.Path) -> pathlib.Path:
    """Return the sibling that the old folder waits in while both are renamed."""
    return path.with_name(f".{path.name}.keras_omv-old")


def _write_files(folder: pathlib.Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, content in files.items():
        with open(folder / name, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    _sync_folder(folder)


def _swap(path: pathlib.Path) -> None:
    """Put the new folder in the old one's place."""
    if path.exists():
        path.rename(_old(path))
    _new(path).rename(path)
    _sync_folder(path.parent)


def _settle(path: pathlib.Path, replaces: Collection[str]) -> None:
    """Leave one whole folder and no siblings; what fails here the next write does."""
    try:
        put_back(path)
        _clear(path, replaces)
    except OSError as error:
        logger.warning("Some temporary files beside %s are left: %s", path, error)


def _clear(path: pathlib.Path, replaces: Collection[str]) -> None:
    """Remove our siblings, once what is not ours has left the old folder."""
    if _old(path).exists():
        _keep_other_files(path, replaces)
        shutil.rmtree(_old(path))
    if _new(path).exists():
        shutil.rmtree(_new(path))


def _keep_other_files(path: pathlib.Path, replaces: Collection[str]) -> None:
    for entry in _old(path).iterdir():
        if entry.name not in replaces and not (path / entry.name).exists():
            entry.rename(path / entry.name)


def _sync_folder(folder: pathlib.Path) -> None:
    """Flush a folder's entries to the disk; some systems and drives cannot."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
