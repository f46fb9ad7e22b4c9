"""What `keras-omv verify` does: judge a .tflite file, or a folder by its report."""

import argparse
import json
import pathlib
from typing import Any

import numpy as np
from rich.console import Console

from keras_omv import screens
from keras_omv.boards import DEFAULT_FIRMWARE, get_board
from keras_omv.deploy import REPORT_FILE
from keras_omv.folder_swap import put_back
from keras_omv.images import is_digits, load_digits, load_image_folder
from keras_omv.progress import working
from keras_omv.terminal import print_json
from keras_omv.verification import as_json, verify_file

FILE_OPTIONS = ("board", "firmware", "input_range")
FOLDER_OPTIONS = ("data", "skip_bad_images")
EDITED = "{} was edited after the export: it is Python, no more is checked"
NOT_MEASURED = "accuracy was not measured again; --data with the same images does that"


def verify(options: argparse.Namespace, console: Console) -> int:
    """Judges a file or a folder.

    Returns:
        The exit code: 0 where everything passed.
    """
    put_back(options.path.absolute())
    if not options.path.exists():
        raise ValueError(
            "Expected a .tflite file or a camera folder. Received: "
            f"{str(options.path)!r}, which does not exist. Next step: check the path."
        )
    if options.path.is_dir():
        _refuse(FILE_OPTIONS, options, "a .tflite file: a folder's report names them")
        return _verify_folder(options.path, options, console)
    _refuse(FOLDER_OPTIONS, options, "a folder: its report says how to read images")
    return _verify_file(options.path, options, console)


def _refuse(names: tuple[str, ...], options: argparse.Namespace, only: str) -> None:
    given = [f"--{n.replace('_', '-')}" for n in names if getattr(options, n)]
    if given:
        raise ValueError(
            f"Expected {' and '.join(given)} only with {only}. Received: "
            f"{options.path}. Next step: leave it out, or give the other path."
        )


def _verify_file(
    path: pathlib.Path, options: argparse.Namespace, console: Console
) -> int:
    if options.board is None:
        raise ValueError(
            "Expected --board with a .tflite file: what runs depends on the camera. "
            f"Received: {path} alone. Next step: keras-omv boards lists the cameras."
        )
    board = get_board(options.board, firmware=options.firmware or DEFAULT_FIRMWARE)
    input_range = tuple(options.input_range) if options.input_range else None
    found = verify_file(path, board=board, input_range=input_range)
    if options.json:
        print_json({"path": str(path), **as_json(found)}, console)
    else:
        screens.print_verification(path.name, found, board, console)
    return 0 if found.passed else 1


def _verify_folder(
    path: pathlib.Path, options: argparse.Namespace, console: Console
) -> int:
    if not (path / REPORT_FILE).exists():
        raise ValueError(
            f"Expected a camera folder. Received: {str(path)!r}, which has no "
            f"{REPORT_FILE}. Next step: keras-omv export writes such a folder."
        )
    # Only folders need the report's parts.
    from keras_omv.report_check import check_folder, edited_files

    differences = check_folder(path)
    edited = () if differences else edited_files(path)
    # A report that was changed does not say how the images are to be read.
    is_measured = options.data is not None and not differences
    if is_measured:
        data = _test_images(path, options)
        differences = check_folder(path, evaluation_data=data)
    if options.json:
        content = {"path": str(path), "passed": not differences}
        content.update(accuracy_measured=is_measured, edited=edited)
        print_json({**content, "differences": list(differences)}, console)
    else:
        if not is_measured:
            console.print(NOT_MEASURED, markup=False, soft_wrap=True)
        for name in edited:
            console.print(EDITED.format(name), markup=False, soft_wrap=True)
        screens.print_differences(path, differences, console)
    return 1 if differences else 0


def _test_images(
    path: pathlib.Path, options: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray]:
    """The images that an export measured on, as they enter the model, and labels."""
    report = json.loads((path / REPORT_FILE).read_text(encoding="utf-8"))
    _, height, width, channels = report["input_shape"]
    low, high = report["input_range"]
    size: dict[str, Any] = {"resolution": (height, width), "channels": channels}
    if is_digits(options.data):
        data = load_digits(**size)
    else:
        with working("Reading images") as progress:
            data = load_image_folder(
                options.data,
                on_bad_image="skip" if options.skip_bad_images else "error",
                seed=report["seed"] or 0,
                progress=progress,
                **size,
            )
    images = data.test_images / 255 * (high - low) + low
    return images.astype("float32"), data.test_labels
