"""What goes into a camera's ROMFS partition: our files, and models that stay.

Writing an image to the camera replaces everything in /rom. OpenMV's own models are
not part of this package; who wants to keep some gives them. This module imports no
TensorFlow.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import TypeAlias

from keras_omv.boards import Board, Budget
from keras_omv.errors import BudgetError, ExportError
from keras_omv.romfs import read_image, write_image
from keras_omv.units import format_bytes

StockModels: TypeAlias = str | os.PathLike[str] | Mapping[str, bytes] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RomfsContents:
    """What romfs.img holds.

    Attributes:
        size_bytes: The image's size.
        partition_bytes: What the camera has for it.
        files: The size of each file in it, by path.
    """

    size_bytes: int
    partition_bytes: int
    files: Mapping[str, int]


def check_stock_models(board: Board | Budget, stock_models: StockModels) -> None:
    """Check files that are to stay on a camera, before any work is done.

    Raises:
        ValueError: If the camera has no ROMFS, or `read_stock_models` refuses them.
        ExportError: As `read_stock_models` does.
    """
    if stock_models is None:
        return
    if not isinstance(board, Board) or not board.romfs_bytes:
        raise ValueError(
            f"Invalid value received for argument `stock_models`. Expected a camera "
            f"with a ROMFS partition, and firmware 4.7.0 or newer. Received: "
            f"{board.label}. Next step: leave it out."
        )
    read_stock_models(stock_models)


def read_stock_models(stock_models: StockModels) -> dict[str, bytes]:
    """Return the files that are to stay in ROMFS, contents by path.

    Args:
        stock_models: The path of an image, as it was read from the camera or saved by
            OpenMV IDE (Tools, ROM File System), or of a folder with files; or the
            files themselves by path, as `romfs.read_image` gives them, to take some
            of an image. `None` for no files.

    Raises:
        ExportError: If there is nothing at the path, or a damaged image.
        ValueError: If it is none of these.
    """
    if stock_models is None:
        return {}
    if isinstance(stock_models, Mapping):
        return dict(stock_models)
    if not isinstance(stock_models, str | os.PathLike):
        raise ValueError(
            f"Invalid value received for argument `stock_models`. Expected the path of "
            f"a ROMFS image or a folder, or files by path. Received: "
            f"stock_models={stock_models!r}. Next step: leave it out to keep none."
        )
    path = pathlib.Path(stock_models).expanduser()
    if path.is_dir():
        return _folder_files(path)
    try:
        return dict(read_image(path.read_bytes()))
    except OSError as error:
        raise ExportError(
            f"The stock models cannot be read. Expected a ROMFS image or a folder at "
            f"{path}. Received: {error}. Next step: check the path."
        ) from error


def image_for(
    board: Board, files: Mapping[str, bytes], *, kept: Mapping[str, bytes] | None = None
) -> bytes:
    """Return the ROMFS image of a camera, checked: it fits, and it reads back.

    Example:
        >>> from keras_omv.boards import get_board
        >>> labels = {"labels.txt": b"cat"}
        >>> len(image_for(get_board("openmv-h7"), labels))
        38

    Args:
        board: The camera and its firmware.
        files: Contents by path. main.py looks for `model.tflite` and `labels.txt`.
        kept: More files; where `files` has the same path, that content is taken.
            Defaults to `None`: none.

    Raises:
        BudgetError: If the partition is too small.
        ExportError: If the image does not read back.
        ValueError: If the camera has no ROMFS, or for a path or content that
            `romfs.write_image` refuses.
    """
    if not board.romfs_bytes:
        raise ValueError(
            f"No ROMFS on {board.label}. Expected a camera with a ROMFS partition, and "
            f"firmware 4.7.0 or newer. Received: {board.label}. Next step: copy the "
            f"files to the camera's USB drive."
        )
    kept = {path: data for path, data in (kept or {}).items() if path not in files}
    image = write_image({**kept, **files})
    if len(image) > board.romfs_bytes:
        raise _too_large(board, len(image), kept, len(write_image(files)))
    if read_image(image) != {**kept, **files}:
        raise ExportError(
            f"The ROMFS image does not read back as it was written. Expected "
            f"{', '.join((*kept, *files))}. Received: other files. Next step: please "
            f"report this, with these files."
        )
    return image


def contents_of(image: bytes, board: Board) -> RomfsContents:
    """Return what an image holds.

    Raises:
        ExportError: For a damaged image.
    """
    files = {path: len(data) for path, data in read_image(image).items()}
    return RomfsContents(
        size_bytes=len(image), partition_bytes=board.romfs_bytes, files=files
    )


def _folder_files(folder: pathlib.Path) -> dict[str, bytes]:
    """Return the files of a folder and those in it, but hidden ones, by path."""
    found = {path.relative_to(folder): path for path in sorted(folder.rglob("*"))}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in found.items()
        if path.is_file() and not any(part.startswith(".") for part in name.parts)
    }


def _too_large(
    board: Board, size_bytes: int, kept: Mapping[str, bytes], alone_bytes: int
) -> BudgetError:
    sizes = sorted(((len(kept[path]), path) for path in kept), reverse=True)
    names = ", ".join(f"{path} ({format_bytes(count)})" for count, path in sizes)
    keeping = f" Kept files, the largest first: {names}." if kept else ""
    return BudgetError(
        f"The ROMFS image does not fit {board.label}. Expected at most "
        f"{board.romfs_bytes:,} bytes ({format_bytes(board.romfs_bytes)}). Received: "
        f"{size_bytes:,} bytes ({format_bytes(size_bytes)}), "
        f"{size_bytes - board.romfs_bytes:,} bytes over.{keeping} "
        f"Next step: {_room_advice(board, alone_bytes)}."
    )


def _room_advice(board: Board, alone_bytes: int) -> str:
    if alone_bytes <= board.romfs_bytes:
        return (
            "keep fewer files; OpenMV IDE's Reset brings OpenMV's own back (Tools, ROM "
            "File System)"
        )
    return (
        "a smaller model: a smaller alpha or last convolution; or copy the files to "
        "the camera's USB drive instead"
    )
