"""Which ports and drives are cameras."""

import pytest
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from keras_omv.boards import board_names, get_board
from keras_omv.camera_link import ARCHITECTURES, find_drives, find_ports


def port(device, vendor=None, product=None, number=None):
    found = ListPortInfo(device)
    found.vid, found.pid, found.serial_number = vendor, product, number
    return found


@pytest.fixture
def connect(monkeypatch):
    def connect(*ports):
        monkeypatch.setattr(list_ports, "comports", lambda: list(ports))
        return find_ports()

    return connect


@pytest.mark.parametrize(
    ("vendor", "product", "title"),
    [
        (0x37C5, 0x1203, "OpenMV Cam M7"),
        (0x37C5, 0x1204, "OpenMV Cam H7"),
        (0x37C5, 0x124A, "OpenMV Cam H7 Plus"),
        (0x37C5, 0x1060, "OpenMV Cam RT1062"),
        (0x37C5, 0x1206, "OpenMV N6"),
        (0x37C5, 0x16E3, "OpenMV AE3"),
        (0x37C5, 0x1999, "an OpenMV Cam"),
        (0x1209, 0xABD1, "an OpenMV Cam"),
        (0x2341, 0x045F, "Arduino Nicla Vision"),
    ],
)
def test_cameras_are_known_by_their_usb_ids(connect, vendor, product, title):
    (found,) = connect(port("/dev/ttyACM0", vendor, product, "31"))
    assert str(found) == f"/dev/ttyACM0 ({title}, serial number 31)"


def test_other_ports_are_left_alone(connect):
    others = [("S0", None, None), ("A1", 0x2341, 0x0043), ("A2", 0x1209, 0x0001)]
    assert connect(*(port(*one) for one in others)) == ()


def test_ports_come_sorted(connect):
    ports = [port(f"/dev/ttyACM{n}", 0x37C5, 0x1204) for n in (2, 0, 1)]
    names = [found.device for found in connect(*ports)]
    assert names == ["/dev/ttyACM0", "/dev/ttyACM1", "/dev/ttyACM2"]


def test_drives_are_known_by_the_file_that_every_release_writes(tmp_path):
    for name in ("CAMERA", "PHOTOS"):
        (tmp_path / name).mkdir()
    (tmp_path / "CAMERA" / ".openmv_disk").touch()
    assert find_drives(tmp_path.iterdir()) == (str(tmp_path / "CAMERA"),)
    assert find_drives([tmp_path / "not there"]) == ()


def test_this_computer_can_be_searched():
    assert all(isinstance(drive, str) for drive in find_drives())
    assert all(found.device for found in find_ports())


def test_every_camera_has_a_name_for_itself():
    targets = {get_board(name).target for name in board_names()}
    assert targets <= set(ARCHITECTURES.values())
