"""A camera's raw REPL: `micropython repl.py DISK ROM SETTINGS MODE`.

It is pyexec_raw_repl of MicroPython's shared/runtime/pyexec.c (1.25.0), with raw-paste
mode unless SETTINGS has it declined; what is sent runs in this MicroPython. DISK is a
file with a FAT file system, mounted at /sdcard. ROM, if it is no empty file, is the
ROMFS partition, mounted at /rom. Exit codes say what goes on: 10 for a soft reset, 11
for machine.reset().
"""

import io
import json
import os
import sys

import stub
import vfs

SOFT_RESET, RESET = 10, 11
SECTOR_BYTES = 512
WINDOW_BYTES = 127
BANNER = "raw REPL; CTRL-B to exit\r\n>"
MODULES = ("csi", "ml", "omv", "sensor", "time")


class Disk:
    """A block device in a file."""

    def __init__(self, path, sectors):
        self._file = open(path, "r+b")  # noqa: SIM115  for as long as it is mounted
        self._sectors = sectors

    def readblocks(self, sector, buffer):
        self._file.seek(sector * SECTOR_BYTES)
        self._file.readinto(buffer)

    def writeblocks(self, sector, buffer):
        self._file.seek(sector * SECTOR_BYTES)
        self._file.write(buffer)
        self._file.flush()

    def ioctl(self, operation, argument):
        return {4: self._sectors, 5: SECTOR_BYTES}.get(operation, 0)


class Rom:
    """What OpenMV's vfs module has and Debian's has not: vfs.rom_ioctl."""

    umount = staticmethod(vfs.umount)

    def __init__(self, path):
        self._path = path
        with open(path, "rb") as file:
            self.content = bytearray(file.read())

    def rom_ioctl(self, operation, *arguments):
        if operation == 1:
            return 1
        if operation == 2:
            return self.content if self.content else -19
        if operation == 3:
            _, start, size = arguments if len(arguments) == 3 else (0, 0, arguments[1])
            self.content[start : start + size] = b"\xff" * size
            self._keep()
            return 4
        if operation == 4:
            _, start, chunk = arguments
            self.content[start : start + len(chunk)] = chunk
            self._keep()
            return 0
        return 0 if operation == 5 else -22

    def _keep(self):
        with open(self._path, "wb") as file:
            file.write(self.content)


class Machine:
    """The machine module, as far as a copy needs it."""

    @staticmethod
    def reset():
        os_exit(RESET)


class Missing:
    """The hashlib of firmware that has none."""

    def sha256(self):
        raise ImportError("no module named 'hashlib'")


class Exit(BaseException):
    """Ends this process, whatever the code that runs in it catches."""


def os_exit(code):
    raise Exit(code)


def preload():
    """Import what this release has while its stand-ins can still be found."""
    is_openmv = bool(stub.SETTINGS.get("arch"))
    for name in MODULES if is_openmv else ():
        try:  # noqa: SIM105  MicroPython has no contextlib
            __import__(name)
        except ImportError:
            pass


def start(disk_path, rom_path, settings_path):
    """Do what _boot.py does, and put the stand-ins where imports find them."""
    with open(settings_path) as file:
        stub.SETTINGS.update(json.load(file))
    others = stub.SETTINGS.get("modules", [])
    sys.path[:0] = others
    preload()
    del sys.path[: len(others) + 1]  # where the stand-ins are
    disk = Disk(disk_path, os.stat(disk_path)[6] // SECTOR_BYTES)
    vfs.mount(disk, "/sdcard", readonly=stub.SETTINGS.get("locked", False))
    rom = Rom(rom_path)
    if bytes(rom.content[:3]) == b"\xd2\xcd\x31":
        vfs.mount(vfs.VfsRom(rom.content), "/rom")
    sys.modules["vfs"] = rom
    sys.modules["machine"] = Machine
    if stub.SETTINGS.get("no_hashlib"):
        sys.modules["hashlib"] = Missing()
    os.chdir("/sdcard")
    sys.path.insert(0, "")


def put(text):
    sys.stdout.write(text)


def read():
    return sys.stdin.buffer.read(1)


def friendly():
    """Wait for Ctrl-A; a lone Ctrl-D resets."""
    put("MicroPython v1.25.0\r\n>>> ")
    while True:
        byte = read()
        if byte == b"\x01":
            return
        if byte in (b"\x04", b""):
            put("MPY: soft reboot\r\n")
            os_exit(SOFT_RESET if byte else 0)


def raw(names):
    """Take commands until Ctrl-B."""
    line = b""
    while True:
        byte = read()
        if byte == b"":
            os_exit(0)
        if byte == b"\x01":
            put(BANNER)
            line = b""
        elif byte == b"\x02":
            put("\r\n")
            return
        elif byte == b"\x05" and not line:
            sys.stdin.buffer.read(2)  # A and Ctrl-A ask for raw-paste mode
            if stub.SETTINGS.get("no_raw_paste"):
                put("R\x00")
            else:
                execute(paste(), names)
                put(">")
        elif byte == b"\x04":
            put("OK")
            if not line:
                put("\r\nMPY: soft reboot\r\n")
                os_exit(SOFT_RESET)
            execute(line, names)
            line = b""
            put(">")
        elif byte != b"\x03":
            line += byte


def paste():
    """Take a command with flow control, a window at a time."""
    put("R\x01" + chr(WINDOW_BYTES) + "\x00\x01")
    line = bytearray()
    while True:
        byte = read()
        if byte in (b"\x04", b""):
            put("\x04")
            return bytes(line)
        line += byte
        if len(line) % WINDOW_BYTES == 0:
            put("\x01")


def execute(line, names):
    error = io.StringIO()
    try:
        exec(compile(line.decode(), "<stdin>", "exec"), names)
    except SystemExit:
        pass
    except Exit:
        raise
    except BaseException as problem:
        sys.print_exception(problem, error)
    put("\x04" + error.getvalue() + "\x04")


def main(mode):
    names = {"__name__": "__main__"}
    if mode == "raw":
        put(BANNER)
    while True:
        try:
            if mode != "raw":
                friendly()
                put(BANNER)
            mode = ""
            raw(names)
        except KeyboardInterrupt:
            pass  # nothing was running


start(*sys.argv[1:4])
try:
    main(sys.argv[4])
except Exit as end:
    sys.exit(end.args[0])
