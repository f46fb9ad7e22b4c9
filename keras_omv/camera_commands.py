"""What is sent to a camera's REPL, as MicroPython that every release runs.

Error 2 is ENOENT, 19 ENODEV, for a folder where no drive is mounted. What vfs.rom_ioctl
takes and gives is as mpremote uses it (mpremote/commands.py of 1.25 to 1.29).
"""

IDENTIFY = """import omv, os
folder = os.getcwd()
room = os.statvfs(folder)
print((omv.version_string(), omv.arch(), folder, room[1] * room[4], room[1]))"""
REMOVE = """import os
try:
 os.remove({name!r})
except OSError as error:
 if error.args[0] != 2: raise"""
HASH = """import hashlib
digest = hashlib.sha256()
chunk = memoryview(bytearray(1024))
try:
 with open({name!r}, "rb") as file:
  count = file.readinto(chunk)
  while count:
   digest.update(chunk[:count])
   count = file.readinto(chunk)
 print(digest.digest())
except OSError as error:
 if error.args[0] not in (2, 19): raise  # no such file, no such drive
 print(None)"""
ROMFS_SIZE = """import vfs
rom = vfs.rom_ioctl(2, 0) if hasattr(vfs, "rom_ioctl") else -1
if isinstance(rom, int): print(0)
elif hasattr(rom, "ioctl"): print(rom.ioctl(4, 0) * rom.ioctl(5, 0))
else: print(len(rom))"""
ROMFS_HASH = """import hashlib
digest = hashlib.sha256()
rom = memoryview(rom)
for start in range(0, {size}, 4096):
 digest.update(rom[start:min(start + 4096, {size})])
print(digest.digest())"""
RUN = """try:
 import {module}
except SystemExit:
 pass"""
