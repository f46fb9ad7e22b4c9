"""Copies files to a camera's drive so that no name ever holds half a file.

All files are written under other names and read back first; only when every one of
them is right do they take their own names, the script last. Whatever stops this
half-way leaves each file old or new, and the same call again goes on.
"""

import errno
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from keras_omv.errors import CameraError
from keras_omv.units import align, format_bytes

NEW_SUFFIX = ".new"
"""Behind the name of a file while it is being copied."""
AGAIN = "What was on the drive is whole. Next step: {}, and run the same command again."
_ADVICE = {
    errno.ENOSPC: ("is full", "delete files from it"),
    errno.EDQUOT: ("is full", "delete files from it"),
    errno.EFBIG: ("does not take files of this size", "put another card into it"),
    errno.EROFS: (
        "is read-only",
        "eject it, reset the camera (an SD card may have its lock switch on)",
    ),
    errno.EACCES: ("may not be written to", "check who may write there"),
    errno.EPERM: ("may not be written to", "check who may write there"),
}
_GONE = ("no longer answers", "connect the camera again")

Progress = Callable[[str, int, int], None]
"""Called with a file's name, its bytes that are written, and all of its bytes."""


class Drive(Protocol):
    """A camera's drive; names are those of files in its main folder."""

    @property
    def label(self) -> str:
        """What messages call it."""

    def room(self) -> tuple[int, int]:
        """Return the free bytes, and the bytes of a block, which files fill up."""

    def sha256(self, name: str) -> str | None:
        """Return the hash of a file as it is on the drive, `None` without one."""

    def write(self, name: str, data: bytes, progress: Progress) -> None:
        """Write a file."""

    def rename(self, name: str, to: str) -> None:
        """Rename a file over another, which may be there or not."""

    def remove(self, name: str) -> None:
        """Remove a file if there is one."""


def stage(
    drive: Drive, files: Mapping[str, bytes], progress: Progress
) -> tuple[str, ...]:
    """Write the files that differ from the drive's, under other names.

    Args:
        drive: The camera's drive.
        files: Contents by name.
        progress: Called while files are written.

    Returns:
        The names of the files that differ, for `commit`, in the order of `files`.

    Raises:
        CameraError: If there is no room, a file cannot be written, or it does not
            read back as it was written. Nothing has changed then.
    """
    for name in files:
        drive.remove(name + NEW_SUFFIX)
    changed = [name for name in files if drive.sha256(name) != _sha256(files[name])]
    _check_room(drive, [files[name] for name in changed])
    try:
        for name in changed:
            _write_checked(drive, name, files[name], progress)
    except CameraError:
        _clean_up(drive, changed)
        raise
    return tuple(changed)


def commit(drive: Drive, names: Sequence[str]) -> None:
    """Give staged files their own names, in the given order."""
    for name in names:
        drive.rename(name + NEW_SUFFIX, name)


def drive_error(error: OSError, label: str) -> CameraError:
    """Return what went wrong with a drive, in words.

    Args:
        error: What its system said.
        label: What to call the drive.
    """
    problem, advice = _ADVICE.get(error.errno or 0, _GONE)
    return CameraError(
        f"Copying stopped: {label} {problem} ({error}). {AGAIN.format(advice)}"
    )


def _write_checked(drive: Drive, name: str, data: bytes, progress: Progress) -> None:
    drive.write(name + NEW_SUFFIX, data, progress)
    if drive.sha256(name + NEW_SUFFIX) != _sha256(data):
        raise CameraError(
            f"Copying stopped: {name} does not read back from {drive.label} as it was "
            f"written, which damaged drives do. "
            f"{AGAIN.format('format the drive or put another card into the camera')}"
        )


def _clean_up(drive: Drive, names: Sequence[str]) -> None:
    try:
        for name in names:
            drive.remove(name + NEW_SUFFIX)
    except CameraError:
        return  # It is gone; the next copy cleans up.


def _check_room(drive: Drive, contents: Sequence[bytes]) -> None:
    free_bytes, block_bytes = drive.room()
    needed = sum(align(len(data), block_bytes) for data in contents)
    if needed > free_bytes:
        raise CameraError(
            f"There is no room on {drive.label}. Expected {format_bytes(needed)} for "
            f"the new files beside the old ones. Received: {format_bytes(free_bytes)} "
            f"free. {AGAIN.format('delete files from it, or put in an SD card')}"
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
