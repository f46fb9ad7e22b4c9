"""A camera folder that is what its report says, ready to be copied."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_omv.boards import Board, Budget, firmware_of, get_board
from keras_omv.deploy import LABELS_FILE, REPORT_FILE
from keras_omv.errors import ExportError
from keras_omv.folder_swap import put_back
from keras_omv.instructions import copy_instructions
from keras_omv.npu import NpuReport
from keras_omv.report_check import check_folder, edited_files
from keras_omv.report_figures import file_hashes
from keras_omv.storage import RomfsContents

_LISTED = 3


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class CheckedFolder:
    """A folder, as it was when it was checked.

    Attributes:
        path: Where it is.
        report: The entries of its report.json.
        board: The camera it is for.
        hashes: SHA-256 of its files by name.
        edited: The files that are the user's own by now: main.py, or none.
    """

    path: pathlib.Path
    report: Mapping[str, Any]
    board: Board | Budget
    hashes: Mapping[str, str]
    edited: tuple[str, ...]

    @property
    def firmware(self) -> str:
        """The release that its main.py is for."""
        return firmware_of(self.board)

    def has(self, name: str) -> bool:
        """Whether the export wrote such a file."""
        return name in self.report["files"]

    def sha256(self, name: str) -> str:
        """The hash of a file, as it was when the folder was checked."""
        return self.hashes[name]

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            ExportError: If it changed since it was checked.
        """
        data = (self.path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.sha256(name):
            raise _changed(self.path, f"{name} was changed just now")
        return data

    def copy_instructions(self) -> str:
        """Return how to copy the folder by hand, as its report has it."""
        romfs, npu = self.report.get("romfs"), self.report.get("npu")
        return copy_instructions(
            self.board,
            storage=self.report["storage"] or "",
            replaces_stock_models=self.report["replaces_stock_models"],
            romfs=RomfsContents(**romfs) if romfs else None,
            npu=NpuReport(**npu) if npu else None,
        )


def read_checked(path: pathlib.Path) -> CheckedFolder:
    """Read a camera folder and check it as `keras-omv verify` does.

    Args:
        path: A folder that `keras_omv.export` wrote.

    Raises:
        ExportError: If it is none, or anything in it but main.py changed since then,
            or main.py is no Python by now.
    """
    put_back(path.absolute())
    if not (path / REPORT_FILE).is_file():
        raise ExportError(
            f"Expected a folder that keras-omv export wrote. Received: {str(path)!r}, "
            f"which has no {REPORT_FILE}. Next step: keras-omv export writes one."
        )
    _check_encoding(path / LABELS_FILE)
    differences = check_folder(path)
    if differences:
        more = len(differences) - _LISTED
        tail = f"; and {more} more" if more > 0 else ""
        raise _changed(path, "; ".join(differences[:_LISTED]) + tail)
    report = json.loads((path / REPORT_FILE).read_text(encoding="utf-8"))
    edited = edited_files(path)
    own = file_hashes({name: (path / name).read_bytes() for name in edited})
    return CheckedFolder(
        path, report, _board(report), {**report["files"], **own}, edited
    )


def _board(report: Mapping[str, Any]) -> Board | Budget:
    if report["budget"] is not None:
        return Budget(**report["budget"])
    return get_board(report["board"], firmware=report["firmware"])


def _check_encoding(labels: pathlib.Path) -> None:
    """Editors save labels in encodings that the camera does not read."""
    try:
        labels.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return  # that it is missing is said with all the rest
    except UnicodeDecodeError as error:
        raise ExportError(
            f"Expected {LABELS_FILE} in UTF-8, as it was exported. Received: {labels}, "
            f"which another program saved in another encoding ({error}). Next step: "
            f"export again, with the labels' new names if they are to change."
        ) from error


def _changed(path: pathlib.Path, what: str) -> ExportError:
    return ExportError(
        f"Nothing was copied: {path} changed since it was verified: {what}. Next step: "
        f"export again, or see all of it with keras-omv verify {path}."
    )
