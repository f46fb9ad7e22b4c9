"""Runs main.py as the camera does: `micropython camera.py ROM SDCARD SETTINGS`.

ROM, unless empty, is mounted at /rom and SDCARD at /sdcard, which becomes the
current directory. SETTINGS is JSON for stub.SETTINGS. The last line that comes out
is JSON too: what the script did to the camera.
"""

import json
import os
import sys

import stub
import vfs

rom, sdcard, settings = sys.argv[1:]
stub.SETTINGS.update(json.loads(settings))
if rom:
    vfs.mount(vfs.VfsPosix(rom), "/rom")
vfs.mount(vfs.VfsPosix(sdcard), "/sdcard")
os.chdir("/sdcard")

with open("main.py") as file:
    script = compile(file.read(), "main.py", "exec")
try:
    exec(script, {"__name__": "__main__"})
except KeyboardInterrupt:
    sys.stdout.write("stopped by the user\n")
finally:
    sys.stdout.write("\n" + json.dumps(stub.EVENTS) + "\n")
