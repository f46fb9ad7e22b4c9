"""The folder for the camera: its labels, and where it is written.

Its script, main.py, comes from `keras_omv.scripts`. This module imports no TensorFlow.
"""

import hashlib
import itertools
import json
import logging
import os
import pathlib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from keras_omv.errors import DatasetError, ExportError
from keras_omv.folder_swap import put_back, write_whole
from keras_omv.neuralart import MEMORY_FILE, SETTINGS_FILE
from keras_omv.scripts import camera_script as camera_script  # part of this interface

_LOGGER = logging.getLogger(__name__)

MODEL_FILE = "model.tflite"
DESKTOP_MODEL_FILE = "model_desktop.tflite"
LABELS_FILE = "labels.txt"
SCRIPT_FILE = "main.py"
_OLD_SCRIPT_FILE = "main_before{}.py"
"""A main.py that was edited, once another export has written its own."""
REPORT_FILE = "report.json"
REPORT_PAGE_FILE = "report.html"
ROMFS_FILE = "romfs.img"
NPU_MODEL_FILE = "model_npu.tflite"
"""The model compiled for the camera's NPU; in /rom it is called `MODEL_FILE`."""
_MODEL_FILES = (MODEL_FILE, DESKTOP_MODEL_FILE)
_TEXT_FILES = (LABELS_FILE, SCRIPT_FILE, REPORT_FILE, REPORT_PAGE_FILE)
SELFTEST_FILES = ("selftest.py", "selftest.bin")
"""Made from a folder's model, and stale after another export."""
BOARD_FILES = (ROMFS_FILE, NPU_MODEL_FILE, SETTINGS_FILE, MEMORY_FILE)
"""What only some cameras need."""
OUR_FILES = frozenset((*_MODEL_FILES, *_TEXT_FILES, *BOARD_FILES, *SELFTEST_FILES))
"""What an older export may leave behind; anything else in the folder is kept."""

REPORT_KIND = "keras_omv.report/"
"""How the "format" of our report.json starts; a version follows."""

_LINE_BREAKS_AND_CONTROLS = ("Cc", "Zl", "Zp", "Cs")
"""Unicode categories that no label may hold: controls (with tab, CR and LF), line
and paragraph separators, and lone surrogates, which UTF-8 cannot write."""


def class_labels(names: Iterable[str]) -> str:
    r"""Return the text of labels.txt: one class name a line, in the given order.

    Names are written as they are; quotes, spaces and any script are fine, because
    labels are read as data on the camera and never become part of its script.

    Example:
        >>> class_labels(["cat", "dog"])
        'cat\ndog\n'

    Args:
        names: Class names in the order of the model's outputs.

    Raises:
        DatasetError: If there are no names, or one is not a string, blank, given
            twice, or holds a line break or another control character.
    """
    labels = () if isinstance(names, str) else tuple(names)
    if not labels:
        raise DatasetError(
            f"Invalid class names. Expected a list with one name for each class. "
            f"Received: {names!r}. Next step: pass a list, such as ['cat', 'dog']."
        )
    for index, label in enumerate(labels):
        _check_label(label, labels[:index])
    return "".join(f"{label}\n" for label in labels)


def check_destination(directory: str | os.PathLike[str]) -> pathlib.Path:
    """Make sure that a camera folder can be written, before any work is done.

    A folder is ours if it is empty or its report.json has our format. If an earlier
    write was killed half-way, the folder that was there before is put back.

    Args:
        directory: The folder to write; it and its parents may not exist yet.

    Returns:
        The folder's absolute path, links resolved.

    Raises:
        ExportError: If something that is not ours is in the way, or the folder
            cannot be created there.
    """
    path = pathlib.Path(directory).expanduser().resolve()
    if path == pathlib.Path.cwd() or path in pathlib.Path.cwd().parents:
        raise _destination_error(path, "it is, or holds, the current folder")
    _check_parent(path)
    put_back(path)
    if path.exists() and not path.is_dir():
        raise _destination_error(path, "a file is in the way")
    if path.is_dir() and os.path.ismount(path):
        raise _destination_error(path, "a drive is mounted there, it cannot be swapped")
    if path.is_dir() and not _is_ours(path):
        raise _destination_error(path, "it exists and keras_omv did not write it")
    return path


def write_folder(
    directory: str | os.PathLike[str], files: Mapping[str, bytes]
) -> pathlib.Path:
    """Write a camera folder so that it is there whole or not at all.

    A failed, interrupted or killed write leaves the old folder or the new one. Of
    an older export only `OUR_FILES` are replaced; what else was put into the
    folder, such as TensorBoard logs, stays. A main.py that was edited becomes
    main_before.py.

    Args:
        directory: The folder to write, see `check_destination`.
        files: Contents by file name. Include report.json: the folder can only be
            written again if that says it is ours.

    Returns:
        The folder's absolute path.

    Raises:
        ExportError: If the folder cannot be written.
        ValueError: If a file name is a path.
    """
    _check_file_names(files)
    path = check_destination(directory)
    edited = _edited_script(path)
    if edited:
        _LOGGER.warning(
            "%s was edited: it is %s now, beside a new one", SCRIPT_FILE, *edited
        )
    try:
        write_whole(path, {**edited, **files}, replaces=OUR_FILES)
    except OSError as error:
        raise ExportError(
            f"The camera folder could not be written. Expected a folder at {path}. "
            f"Received: {error}. Next step: free some space or choose another folder; "
            f"what was there before is unchanged."
        ) from error
    return path


def _check_label(name: object, earlier: tuple[str, ...]) -> None:
    problem = _label_problem(name, earlier)
    if problem:
        raise DatasetError(
            f"Invalid class name {name!r}: {problem}. Expected names that differ, each "
            f"one line of text. Next step: rename the class (its folder, where names "
            f"come from folders)."
        )


def _label_problem(name: object, earlier: tuple[str, ...]) -> str:
    if not isinstance(name, str):
        return f"it is of type {type(name).__name__}, not a string"
    if not name.strip():
        return "it is blank"
    if any(unicodedata.category(c) in _LINE_BREAKS_AND_CONTROLS for c in name):
        return "it holds a line break or a control character"
    return "it is there twice" if name in earlier else ""


def _destination_error(path: pathlib.Path, problem: str) -> ExportError:
    return ExportError(
        f"Cannot write the camera folder: {problem}. Expected a new folder, an empty "
        f"one, or one from an earlier export. Received: {path}. Next step: choose "
        f"another folder or move what is there."
    )


def is_edited(hashes: Mapping[str, str], script: bytes) -> bool:
    """Return whether main.py is not the one that was exported.

    Args:
        hashes: SHA-256 by name, as report.json has them.
        script: The bytes of main.py.
    """
    return hashes.get(SCRIPT_FILE) != hashlib.sha256(script).hexdigest()


def _edited_script(path: pathlib.Path) -> dict[str, bytes]:
    """Return the main.py that is to be kept, by its new name, a free one."""
    script, hashes = path / SCRIPT_FILE, _report(path).get("files")
    if not script.is_file() or not isinstance(hashes, dict):
        return {}
    content = script.read_bytes()
    if not is_edited(hashes, content):
        return {}
    names = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    files = (_OLD_SCRIPT_FILE.format(name) for name in names)
    return {next(one for one in files if _is_free(path / one, content)): content}


def _is_free(path: pathlib.Path, content: bytes) -> bool:
    return not path.exists() or path.read_bytes() == content


def _is_ours(path: pathlib.Path) -> bool:
    if not any(path.iterdir()):
        return True
    form = _report(path).get("format")
    return isinstance(form, str) and form.startswith(REPORT_KIND)


def _report(path: pathlib.Path) -> dict[str, Any]:
    """Return the entries of a folder's report.json, none where it is no report."""
    try:
        report = json.loads((path / REPORT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _check_parent(path: pathlib.Path) -> None:
    parent = next(folder for folder in path.parents if os.path.exists(folder))
    if not parent.is_dir():
        raise _destination_error(path, f"{parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise _destination_error(path, f"{parent} is not writable")


def _check_file_names(files: Mapping[str, bytes]) -> None:
    for name in files:
        if name in ("", ".", "..") or pathlib.PurePath(name).name != name:
            raise ValueError(
                f"Invalid file name. Expected a name without a folder, such as "
                f"{MODEL_FILE!r}. Received: {name!r}."
            )
