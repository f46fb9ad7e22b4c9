"""The files of an export that follow from the model, its labels and the camera.

An export writes them, and `keras_omv.report_check` makes them again. This module
imports no TensorFlow.
"""

import dataclasses
from collections.abc import Mapping

from keras_omv import neuralart
from keras_omv.boards import NEEDS_COMPILER, Board, Budget, firmware_of
from keras_omv.deploy import (
    LABELS_FILE,
    MODEL_FILE,
    NPU_MODEL_FILE,
    ROMFS_FILE,
    SCRIPT_FILE,
    camera_script,
    class_labels,
)
from keras_omv.fit import Fit
from keras_omv.script_options import ScriptOptions
from keras_omv.storage import RomfsContents, contents_of, image_for


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CameraFiles:
    """What an export writes beside the model and the report.

    Attributes:
        files: Contents by name.
        romfs: What romfs.img holds, `None` where there is none.
    """

    files: Mapping[str, bytes]
    romfs: RomfsContents | None


def camera_files(
    model: bytes,
    labels: tuple[str, ...],
    board: Board | Budget,
    fit: Fit,
    *,
    compiled: bytes | None = None,
    kept: Mapping[str, bytes] | None = None,
    script: ScriptOptions | None = None,
) -> CameraFiles:
    """Return the files that go to the camera with a model.

    Args:
        model: The bytes of model.tflite.
        labels: The names of the classes.
        board: The camera.
        fit: Whether the model fits it, and where.
        compiled: The model compiled for the camera's NPU. Defaults to `None`: there
            is no such file.
        kept: What is to stay in ROMFS, contents by path. Defaults to `None`: nothing.
        script: Options of main.py. Defaults to `None`: none.

    Raises:
        BudgetError: If the files do not fit ROMFS.
    """
    files = {
        LABELS_FILE: class_labels(labels).encode(),
        SCRIPT_FILE: camera_script(
            firmware=firmware_of(board), options=script
        ).encode(),
    }
    if compiled is not None:
        files[NPU_MODEL_FILE] = compiled
    if not isinstance(board, Board):
        return CameraFiles(files=files, romfs=None)
    if board.name == NEEDS_COMPILER and board.release >= neuralart.FIRST_RELEASE:
        files.update(neuralart.settings_files())
    if not _has_image(board, fit, compiled):
        return CameraFiles(files=files, romfs=None)
    ours = {MODEL_FILE: compiled or model, LABELS_FILE: files[LABELS_FILE]}
    files[ROMFS_FILE] = image_for(board, ours, kept=kept)
    romfs = contents_of(files[ROMFS_FILE], board)
    return CameraFiles(files=files, romfs=romfs)


def _has_image(board: Board, fit: Fit, compiled: bytes | None) -> bool:
    """Whether an export writes romfs.img: the model loads, and from there."""
    loads = compiled is not None or board.name != NEEDS_COMPILER
    return fit.fits and fit.storage == "romfs" and loads
