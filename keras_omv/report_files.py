"""The files of a camera folder: whether they are what the model and the camera give.

Part of `keras_omv.report_check`. Imports no TensorFlow.
"""

import ast
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from keras_omv.boards import Board, Budget, firmware_of
from keras_omv.camera_files import camera_files
from keras_omv.deploy import (
    BOARD_FILES,
    LABELS_FILE,
    MODEL_FILE,
    NPU_MODEL_FILE,
    ROMFS_FILE,
    SCRIPT_FILE,
    is_edited,
)
from keras_omv.errors import ExportError
from keras_omv.evaluation import class_count
from keras_omv.network import Network
from keras_omv.npu import compile_for, compiler_of, examine
from keras_omv.report import ExportReport
from keras_omv.report_again import entry_differences
from keras_omv.romfs import read_image
from keras_omv.rules import file_violations, network_violations


def image_problem(files: Mapping[str, bytes]) -> str:
    """Why romfs.img cannot be read, `""` where it can be or there is none."""
    try:
        _kept(files)
    except ExportError as error:
        return f"{ROMFS_FILE}: {error}"
    return ""


def script_problems(script: bytes) -> Iterator[str]:
    """Why main.py cannot be a script, edited or not."""
    if not script.strip():
        yield f"{SCRIPT_FILE} is empty"
        return
    try:
        ast.parse(script)
    except (SyntaxError, ValueError) as error:
        yield f"{SCRIPT_FILE} is no Python: {error}"


def file_differences(
    files: Mapping[str, bytes],
    network: Network,
    board: Board | Budget,
    again: ExportReport,
) -> Iterator[str]:
    """Rules that the model breaks, and what the other files have to be.

    Args:
        files: Contents by name, romfs.img sound where there is one.
        network: What model.tflite holds.
        board: The camera.
        again: The report, made again.
    """
    firmware = firmware_of(board)
    target = getattr(board, "target", None)
    for violation in (
        *file_violations(files[MODEL_FILE]),
        *network_violations(network, firmware=firmware, target=target),
    ):
        yield f"{MODEL_FILE}: {violation}"
    if len(again.class_names) != class_count(network):
        yield (
            f"class_names: report.json has {len(again.class_names)}, the model tells "
            f"{class_count(network)} classes apart"
        )
    yield from _board_file_differences(files, board, again)
    if NPU_MODEL_FILE in files and isinstance(board, Board):
        _, problems = examine(board, files[NPU_MODEL_FILE], network)
        yield from (f"{NPU_MODEL_FILE}: {problem}" for problem in problems)


def _board_file_differences(
    files: Mapping[str, bytes], board: Board | Budget, again: ExportReport
) -> Iterator[str]:
    compiled = files.get(NPU_MODEL_FILE)
    if (compiled is not None) != again.is_compiled:
        yield f"npu: report.json and the folder differ on whether {NPU_MODEL_FILE} is"
    expected = camera_files(
        files[MODEL_FILE],
        again.class_names,
        board,
        again.fit,
        compiled=compiled,
        kept=_kept(files),
        script=again.script,
    ).files
    for name, content in expected.items():
        if name not in files:
            yield f"{name} is missing, this camera needs it"
        elif files[name] == content:
            continue
        elif not _is_own_script(name, files, again):
            yield f"{name} is not what keras_omv writes for this report"
        elif _is_cut(files[name].rstrip(), content.rstrip()):
            yield f"{name} is cut short"
    for name in sorted(set(files) & set(BOARD_FILES) - set(expected)):
        yield f"{name} is not what an export for this camera writes"


def _is_cut(found: bytes, whole: bytes) -> bool:
    return bool(found) and found != whole and whole.startswith(found)


def _is_own_script(name: str, files: Mapping[str, bytes], again: ExportReport) -> bool:
    return name == SCRIPT_FILE and is_edited(again.files, files[name])


def _kept(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """What romfs.img holds beside the model and its labels."""
    if ROMFS_FILE not in files:
        return {}
    stored = read_image(files[ROMFS_FILE])
    return {k: data for k, data in stored.items() if k not in (MODEL_FILE, LABELS_FILE)}


def compiled_differences(
    report: Mapping[str, Any],
    files: Mapping[str, bytes],
    network: Network,
    board: Board | Budget,
) -> Iterator[str]:
    """Whether the export's compiler, where it is installed, says the same again."""
    if not isinstance(board, Board) or NPU_MODEL_FILE not in files:
        return
    compiler = report["npu"]["compiler"]
    if compiler != compiler_of(board):
        return
    compiled, npu = compile_for(board, files[MODEL_FILE], network)
    if compiled != files[NPU_MODEL_FILE]:
        yield f"{NPU_MODEL_FILE} is not what {compiler} makes of {MODEL_FILE}"
    now = dataclasses.asdict(npu) if npu is not None else {}
    yield from entry_differences(report["npu"], now, "the compiler says", "npu.")
