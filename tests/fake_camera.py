"""A camera on a pseudo-terminal: a real MicroPython with a FAT drive and a raw REPL.

tests/micropython/repl.py is the camera's side. This side carries bytes between it and
the terminal, turns Ctrl-C into the interrupt that it is on a camera, starts MicroPython
again after a soft reset, and hangs up after machine.reset() or when it is unplugged.
"""

import ast
import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import threading
import tty

PROGRAM = pathlib.Path(__file__).parent / "micropython" / "repl.py"
SOFT_RESET, RESET = 10, 11
FORMAT = """import vfs
{device}
vfs.VfsFat.mkfs(Disk({disk!r}, {sectors}))
"""
DEVICE = """
class Disk:
    def __init__(self, path, sectors):
        self.file, self.sectors = open(path, "r+b"), sectors
    def readblocks(self, sector, buffer):
        self.file.seek(sector * 512)
        self.file.readinto(buffer)
    def writeblocks(self, sector, buffer):
        self.file.seek(sector * 512)
        self.file.write(buffer)
        self.file.flush()
    def ioctl(self, operation, argument):
        return {4: self.sectors, 5: 512}.get(operation, 0)
"""
MOUNT = """import os, vfs
{device}
vfs.mount(Disk({disk!r}, {sectors}), "/drive")
"""
LIST = """
files = {}
for entry in os.ilistdir("/drive"):
    if entry[1] == 0x8000:
        with open("/drive/" + entry[0], "rb") as file:
            files[entry[0]] = file.read()
print(files)
"""


class FakeCamera:
    """A camera that can be unplugged.

    Args:
        micropython: The command that runs MicroPython.
        folder: For its memory; nothing else may be in it.
        drive_bytes: The size of its drive.
        rom_bytes: The size of its ROMFS partition; 0 for none.
        settings: For tests/micropython/stub.py, and `arch`, `locked`, `no_hashlib`,
            `no_raw_paste` and `modules`, folders of other stand-ins.
    """

    def __init__(
        self, micropython, folder, *, drive_bytes=128 << 10, rom_bytes=0, **settings
    ):
        self._micropython = micropython
        self._disk, self._rom = folder / "disk", folder / "rom"
        self._settings = folder / "settings.json"
        self._sectors = drive_bytes // 512
        self._disk.write_bytes(bytes(drive_bytes))
        self._rom.write_bytes(b"\xff" * rom_bytes)
        self.configure(**{"firmware": "5.0.0", "arch": "OMV4 H7 1024", **settings})
        self._evaluate(FORMAT)
        self.resets = 0
        self.received = b""
        self._unplug_at = None
        self._process = None

    def configure(self, **settings):
        """Change what it is; it has to be off."""
        self._wanted = {**getattr(self, "_wanted", {}), **settings}
        self._settings.write_text(json.dumps(self._wanted))

    def files(self):
        """Return what is on its drive, by name; it has to be off."""
        return ast.literal_eval(self._evaluate(MOUNT + LIST))

    def put(self, files):
        """Write files to its drive; it has to be off."""
        write = "".join(
            f"with open('/drive/{name}', 'wb') as file: file.write({content!r})\n"
            for name, content in files.items()
        )
        self._evaluate(MOUNT + write)

    @property
    def rom(self):
        return self._rom.read_bytes()

    def unplug_after(self, count, *, text=b""):
        """Go away when so many more bytes came, from when `text` came on."""
        self._unplug_at = (count, text)

    @contextlib.contextmanager
    def on(self):
        """Plug it in: a context with the name of its port."""
        self._main, port = os.openpty()
        tty.setraw(port)
        self._is_gone = threading.Event()
        self.received = b""
        self._start("")
        carrier = threading.Thread(target=self._carry, daemon=True)
        carrier.start()
        name = os.ttyname(port)
        os.close(port)
        try:
            yield name
        finally:
            self._is_gone.set()
            carrier.join(timeout=10)
            self._process.kill()
            self._end()

    def _end(self):
        """Wait for the process that was the camera, and return its exit code."""
        self._process.stdin.close()
        self._process.stdout.close()
        return self._process.wait()

    def _start(self, mode):
        self._is_up = False
        paths = map(str, (self._disk, self._rom, self._settings))
        self._process = subprocess.Popen(
            [*self._micropython, str(PROGRAM), *paths, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd=self._settings.parent,
        )

    def _carry(self):
        try:
            while not self._is_gone.is_set():
                sources = [self._process.stdout] + [self._main] * self._is_up
                ready, _, _ = select.select(sources, [], [], 0.05)
                if self._process.stdout in ready:
                    self._from_camera()
                if self._main in ready:
                    self._to_camera()
        finally:
            os.close(self._main)  # the port goes away

    def _from_camera(self):
        data = os.read(self._process.stdout.fileno(), 4096)
        if data:
            self._is_up = True
            os.write(self._main, data)
            return
        code = self._end()
        if code == SOFT_RESET:
            self._start("raw")
            return
        self.resets += code == RESET
        self._is_gone.set()

    def _to_camera(self):
        try:
            data = os.read(self._main, 1024)
        except OSError:  # nobody has the port open
            return self._is_gone.wait(0.05)
        self.received += data
        if self._is_unplugged():
            return self._is_gone.set()
        return self._pass_on(data)

    def _pass_on(self, data):
        before, interrupt, after = data.partition(b"\x03")
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(before)
        if interrupt:
            self._process.send_signal(signal.SIGINT)
            self._pass_on(after)

    def _is_unplugged(self):
        if self._unplug_at is None:
            return False
        count, text = self._unplug_at
        start = self.received.find(text)
        return start >= 0 and len(self.received) - start >= count

    def _evaluate(self, template):
        code = template.replace("{device}", DEVICE)
        code = code.replace("{disk!r}", repr(str(self._disk)))
        code = code.replace("{sectors}", str(self._sectors))
        path = self._settings.with_name("code.py")
        path.write_text(code)
        done = subprocess.run(
            [*self._micropython, str(path)], capture_output=True, timeout=60, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
