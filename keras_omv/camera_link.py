"""Finds connected cameras: serial ports by their USB ids, drives by their marker file.

USB ids are `OMV_USB_VID` and `OMV_USB_PID` of boards/*/board_config.mk at 5.0.0; all
cameras of OpenMV were 1209:ABD1 before (tools/usbd_vcp_hid at 4.5.5). What a camera
calls itself is `OMV_BOARD_ARCH` of boards/*/board_config.h, the same from 4.0.0 to
5.0.0 wherever the board exists.
"""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterable

OPENMV_VENDOR = 0x37C5
OLD_OPENMV = (0x1209, 0xABD1)
ARDUINO_VENDOR = 0x2341
ARDUINO_PRODUCTS = {
    0x0466: "Arduino Giga",
    0x045F: "Arduino Nicla Vision",
    0x045B: "Arduino Portenta H7",
}
OPENMV_PRODUCTS = {
    0x1203: "OpenMV Cam M7",
    0x1204: "OpenMV Cam H7",
    0x124A: "OpenMV Cam H7 Plus",
    0x1205: "OpenMV Pure Thermal",
    0x1060: "OpenMV Cam RT1062",
    0x1206: "OpenMV N6",
    0x16E3: "OpenMV AE3",
}
ARCHITECTURES = {
    "OMV3 F7 512": "OPENMV3",
    "OMV4 H7 1024": "OPENMV4",
    "OMV4P H7 32768 SDRAM": "OPENMV4P",
    "OPENMVPT 65536 SDRAM": "OPENMVPT",
    "OMVRT1060 32768 SDRAM": "OPENMV_RT1060",
    "OpenMV N6": "OPENMV_N6",
    "OPENMV AE3": "OPENMV_AE3",
    "GIGA H7 8192 SDRAM": "ARDUINO_GIGA",
    "NICLAV H7 1024": "ARDUINO_NICLA_VISION",
    "BORMIO H7 1024": "ARDUINO_NICLA_VISION",  # its name at 4.0.0
    "PORTENTA H7 8192 SDRAM": "ARDUINO_PORTENTA_H7",
}
"""What `omv.arch()` says, and the firmware's target."""

DRIVE_MARKER = ".openmv_disk"
"""Every release writes it to the drive that it shows (src/omv/ports/stm32/main.c:646 at
4.0.0, scripts/libraries/_boot.py at 5.0.0)."""
_MOUNTS = ("/media/*", "/media/*/*", "/run/media/*/*", "/mnt/*", "/Volumes/*")


@dataclasses.dataclass(frozen=True, slots=True)
class Port:
    """A serial port with a camera behind it.

    Attributes:
        device: Its name, such as `"/dev/ttyACM0"` or `"COM3"`.
        title: The camera, as far as its USB ids tell.
        serial_number: The camera's own, `""` where it has none.
    """

    device: str
    title: str
    serial_number: str

    def __str__(self) -> str:
        number = f", serial number {self.serial_number}" if self.serial_number else ""
        return f"{self.device} ({self.title}{number})"


def find_ports() -> tuple[Port, ...]:
    """Return the serial ports of connected cameras, sorted by name."""
    from serial.tools import list_ports  # only who copies needs it

    titled = [(port, _title(port.vid, port.pid)) for port in list_ports.comports()]
    found = [
        Port(port.device, title, port.serial_number or "")
        for port, title in titled
        if title
    ]
    return tuple(sorted(found, key=lambda port: port.device))


def _title(vendor: int | None, product: int | None) -> str:
    """What is behind a USB id, `""` where it is no camera."""
    if (vendor, product) == OLD_OPENMV:
        return "an OpenMV Cam"
    if vendor == OPENMV_VENDOR:
        return OPENMV_PRODUCTS.get(product or 0, "an OpenMV Cam")
    if vendor == ARDUINO_VENDOR:
        return ARDUINO_PRODUCTS.get(product or 0, "")
    return ""


def find_drives(mounts: Iterable[pathlib.Path] | None = None) -> tuple[str, ...]:
    """Return the folders where cameras' USB drives are mounted.

    Args:
        mounts: Where to look. Defaults to `None`: where Linux, macOS and Windows
            mount removable drives.
    """
    places = _mounts() if mounts is None else mounts
    return tuple(sorted({str(place) for place in places if _is_camera_drive(place)}))


def _mounts() -> list[pathlib.Path]:
    if sys.platform == "win32":
        return [pathlib.Path(f"{letter}:\\") for letter in "DEFGHIJKLMNOPQRSTUVWXYZ"]
    root = pathlib.Path("/")
    return [place for name in _MOUNTS for place in root.glob(name[1:])]


def _is_camera_drive(place: pathlib.Path) -> bool:
    try:
        return os.path.lexists(place / DRIVE_MARKER)
    except OSError:  # a drive that does not answer
        return False
