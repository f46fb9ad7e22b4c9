"""Runs main.py as the camera does: `micropython camera.py ROM DRIVE SETTINGS`.

SETTINGS is a file of JSON for stub.SETTINGS. DRIVE is mounted at / up to firmware
4.5.9 and at /sdcard later, and becomes the current directory; ROM, unless empty, is
mounted at /rom. The last line that comes out is JSON too: what the script did to the
camera.
"""

import json
import os
import sys

import stub
import vfs

MODULES = ("csi", "machine", "ml", "sensor", "tf", "time")


def preload():
    """Import what this release has while its stand-ins can still be found."""
    for name in MODULES:
        try:  # noqa: SIM105  MicroPython has no contextlib
            __import__(name)
        except ImportError:
            pass


rom, drive, settings = sys.argv[1:]
with open(settings) as file:
    stub.SETTINGS.update(json.load(file))
preload()
root = "/sdcard" if stub.firmware() >= (4, 6) else "/"
here = os.getcwd()
if rom:
    vfs.mount(vfs.VfsPosix(here + "/" + rom), "/rom")
if root == "/":
    vfs.umount("/")
vfs.mount(vfs.VfsPosix(here + "/" + drive), root)
os.chdir(root)

with open("main.py") as file:
    script = compile(file.read(), "main.py", "exec")
try:
    exec(script, {"__name__": "__main__"})
except KeyboardInterrupt:
    sys.stdout.write("stopped by the user\n")
finally:
    sys.stdout.write("\n" + json.dumps(stub.EVENTS) + "\n")
