"""What `keras-omv deploy` and `keras-omv selftest` do with a camera folder.

mpremote and pyserial are imported only where a camera is on a serial port.
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from keras_omv import selftest as selftests
from keras_omv import staging
from keras_omv.boards import NEEDS_COMPILER
from keras_omv.camera_check import check_camera, memory_note
from keras_omv.camera_link import find_drives, find_ports
from keras_omv.checked_folder import CheckedFolder, read_checked
from keras_omv.deploy import (
    LABELS_FILE,
    MODEL_FILE,
    NPU_MODEL_FILE,
    ROMFS_FILE,
    SCRIPT_FILE,
)
from keras_omv.drive_copy import MountedDrive
from keras_omv.errors import CameraError
from keras_omv.progress import working
from keras_omv.units import format_bytes

if TYPE_CHECKING:
    from keras_omv.serial_copy import SerialCamera

ASIDE = SCRIPT_FILE + ".keras_omv"
"""What main.py is called while ROMFS is written, so that nothing starts from it."""
SELFTEST_SECONDS = 300.0
ROMFS_NOTE = (
    "The model is meant to live in ROMFS, where its weights take no RAM: --romfs "
    "writes romfs.img there. This copies it to the drive."
)
EDITED = "{} was edited after the export; it is taken as it is."
UNCHECKED = (
    "A drive does not tell its camera's model and firmware: they were not compared."
)


def deploy(options: argparse.Namespace, console: Console) -> int:
    """Copies a folder to a camera and starts its script.

    Returns:
        The exit code: 0 where the script runs.
    """
    folder = read_checked(options.path)
    for name in folder.edited:
        _print(EDITED.format(name), console)
    _check_romfs(folder, wanted=options.romfs)
    if folder.has(ROMFS_FILE) and not options.romfs:
        _print(ROMFS_NOTE, console)
    if options.drive is not None:
        return _to_drive(folder, str(options.drive), options, console)
    port = options.port or _only("serial ports", "--port", find_ports())
    if port:
        return _to_port(folder, port, options, console)
    drive = _only("camera drives", "--drive", find_drives())
    if drive:
        return _to_drive(folder, drive, options, console)
    raise CameraError(
        f"No camera is connected: there is neither a serial port of one nor its drive. "
        f"Next step: connect it by USB, close OpenMV IDE and run the same command "
        f"again; or by hand: {folder.copy_instructions()}"
    )


def selftest(options: argparse.Namespace, console: Console) -> int:
    """Writes selftest.py and selftest.bin into a folder."""
    folder = read_checked(options.path)
    made = _selftest_of(folder)
    for name, data in _selftest_files(made).items():
        (folder.path / name).write_bytes(data)
    console.print(
        f"{folder.path}: {selftests.SCRIPT_FILE} and {selftests.DATA_FILE}, "
        f"{made.frame_count} frames answered by {made.runtime}. Copy both beside "
        f"{SCRIPT_FILE} and run {selftests.SCRIPT_FILE} in OpenMV IDE, or let "
        f"keras-omv deploy {folder.path} --selftest do it.",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _check_romfs(folder: CheckedFolder, *, wanted: bool) -> None:
    has_image = folder.has(ROMFS_FILE)
    if wanted and not has_image:
        raise CameraError(
            f"Expected {ROMFS_FILE} in {folder.path} for --romfs. Received: none, the "
            f"export chose {folder.report['storage'] or 'no'} storage for this camera "
            f"and firmware. Next step: leave --romfs out, or by hand: "
            f"{folder.copy_instructions()}"
        )
    if folder.board.name == NEEDS_COMPILER and not wanted:
        step = "add --romfs" if has_image else folder.copy_instructions()
        raise CameraError(
            f"The {folder.board.name} loads a compiled model from ROMFS only. Expected "
            f"--romfs. Received: a plain copy. Next step: {step}"
        )


def _only(what: str, option: str, found: tuple[object, ...]) -> str:
    """The one that is connected, `""` for none."""
    if len(found) > 1:
        raise CameraError(
            f"Expected one camera, or {option} to choose. Received: {len(found)} "
            f"{what}: {'; '.join(map(str, found))}. Next step: add {option} with one "
            f"of them."
        )
    return getattr(found[0], "device", str(found[0])) if found else ""


def _to_drive(
    folder: CheckedFolder, path: str, options: argparse.Namespace, console: Console
) -> int:
    if options.romfs or options.selftest:
        option = "--romfs" if options.romfs else "--selftest"
        raise CameraError(
            f"{option} needs the camera's serial port. Expected --port. Received: the "
            f"drive at {path}. Next step: connect the camera and name its port, or by "
            f"hand: {folder.copy_instructions()}"
        )
    drive = MountedDrive(path)
    files = _files(folder, romfs=False)
    with _copying() as progress:
        names = staging.stage(drive, files, progress)
    staging.commit(drive, names)
    _print_copied(files, names, drive.check, console)
    steps = "Next step: eject the drive and reset the camera, it then runs main.py."
    _print(f"{UNCHECKED} {steps}", console)
    return 0


def _to_port(
    folder: CheckedFolder, port: str, options: argparse.Namespace, console: Console
) -> int:
    from keras_omv.serial_copy import SerialCamera

    with SerialCamera(port) as camera:
        found = camera.identify()
        check_camera(folder, arch=found.arch, firmware=found.firmware)
        _print(f"{folder.board.name} with firmware {found.firmware} at {port}", console)
        _print(memory_note(folder, found.firmware), console)
        test = _selftest_of(folder) if options.selftest else None
        _copy(folder, camera, console, romfs=options.romfs)
        if test is not None and not _run_selftest(test, camera, console):
            return 1
        return _start(camera, options.seconds, console)


def _copy(
    folder: CheckedFolder, camera: "SerialCamera", console: Console, *, romfs: bool
) -> None:
    files = _files(folder, romfs=romfs)
    if romfs:
        camera.check_romfs((folder.path / ROMFS_FILE).stat().st_size)
    else:
        _check_rom_model(folder, camera)
    with _copying() as progress:
        names = staging.stage(camera, files, progress)
    if romfs:
        _flash(folder, camera, console)
    staging.commit(camera, names)
    if romfs and SCRIPT_FILE not in names:
        camera.rename(ASIDE, SCRIPT_FILE)
    camera.remove(ASIDE)
    _print_copied(files, names, f"read back from {camera.label}", console)


def _flash(folder: CheckedFolder, camera: "SerialCamera", console: Console) -> None:
    """Write ROMFS while there is no main.py that would load half a model."""
    folder.read(ROMFS_FILE)
    if camera.sha256(SCRIPT_FILE) is not None:
        camera.rename(SCRIPT_FILE, ASIDE)
    with working(f"Writing {ROMFS_FILE}"):
        camera.flash_romfs(folder.path / ROMFS_FILE)
    _print(f"{ROMFS_FILE}: written and read back", console)


def _files(folder: CheckedFolder, *, romfs: bool) -> dict[str, bytes]:
    """What goes to the drive, the script last; the rest may be in ROMFS."""
    names = () if romfs else (MODEL_FILE, LABELS_FILE)
    return {name: folder.read(name) for name in (*names, SCRIPT_FILE)}


def _check_rom_model(folder: CheckedFolder, camera: "SerialCamera") -> None:
    """Refuse to copy a model that main.py would not take."""
    in_rom = camera.sha256(f"/rom/{MODEL_FILE}")
    ours = [folder.sha256(n) for n in (MODEL_FILE, NPU_MODEL_FILE) if folder.has(n)]
    if in_rom is not None and in_rom not in ours:
        raise CameraError(
            f"Nothing was copied: {camera.label} has another {MODEL_FILE} in /rom, "
            f"which main.py takes before the drive's. Next step: add --romfs if the "
            f"folder has {ROMFS_FILE}, or delete the one in /rom with OpenMV IDE: "
            f"Tools, ROM File System."
        )


def _start(camera: "SerialCamera", seconds: float, console: Console) -> int:
    """Show what main.py prints, then let the camera run it alone."""
    _print(f"{SCRIPT_FILE} prints:", console)
    error = camera.run(
        SCRIPT_FILE.removesuffix(".py"),
        lambda line: _print(line, console),
        seconds=seconds,
    )
    camera.reset()
    if error is None:
        _print("The camera was reset and goes on by itself.", console)
        return 0
    _print_error(error, console)
    _print_error(f"{SCRIPT_FILE} ended, which it should not: see above.", console)
    return 1


def _run_selftest(
    test: selftests.Selftest, camera: "SerialCamera", console: Console
) -> bool:
    files = _selftest_files(test)
    with _copying() as progress:
        names = staging.stage(camera, files, progress)
    staging.commit(camera, names)
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        _print(line, console)

    error = camera.run(
        selftests.SCRIPT_FILE.removesuffix(".py"), show, seconds=SELFTEST_SECONDS
    )
    _print_error(error or "", console)
    camera.close()
    camera.open()  # main.py finds the heap as after a start
    for name in files:
        camera.remove(name)
    has_passed = any(line.startswith("PASS") for line in lines)
    if not has_passed:
        text = f"The selftest did not pass, {SCRIPT_FILE} was not started."
        _print_error(text, console)
    return has_passed


def _selftest_of(folder: CheckedFolder) -> selftests.Selftest:
    return selftests.make_selftest(
        folder.read(MODEL_FILE),
        board=folder.board.name,
        firmware=folder.firmware,
        compiled=folder.read(NPU_MODEL_FILE) if folder.has(NPU_MODEL_FILE) else None,
    )


def _selftest_files(made: selftests.Selftest) -> dict[str, bytes]:
    return {
        selftests.DATA_FILE: made.data,
        selftests.SCRIPT_FILE: made.script.encode(),
    }


@contextmanager
def _copying() -> Iterator[staging.Progress]:
    """A bar for one file after the other."""
    with working("Copying") as bar:

        def report(name: str, done: int, total: int) -> None:
            bar.rename(name.removesuffix(staging.NEW_SUFFIX))
            bar(done, total)

        yield report


def _print_copied(
    files: Mapping[str, bytes], copied: tuple[str, ...], check: str, console: Console
) -> None:
    for name, data in files.items():
        state = "copied" if name in copied else "was there already"
        _print(f"{name}: {state}, {format_bytes(len(data))}, {check}", console)


def _print(text: str, console: Console) -> None:
    if text:
        console.print(text, markup=False, soft_wrap=True)


def _print_error(text: str, console: Console) -> None:
    """Print what --quiet does not leave out."""
    _print(text, Console(stderr=True, highlight=False) if console.quiet else console)
