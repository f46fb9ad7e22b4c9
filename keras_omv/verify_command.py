"""What `keras-omv verify` does: judge a .tflite file, or a folder by its report."""

import argparse
import pathlib

from rich.console import Console

from keras_omv import screens
from keras_omv.boards import get_board
from keras_omv.terminal import print_json
from keras_omv.verification import as_json, verify_file


def verify(options: argparse.Namespace, console: Console) -> int:
    """Judges a file or a folder.

    Returns:
        The exit code: 0 where everything passed.
    """
    if options.path.is_dir():
        return _verify_folder(options.path, options, console)
    return _verify_file(options.path, options, console)


def _verify_file(
    path: pathlib.Path, options: argparse.Namespace, console: Console
) -> int:
    if options.board is None:
        raise ValueError(
            "Expected --board with a .tflite file: what runs depends on the camera. "
            f"Received: {path} alone. Next step: keras-omv boards lists the cameras."
        )
    board = get_board(options.board, firmware=options.firmware)
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
    # Only folders need the report's parts.
    from keras_omv.report_check import check_folder

    differences = check_folder(path)
    if options.json:
        content = {"path": str(path), "passed": not differences}
        print_json({**content, "differences": list(differences)}, console)
    else:
        screens.print_differences(path, differences, console)
    return 1 if differences else 0
