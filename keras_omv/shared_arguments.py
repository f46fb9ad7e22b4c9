"""What several commands of `keras-omv` take."""

import argparse
import dataclasses
import pathlib

from keras_omv.boards import DEFAULT_FIRMWARE, board_names
from keras_omv.script_options import ScriptOptions


def add_folder(command: argparse.ArgumentParser) -> None:
    """Adds the camera folder that a command takes."""
    command.add_argument(
        "path",
        metavar="DIR",
        type=pathlib.Path,
        help="a folder that export wrote",
    )


def add_board(command: argparse.ArgumentParser, *, required: bool) -> None:
    """Adds the camera and its firmware."""
    command.add_argument(
        "--board", required=required, help=f"one of {', '.join(board_names())}"
    )
    add_firmware(command)


def add_firmware(command: argparse.ArgumentParser) -> None:
    """Adds the camera's firmware."""
    command.add_argument(
        "--firmware",
        default=DEFAULT_FIRMWARE,
        help=f"release (default {DEFAULT_FIRMWARE})",
    )


def add_quiet(command: argparse.ArgumentParser) -> None:
    """Adds that only errors are printed."""
    command.add_argument("--quiet", action="store_true", help="print errors only")


def add_out(command: argparse.ArgumentParser) -> None:
    """Adds the folder to write."""
    command.add_argument(
        "--out", required=True, type=pathlib.Path, help="the folder to write"
    )


def add_script(command: argparse.ArgumentParser) -> None:
    """Adds what main.py can do beside naming what it sees."""
    script = command.add_argument_group("what main.py does")
    script.add_argument(
        "--smooth", type=int, metavar="N", help="average the scores of N pictures"
    )
    script.add_argument(
        "--threshold", type=float, help="a lower best score is printed as unsure"
    )
    script.add_argument(
        "--roi",
        type=int,
        nargs=4,
        metavar=("X", "Y", "WIDTH", "HEIGHT"),
        help="look at this part of the 320x240 frame only",
    )
    script.add_argument(
        "--action",
        action="store_true",
        help="call a function on_class(label, confidence) in main.py, yours to fill",
    )
    script.add_argument(
        "--save-below",
        type=float,
        metavar="SCORE",
        help="save pictures with a lower best score, for the next training",
    )
    script.add_argument(
        "--save-button",
        metavar="PIN",
        help="save what the camera sees when a button at this pin is pressed",
    )


def add_stock_models(command: argparse.ArgumentParser) -> None:
    """Adds which of OpenMV's own models stay."""
    command.add_argument(
        "--stock-models",
        metavar="PATH",
        type=pathlib.Path,
        help="OpenMV's own models to keep in romfs.img: an image read from a camera, "
        "or a folder (default: none are kept)",
    )


def script_options(options: argparse.Namespace) -> ScriptOptions:
    """Returns what `add_script` has parsed.

    Raises:
        ValueError: If an option is invalid.
    """
    names = [field.name for field in dataclasses.fields(ScriptOptions)]
    return ScriptOptions(**{name: getattr(options, name) for name in names})
