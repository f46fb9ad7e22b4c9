"""What to copy where, for people. Imports no TensorFlow."""

from keras_omv.boards import NEEDS_COMPILER, Board, Budget
from keras_omv.deploy import LABELS_FILE, MODEL_FILE, ROMFS_FILE, SCRIPT_FILE
from keras_omv.npu import NpuReport
from keras_omv.storage import RomfsContents
from keras_omv.units import format_bytes


def copy_instructions(
    board: Board | Budget,
    *,
    storage: str = "",
    replaces_stock_models: bool = False,
    romfs: RomfsContents | None = None,
    npu: NpuReport | None = None,
) -> str:
    """Return which files to copy where, for people.

    All releases show the SD card as their USB drive where there is one, else /flash,
    and run main.py from there (`scripts/libraries/_boot.py` at 5.0.0, `main.c` of the
    port up to 4.5.9). ROMFS came with 4.7.0; mpremote and OpenMV IDE write it.

    Args:
        board: The camera, or a budget for any camera.
        storage: Where the model is to live, as `Fit.storage` says: `"romfs"`,
            `"flash"` or `"sdcard"`. Defaults to `""`: wherever there is room.
        replaces_stock_models: Whether the camera's own models, or some of them, have
            to leave ROMFS, as `Fit.replaces_stock_models` says. Defaults to `False`.
        romfs: What romfs.img holds. Defaults to `None`: there is no such file.
        npu: What became of the model on the way to the camera's NPU. Defaults to
            `None`: unknown.

    Raises:
        ValueError: If the camera has no such storage.
    """
    if isinstance(board, Board):
        _check_storage(board, storage)
    if storage == "romfs" or board.name == NEEDS_COMPILER:
        compiles = isinstance(board, Board) and board.npu is not None
        steps = (
            npu.problem if npu is not None else "",
            _image_instructions(romfs, replaces_stock_models) if romfs else "",
            _romfs_instructions(compiles, replaces_stock_models),
            f"Copy {SCRIPT_FILE} to the USB drive that the camera shows, eject the "
            f"drive and reset the camera.",
        )
        return " ".join(filter(None, steps))
    return (
        f"{_sd_card_instructions(board, storage)}Copy {SCRIPT_FILE}, {MODEL_FILE} and "
        f"{LABELS_FILE} to the USB drive that the camera shows, eject the drive and "
        f"reset the camera."
    )


def _check_storage(board: Board, storage: str) -> None:
    sizes = {"romfs": board.romfs_bytes, "flash": board.flash_fs_bytes}
    storages = [name for name, size_bytes in sizes.items() if size_bytes]
    storages += ["sdcard"] * board.has_sd_card
    if storage and storage not in storages:
        raise ValueError(
            f"Invalid value received for argument `storage`. Expected one of "
            f"{', '.join(storages)}, which {board.label} has. Received: "
            f"storage={storage!r}. Next step: take `board.fit(cost).storage`."
        )


def _image_instructions(romfs: RomfsContents, replaces_stock_models: bool) -> str:
    kept = len(romfs.files) - len((MODEL_FILE, LABELS_FILE))
    if kept:
        lost = f"what you kept, {kept} more file{'s' * (kept > 1)}, is in it too"
    else:
        lost = "OpenMV's own models are not in it, OpenMV IDE's Reset brings them back"
        if not replaces_stock_models:
            lost += ". There is room for them: give them as stock_models"
    others = "" if replaces_stock_models else ", and what is in /rom stays"
    return (
        f"Write {ROMFS_FILE} to the camera: mpremote romfs deploy {ROMFS_FILE}. It "
        f"takes the place of all that is in /rom; {lost}. Or without it{others}:"
    )


def _romfs_instructions(compiles: bool, replaces_stock_models: bool) -> str:
    room = " delete models until there is room (the IDE's Reset brings OpenMV's back),"
    npu = " (the IDE compiles it for the NPU)"
    return (
        f"In OpenMV IDE open Tools, ROM File System:{room * replaces_stock_models} add "
        f"{MODEL_FILE} and {LABELS_FILE} and write it to the camera{npu * compiles}."
    )


def _sd_card_instructions(board: Board | Budget, storage: str) -> str:
    if storage == "sdcard":
        return "Put an SD card into the camera and reset it. "
    if storage == "flash" or not isinstance(board, Board) or not board.has_sd_card:
        return ""
    return (
        f"The camera's own drive takes {format_bytes(board.flash_fs_bytes)}: for "
        f"larger files, put an SD card into the camera and reset it. "
    )
