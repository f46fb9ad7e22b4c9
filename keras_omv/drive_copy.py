"""A camera's USB drive, as the computer mounts it."""

import contextlib
import hashlib
import os
import pathlib
import shutil

from keras_omv.errors import CameraError
from keras_omv.staging import Progress, drive_error

_CHUNK_BYTES = 1 << 16
_BLOCK_BYTES = 4096
"""Of a FAT drive at most, up to 8 GiB."""
_FORGETS = hasattr(os, "posix_fadvise")
"""Whether the system can be told to read a file from its drive again."""


class MountedDrive:
    """A `keras_omv.staging.Drive` in a folder of this computer.

    Where the system can be told to, it reads files from the drive itself when they are
    compared, not from its cache of what was written; `check` says which it was.

    Args:
        folder: Where it is mounted.

    Raises:
        CameraError: If there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = pathlib.Path(folder)
        if not self.folder.is_dir():
            raise CameraError(
                f"Expected the folder where the camera's drive is mounted. Received: "
                f"{str(self.folder)!r}, which is none. Next step: connect the camera "
                f"and look up where its drive is."
            )

    @property
    def label(self) -> str:
        return f"the drive at {self.folder}"

    @property
    def check(self) -> str:
        """How files were compared, for people."""
        if _FORGETS:
            return f"read back from {self.label}"
        return f"read back from {self.label}, through this system's cache"

    def room(self) -> tuple[int, int]:
        try:
            return shutil.disk_usage(self.folder).free, _BLOCK_BYTES
        except OSError as error:
            raise drive_error(error, self.label) from error

    def sha256(self, name: str) -> str | None:
        try:
            # Not hashlib.file_digest: it came with Python 3.11.
            with (self.folder / name).open("rb") as file:
                _forget(file.fileno())
                return hashlib.sha256(file.read()).hexdigest()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise drive_error(error, self.label) from error

    def write(self, name: str, data: bytes, progress: Progress) -> None:
        try:
            with (self.folder / name).open("wb") as file:
                for start in range(0, len(data), _CHUNK_BYTES):
                    file.write(data[start : start + _CHUNK_BYTES])
                    progress(name, file.tell(), len(data))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise drive_error(error, self.label) from error

    def rename(self, name: str, to: str) -> None:
        try:
            os.replace(self.folder / name, self.folder / to)
            _sync(self.folder)
        except OSError as error:
            raise drive_error(error, self.label) from error

    def remove(self, name: str) -> None:
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise drive_error(error, self.label) from error


def _forget(handle: int) -> None:
    """Drops what the system remembers of a file, so that its drive is read again.

    Only what is on the drive already can be dropped (`write` sees to it), and only
    where there is `posix_fadvise`: on Linux, not on macOS and Windows.
    """
    if _FORGETS:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def _sync(folder: pathlib.Path) -> None:
    """Write the folder itself to the drive, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
