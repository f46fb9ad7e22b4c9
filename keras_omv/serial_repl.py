"""The REPL of a camera on a serial port: commands, their answers, what a script prints.

mpremote's transport speaks MicroPython's raw REPL. Every release from 4.0.0 to 5.0.0
has that REPL at any baud rate but 921600 and 12000000, which are for the IDE
(common/usbdbg.h:36 at 4.8.1, protocol/omv_protocol.h:61 at 5.0.0). A soft reset leaves
main.py alone: only the first start runs it (ports/stm32/main.c at 5.0.0).
"""

import ast
import contextlib
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

from mpremote.transport import TransportError, TransportExecError
from mpremote.transport_serial import SerialTransport

from keras_omv import camera_commands
from keras_omv.errors import CameraError

_READ_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
_STREAM_SECONDS = 0.2
LAST_WORDS = 300
"""Characters that messages quote of what a camera says."""
_INTERRUPT, _END = b"\x03", b"\x04"


class Repl:
    """The Python interpreter on the other end of a serial port.

    Opening it stops the camera's script and resets the interpreter.

    Args:
        device: The port, such as `"/dev/ttyACM0"`.

    Raises:
        CameraError: If the port cannot be opened, or no MicroPython answers.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.open()

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
                f"{self.label} gave an answer that is none: {said[:LAST_WORDS]!r}. "
                f"Next step: reset the camera, and run the same command again."
            ) from garbled

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


def last_line(error: TransportExecError) -> str:
    """The last line of an error's traceback, which names it."""
    lines = error.error_output.strip().splitlines() or ["nothing"]
    return str(lines[-1])[-LAST_WORDS:]
