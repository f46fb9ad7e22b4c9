"""A camera on a serial port: what it is, its files and its ROMFS.

Everything goes through the camera's REPL, see `keras_omv.serial_repl`.
"""

import dataclasses
import hashlib
import pathlib
import re
import subprocess
import sys

from mpremote.transport import TransportExecError

from keras_omv import camera_commands
from keras_omv.errors import CameraError
from keras_omv.serial_repl import LAST_WORDS, Repl, last_line
from keras_omv.staging import Progress, drive_error
from keras_omv.units import format_bytes

_CHUNK_BYTES = 1024
"""Of a file, in one command: as source it is up to four times as long, on a heap of
50 KiB."""
_HASH_SECONDS = 180.0
"""For hashing a file of several MiB, which prints nothing until it is done."""
_FLASH_SECONDS = 900.0
"""For mpremote to write a ROMFS image."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a camera says about itself.

    Attributes:
        firmware: Its release, such as `"5.0.0"`.
        arch: The board, a key of `camera_link.ARCHITECTURES`.
        folder: Where its main.py is: `"/sdcard"` with a card, else `"/flash"`, or
            `"/"` up to 4.5.9.
        free_bytes: What is free there.
        block_bytes: What files fill up to.
    """

    firmware: str
    arch: str
    folder: str
    free_bytes: int
    block_bytes: int


class SerialCamera(Repl):
    """A `keras_omv.staging.Drive` on the other end of a serial port.

    Opening it stops the camera's script and resets the interpreter. Use it in a
    `with` statement.

    Args:
        device: The port, such as `"/dev/ttyACM0"`.

    Raises:
        CameraError: If the port cannot be opened, or no OpenMV firmware answers.
    """

    def __enter__(self) -> "SerialCamera":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def identify(self) -> Identity:
        """Ask the camera what it is."""
        try:
            firmware, arch, folder, free_bytes, block_bytes = self._ask(
                camera_commands.IDENTIFY
            )
        except TransportExecError as error:
            raise CameraError(
                f"Expected OpenMV firmware at {self.device}. Received: "
                f"{last_line(error)}. Next step: choose another --port, or install "
                f"the firmware with OpenMV IDE."
            ) from error
        return Identity(
            firmware=firmware,
            arch=arch,
            folder=folder,
            free_bytes=free_bytes,
            block_bytes=block_bytes,
        )

    def room(self) -> tuple[int, int]:
        found = self.identify()
        return found.free_bytes, found.block_bytes

    def sha256(self, name: str) -> str | None:
        try:
            digest = self._ask(camera_commands.HASH.format(name=name), _HASH_SECONDS)
        except TransportExecError as error:
            if "ImportError" not in error.error_output:
                raise self._failure(error) from error
            digest = self._hash_here(name)
        return None if digest is None else digest.hex()

    def write(self, name: str, data: bytes, progress: Progress) -> None:
        self._do(f"f = open({name!r}, 'wb')")
        for start in range(0, len(data), _CHUNK_BYTES):
            self._do(f"f.write({data[start : start + _CHUNK_BYTES]!r})")
            progress(name, min(start + _CHUNK_BYTES, len(data)), len(data))
        self._do("f.close()")

    def rename(self, name: str, to: str) -> None:
        self._do(f"import os\nos.rename({name!r}, {to!r})")

    def remove(self, name: str) -> None:
        # A file that could not be written is still open.
        self._do("try: f.close()\nexcept (NameError, OSError): pass")
        self._do(camera_commands.REMOVE.format(name=name))

    def check_romfs(self, image_bytes: int) -> None:
        """Make sure that the camera has room for a ROMFS image.

        Raises:
            CameraError: If it has no ROMFS, or a smaller one.
        """
        size_bytes = self._ask(camera_commands.ROMFS_SIZE)
        if image_bytes > size_bytes:
            room = f"takes {format_bytes(size_bytes)}" if size_bytes else "has no ROMFS"
            raise CameraError(
                f"The ROMFS image does not fit: {self.label} {room}, the image has "
                f"{format_bytes(image_bytes)}. Nothing was written. Next step: export "
                f"for this camera and its firmware."
            )

    def flash_romfs(self, image: pathlib.Path) -> None:
        """Write a ROMFS image with mpremote, and read it back.

        The caller sees to it that nothing runs from a half-written one. The
        interpreter is reset afterwards and finds the new files.

        Args:
            image: The file.

        Raises:
            CameraError: If mpremote fails, or what was written is not the image.
        """
        data = image.read_bytes()
        self.close()
        command = [sys.executable, "-m", "mpremote", "connect", self.device]
        try:
            done = subprocess.run(
                [*command, "romfs", "deploy", str(image)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_FLASH_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _romfs_error(f"no end after {_FLASH_SECONDS} seconds") from error
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[-LAST_WORDS:]
            raise _romfs_error(f"mpremote stopped: {said}")
        if self._read_back_romfs(len(data)) != hashlib.sha256(data).digest():
            raise _romfs_error("it does not read back as it was written")

    def _read_back_romfs(self, size: int) -> bytes:
        try:
            self.open()
            self._ask(camera_commands.ROMFS_SIZE)
            command = camera_commands.ROMFS_HASH.format(size=size)
            return bytes(self._ask(command, _HASH_SECONDS))
        except (CameraError, TransportExecError) as error:
            raise _romfs_error(f"it could not be read back ({error})") from error

    def _do(self, command: str) -> None:
        try:
            self._ask(f"{command}\nprint(None)")
        except TransportExecError as error:
            raise self._failure(error) from error

    def _hash_here(self, name: str) -> bytes | None:
        """Read a file, from firmware that has no hashlib, to hash it here."""
        with self._talking():
            if not self._transport.fs_exists(name):
                return None
            return hashlib.sha256(self._transport.fs_readfile(name)).digest()

    def _failure(self, error: TransportExecError) -> CameraError:
        """What the camera says about its files, in words."""
        code = re.search(r"OSError: (?:\[Errno )?(\d+)", error.error_output)
        if code:
            return drive_error(OSError(int(code[1]), last_line(error)), self.label)
        return CameraError(
            f"Copying stopped: {self.label} answers {last_line(error)!r}. No file "
            f"there is half-written under its own name. Next step: reset the camera, "
            f"and run the same command again."
        )


def _romfs_error(problem: str) -> CameraError:
    return CameraError(
        f"The ROMFS image could not be written: {problem}. The camera runs no script "
        f"until it is. Next step: connect the camera again, and run the same command "
        f"again."
    )
