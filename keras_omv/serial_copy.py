"""A camera on a serial port: its files, its ROMFS and what its script prints.

mpremote's transport speaks MicroPython's raw REPL. Every release from 4.0.0 to 5.0.0
has that REPL at any baud rate but 921600 and 12000000, which are for the IDE
(common/usbdbg.h:36 at 4.8.1, protocol/omv_protocol.h:61 at 5.0.0). A soft reset leaves
main.py alone: only the first start runs it (ports/stm32/main.c at 5.0.0).
"""

import ast
import contextlib
import dataclasses
import hashlib
import io
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from mpremote.transport import TransportError, TransportExecError
from mpremote.transport_serial import SerialTransport

from keras_omv import camera_commands
from keras_omv.errors import CameraError
from keras_omv.staging import Progress, drive_error
from keras_omv.units import format_bytes

_CHUNK_BYTES = 1024
"""Of a file, in one command: as source it is up to four times as long, on a heap of
50 KiB."""
_READ_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
_LONG_SECONDS = 180.0
"""For hashing a file of several MiB, which prints nothing until it is done."""
_FLASH_SECONDS = 900.0
"""For mpremote to write a ROMFS image."""
_STREAM_SECONDS = 0.2
_LAST_WORDS = 300
_INTERRUPT, _END = b"\x03", b"\x04"


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


class SerialCamera:
    """A `keras_omv.staging.Drive` on the other end of a serial port.

    Opening it stops the camera's script and resets the interpreter. Use it in a
    `with` statement.

    Args:
        device: The port, such as `"/dev/ttyACM0"`.

    Raises:
        CameraError: If the port cannot be opened, or no OpenMV firmware answers.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.open()

    def __enter__(self) -> "SerialCamera":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def label(self) -> str:
        return f"the camera at {self.device}"

    def open(self) -> None:
        """Connect, stop what runs there and reset the interpreter."""
        try:
            self._transport = SerialTransport(self.device, timeout=_READ_SECONDS)
        except (TransportError, OSError) as error:
            raise CameraError(
                f"The port {self.device} cannot be opened: {error}. Next step: close "
                f"OpenMV IDE and whatever else uses the camera, and check the name of "
                f"the port and who may open it."
            ) from error
        try:
            # mpremote prints what it met where it expected a REPL.
            with self._talking(), contextlib.redirect_stdout(io.StringIO()):
                self._transport.enter_raw_repl(soft_reset=True)
        except CameraError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the port; the camera may be gone."""
        with contextlib.suppress(OSError, TransportError):
            self._transport.close()

    def identify(self) -> Identity:
        """Ask the camera what it is."""
        try:
            firmware, arch, folder, free_bytes, block_bytes = self._ask(
                camera_commands.IDENTIFY
            )
        except TransportExecError as error:
            raise CameraError(
                f"Expected OpenMV firmware at {self.device}. Received: "
                f"{_last_line(error)}. Next step: choose another --port, or install "
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
            digest = self._ask(camera_commands.HASH.format(name=name), _LONG_SECONDS)
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
            said = (done.stderr.strip() or done.stdout.strip())[-_LAST_WORDS:]
            raise _romfs_error(f"mpremote stopped: {said}")
        if self._read_back_romfs(len(data)) != hashlib.sha256(data).digest():
            raise _romfs_error("it does not read back as it was written")

    def _read_back_romfs(self, size: int) -> bytes:
        try:
            self.open()
            self._ask(camera_commands.ROMFS_SIZE)
            command = camera_commands.ROMFS_HASH.format(size=size)
            return bytes(self._ask(command, _LONG_SECONDS))
        except (CameraError, TransportExecError) as error:
            raise _romfs_error(f"it could not be read back ({error})") from error

    def run(
        self, module: str, show: Callable[[str], None], *, seconds: float
    ) -> str | None:
        """Run a script of the camera and show what it prints.

        Args:
            module: Its file's name without .py.
            show: Called with each line.
            seconds: When to stop it.

        Returns:
            `None` where it had to be stopped, else the error that it ended with, `""`
            without one.
        """
        with self._talking():
            self._transport.exec_raw_no_follow(
                camera_commands.RUN.format(module=module)
            )
            if not self._stream(show, time.monotonic() + seconds):
                self._transport.serial.write(_INTERRUPT)
                self._transport.follow(_ANSWER_SECONDS)
                return None
            error = self._transport.read_until(1, _END, _ANSWER_SECONDS)
            return str(error.rstrip(_END).decode("utf-8", "replace"))

    def _stream(self, show: Callable[[str], None], deadline: float) -> bool:
        """Show lines until the script ends; return whether it did."""
        serial = self._transport.serial
        serial.timeout = _STREAM_SECONDS
        line = byte = b""
        while byte != _END and time.monotonic() < deadline:
            byte = serial.read(1)
            if byte == b"\n" or (byte == _END and line):
                show(line.decode("utf-8", "replace").rstrip("\r"))
                line = b""
            else:
                line += byte
        serial.timeout = _READ_SECONDS
        return bool(byte == _END)

    def reset(self) -> None:
        """Start the camera anew, as its reset button does; then it is gone for now."""
        with contextlib.suppress(OSError, TransportError):
            self._transport.exec_raw_no_follow("import machine\nmachine.reset()")
        self.close()

    def _ask(self, command: str, seconds: float = _ANSWER_SECONDS) -> Any:
        """Return the Python value that a command prints."""
        with self._talking():
            said, error = self._transport.exec_raw(command, timeout=seconds)
        if error:
            raise TransportExecError(said, error.decode("utf-8", "replace"))
        try:
            return ast.literal_eval(said.decode().strip())
        except (SyntaxError, ValueError) as garbled:
            raise CameraError(
                f"{self.label} gave an answer that is none: {said[:_LAST_WORDS]!r}. "
                f"Next step: reset the camera, and run the same command again."
            ) from garbled

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

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        """Turns a connection that breaks into words."""
        try:
            yield
        except TransportExecError:
            raise
        except (TransportError, OSError) as error:
            raise CameraError(
                f"The connection to {self.device} broke: {error}. No file there is "
                f"half-written under its own name. Next step: connect the camera "
                f"again, and run the same command again."
            ) from error

    def _failure(self, error: TransportExecError) -> CameraError:
        """What the camera says about its files, in words."""
        code = re.search(r"OSError: (?:\[Errno )?(\d+)", error.error_output)
        if code:
            return drive_error(OSError(int(code[1]), _last_line(error)), self.label)
        return CameraError(
            f"Copying stopped: {self.label} answers {_last_line(error)!r}. No file "
            f"there is half-written under its own name. Next step: reset the camera, "
            f"and run the same command again."
        )


def _last_line(error: TransportExecError) -> str:
    lines = error.error_output.strip().splitlines() or ["nothing"]
    return str(lines[-1])[-_LAST_WORDS:]


def _romfs_error(problem: str) -> CameraError:
    return CameraError(
        f"The ROMFS image could not be written: {problem}. The camera runs no script "
        f"until it is. Next step: connect the camera again, and run the same command "
        f"again."
    )
