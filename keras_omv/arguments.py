"""The commands of `keras-omv` and what they take."""

import argparse
import pathlib
from typing import Any

from keras_omv import commands, deploy_command, making, search_command, verify_command
from keras_omv import shared_arguments as shared
from keras_omv.architecture import BLOCKS, HEAD_CHANNELS
from keras_omv.images import DIGITS
from keras_omv.proposals import ORACLES


def make_parser() -> argparse.ArgumentParser:
    """The parser; each command's function is in its options as `run`."""
    parser = argparse.ArgumentParser(
        prog="keras-omv",
        description="From images to a folder that runs on an OpenMV camera.",
    )
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_boards(subparsers)
    _add_cost(subparsers)
    _add_space(subparsers)
    _add_train(subparsers)
    _add_search(subparsers)
    _add_export(subparsers)
    _add_verify(subparsers)
    _add_deploy(subparsers)
    _add_selftest(subparsers)
    return parser


def _add_boards(subparsers: Any) -> None:
    command = subparsers.add_parser("boards", help="list the cameras and their memory")
    shared.add_firmware(command)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=commands.boards)


def _add_cost(subparsers: Any) -> None:
    command = subparsers.add_parser("cost", help="flash, RAM and time of a model")
    command.add_argument(
        "model",
        nargs="?",
        help="a .keras, .h5 or .tflite file or a SavedModel folder; without one, the "
        "MobileNetV2 of --alpha, --resolution and --classes",
    )
    command.add_argument("--alpha", type=float, help="MobileNetV2's width")
    command.add_argument("--resolution", type=int, help="pixels of each side")
    command.add_argument("--classes", type=int, help="number of classes")
    command.add_argument("--grey", action="store_true", help="one channel, not RGB")
    command.add_argument(
        "--head",
        type=int,
        help=f"channels of the last convolution (default {HEAD_CHANNELS})",
    )
    command.add_argument("--depth", type=int, help=f"blocks kept (default {BLOCKS})")
    shared.add_board(command, required=False)
    command.add_argument("--json", action="store_true", help="print JSON")
    shared.add_quiet(command)
    command.set_defaults(run=commands.cost)


def _add_space(subparsers: Any) -> None:
    command = subparsers.add_parser(
        "space", help="the MobileNetV2s that fit a camera, the largest first"
    )
    shared.add_board(command, required=True)
    command.add_argument("--classes", type=int, required=True, help="number of classes")
    command.add_argument("--grey", action="store_true", help="one channel, not RGB")
    command.add_argument(
        "--limit", type=int, help="how many to list (default 20, with --json all)"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    shared.add_quiet(command)
    command.set_defaults(run=commands.space)


def _add_train(subparsers: Any) -> None:
    command = subparsers.add_parser("train", help="train on images, write the folder")
    command.add_argument(
        "data",
        metavar="DATA_DIR",
        nargs="?",
        default=DIGITS,
        help="a folder with one folder of images per class, or one that holds such "
        "folders as train/ and test/ (default: digits, scikit-learn's handwritten "
        "ones)",
    )
    shared.add_board(command, required=True)
    shared.add_out(command)
    command.add_argument("--alpha", type=float, help="MobileNetV2's width")
    command.add_argument("--resolution", type=int, help="pixels of each side")
    command.add_argument("--grey", action="store_true", help="one channel, not RGB")
    command.add_argument("--epochs", type=int, help="default 24, for digits 16")
    command.add_argument(
        "--batch-size", type=int, help="default 64, less for few images"
    )
    command.add_argument("--learning-rate", type=float, default=3e-3)
    command.add_argument(
        "--shrink",
        action="store_true",
        help="start with the network of --alpha and --resolution, whether it fits or "
        "not, and remove channels in training until it does",
    )
    command.add_argument(
        "--sparsity", type=float, default=0.0, help="share of weights to prune"
    )
    command.add_argument(
        "--no-flip", action="store_true", help="never mirror images in training"
    )
    command.add_argument(
        "--skip-bad-images", action="store_true", help="leave unreadable images out"
    )
    command.add_argument("--seed", type=int, default=0)
    shared.add_quiet(command)
    shared.add_stock_models(command)
    shared.add_script(command)
    command.set_defaults(run=making.train)


def _add_search(subparsers: Any) -> None:
    command = subparsers.add_parser(
        "search", help="try networks that fit the camera, write the best one's folder"
    )
    command.add_argument(
        "data", metavar="DATA_DIR", help="a folder of images as for train"
    )
    shared.add_board(command, required=True)
    shared.add_out(command)
    end = command.add_mutually_exclusive_group()
    end.add_argument("--trials", type=int, help="networks to train (default 20)")
    end.add_argument("--hours", type=float, help="begin no training after this time")
    command.add_argument(
        "--oracle",
        choices=ORACLES,
        default=ORACLES[0],
        help=f"what proposes the next network (default {ORACLES[0]})",
    )
    command.add_argument("--epochs", type=int, default=24, help="default 24")
    command.add_argument(
        "--batch-size", type=int, help="default 64, less for few images"
    )
    command.add_argument("--max-ms", type=float, help="time of an inference at most")
    command.add_argument("--max-alpha", type=float, default=0.35, help="default 0.35")
    command.add_argument("--max-resolution", type=int, default=96, help="default 96")
    command.add_argument("--grey", action="store_true", help="one channel, not RGB")
    command.add_argument(
        "--weights", help="what networks start from: imagenet, or a file"
    )
    command.add_argument(
        "--from-scratch",
        action="store_true",
        help="start no network from an earlier one",
    )
    command.add_argument(
        "--no-early-stopping",
        action="store_true",
        help="train networks to the end that are behind",
    )
    command.add_argument(
        "--no-flip", action="store_true", help="never mirror images in training"
    )
    command.add_argument(
        "--project",
        type=pathlib.Path,
        help="where trials are kept (default: OUT-search)",
    )
    command.add_argument("--seed", type=int, default=0)
    shared.add_quiet(command)
    shared.add_script(command)
    command.set_defaults(run=search_command.search)


def _add_export(subparsers: Any) -> None:
    command = subparsers.add_parser("export", help="write the folder of a saved model")
    command.add_argument(
        "model", help="a .keras, .h5 or .tflite file, or a SavedModel folder"
    )
    shared.add_board(command, required=True)
    shared.add_out(command)
    command.add_argument(
        "--data",
        metavar="DATA_DIR",
        required=True,
        help="images as for train: they give the activation ranges, the labels and "
        "the accuracy",
    )
    command.add_argument(
        "--input-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="what pixels 0 and 255 are where they enter the model: 0 255, 0 1 or "
        "-1 1 (default: what the file says, else 0 255, right for models that rescale "
        "themselves)",
    )
    command.add_argument("--dtype", default="int8", help="only int8")
    command.add_argument("--skip-bad-images", action="store_true")
    shared.add_quiet(command)
    shared.add_stock_models(command)
    shared.add_script(command)
    command.set_defaults(run=making.export)


def _add_verify(subparsers: Any) -> None:
    command = subparsers.add_parser(
        "verify",
        help="would a camera run this .tflite file, and does it answer? is a camera "
        "folder what its report says?",
    )
    command.add_argument(
        "path",
        metavar="PATH",
        type=pathlib.Path,
        help="a .tflite file, whoever made it, or a folder that export wrote",
    )
    shared.add_board(command, required=False)
    command.set_defaults(firmware=None)  # A folder's report names its own.
    command.add_argument(
        "--input-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="what pixels 0 and 255 are where they enter the model, where that is "
        "unusual (default: any of 0 255, 0 1, -1 1 and the like)",
    )
    command.add_argument(
        "--data",
        metavar="DATA_DIR",
        type=pathlib.Path,
        help="the images that were exported with, to measure the accuracy of a folder "
        "again; digits, where it was trained without a folder",
    )
    command.add_argument(
        "--skip-bad-images", action="store_true", help="as for the export"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    shared.add_quiet(command)
    command.set_defaults(run=verify_command.verify)


def _add_deploy(subparsers: Any) -> None:
    command = subparsers.add_parser(
        "deploy", help="copy a camera folder to the camera and start its script"
    )
    shared.add_folder(command)
    place = command.add_mutually_exclusive_group()
    place.add_argument(
        "--port", help="the camera's serial port (default: the only one)"
    )
    place.add_argument(
        "--drive",
        metavar="PATH",
        type=pathlib.Path,
        help="where the camera's USB drive is mounted, to copy there instead",
    )
    command.add_argument(
        "--romfs",
        action="store_true",
        help="write the folder's romfs.img to the camera; what is in /rom goes",
    )
    command.add_argument(
        "--selftest",
        action="store_true",
        help="compare the camera's answers with TFLM's before it starts",
    )
    command.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        help="how long to show what main.py prints (default 10)",
    )
    shared.add_quiet(command)
    command.set_defaults(run=deploy_command.deploy)


def _add_selftest(subparsers: Any) -> None:
    command = subparsers.add_parser(
        "selftest",
        help="write a script and frames that show whether the camera answers right",
    )
    shared.add_folder(command)
    shared.add_quiet(command)
    command.set_defaults(run=deploy_command.selftest)
