"""The command line: `keras-omv boards | cost | train | export`."""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from keras_omv import images
from keras_omv.boards import Board, board_names, get_board
from keras_omv.deploy import check_destination, copy_instructions
from keras_omv.images import ImageData
from keras_omv.survey import survey
from keras_omv.units import format_bytes

DIGITS = "digits"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; errors go to stderr in one line and exit with 1."""
    options = _parser().parse_args(arguments)
    console = Console(quiet=getattr(options, "quiet", False), highlight=False)
    try:
        options.run(options, console)
    except (ValueError, OSError) as error:
        Console(stderr=True, highlight=False).print(
            f"keras-omv: {error}", style="red", markup=False, soft_wrap=True
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="keras-omv",
        description="From images to a folder that runs on an OpenMV camera.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_boards(commands)
    _add_cost(commands)
    _add_train(commands)
    _add_export(commands)
    return parser


def _add_boards(commands: Any) -> None:
    command = commands.add_parser("boards", help="list the cameras and their memory")
    command.add_argument("--firmware", default="5.0", help="release (default 5.0)")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_boards)


def _add_cost(commands: Any) -> None:
    command = commands.add_parser("cost", help="flash, RAM and time of a model")
    command.add_argument("model", help="a .keras, .h5 or .tflite file")
    _add_board(command, required=False)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_cost)


def _add_train(commands: Any) -> None:
    command = commands.add_parser("train", help="train on images, write the folder")
    command.add_argument(
        "data",
        metavar="DATA_DIR",
        nargs="?",
        default=DIGITS,
        help="a folder with one folder of images per class, or one that holds such "
        "folders as train/ and test/ (default: scikit-learn's handwritten digits)",
    )
    _add_board(command, required=True)
    _add_out(command)
    command.add_argument("--alpha", type=float, help="MobileNetV2's width")
    command.add_argument("--resolution", type=int, help="pixels of each side")
    command.add_argument("--grey", action="store_true", help="one channel, not RGB")
    command.add_argument("--epochs", type=int, default=24)
    command.add_argument("--batch-size", type=int, default=64)
    command.add_argument("--learning-rate", type=float, default=3e-3)
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
    command.add_argument("--quiet", action="store_true", help="print errors only")
    command.set_defaults(run=_train)


def _add_export(commands: Any) -> None:
    command = commands.add_parser("export", help="write the folder of a Keras model")
    command.add_argument("model", help="a .keras or .h5 file")
    _add_board(command, required=True)
    _add_out(command)
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
        "-1 1 (default: 0 255, right for models that rescale themselves)",
        default=(0.0, 255.0),
    )
    command.add_argument("--dtype", default="int8", help="only int8")
    command.add_argument("--skip-bad-images", action="store_true")
    command.add_argument("--quiet", action="store_true", help="print errors only")
    command.set_defaults(run=_export)


def _add_board(command: argparse.ArgumentParser, *, required: bool) -> None:
    command.add_argument(
        "--board", required=required, help=f"one of {', '.join(board_names())}"
    )
    command.add_argument("--firmware", default="5.0", help="release (default 5.0)")


def _add_out(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--out", required=True, type=pathlib.Path, help="the folder to write"
    )


def _boards(options: argparse.Namespace, console: Console) -> None:
    boards = list(_known_boards(options.firmware))
    if options.json:
        console.print_json(json.dumps([dataclasses.asdict(board) for board in boards]))
        return
    table = Table(title=f"Cameras, firmware {options.firmware}", box=SIMPLE)
    for heading in ("board", "core", "max arena", "ROMFS", "NPU"):
        table.add_column(heading, no_wrap=True)
    for board in boards:
        table.add_row(
            board.name,
            f"{board.core.removeprefix('cortex-').upper()} "
            f"{board.clock_hz // 1_000_000} MHz",
            format_bytes(board.ram_limit_bytes),
            format_bytes(board.romfs_bytes) if board.romfs_bytes else "none",
            (board.npu or "").split(" (")[0],
        )
    console.print(table)


def _known_boards(firmware: str) -> Iterator[Board]:
    """The cameras that a release is for."""
    for name in board_names():
        with contextlib.suppress(ValueError):
            yield get_board(name, firmware=firmware)


def _cost(options: argparse.Namespace, console: Console) -> None:
    board = (
        get_board(options.board, firmware=options.firmware) if options.board else None
    )
    with _quiet_tensorflow():
        from keras_omv.estimation import estimate

        cost = estimate(options.model, board=board)
    fit = board.fit(cost) if board else None
    if options.json:
        content = {
            field: getattr(cost, field)
            for field in ("flash_bytes", "ram_bytes", "macs", "parameters")
        }
        content["latency_ms_estimate"] = cost.latency_ms
        content["fit"] = dataclasses.asdict(fit) if fit else None
        console.print_json(json.dumps(content))
        return
    table = _figures(cost)
    if board and fit:
        table.add_row(f"fits {board.name}", "yes" if fit.fits else "no")
    console.print(table)
    for reason in fit.reasons if fit else ():
        console.print(reason)


def _train(options: argparse.Namespace, console: Console) -> None:
    board = get_board(options.board, firmware=options.firmware)
    check_destination(options.out)
    is_digits = options.data == DIGITS and not os.path.isdir(DIGITS)
    channels = 1 if options.grey or is_digits else 3
    classes, side = (10, 48) if is_digits else survey(options.data)
    with _quiet_tensorflow():
        from keras_omv.progress import FitProgress
        from keras_omv.training import Recipe, choose_levers, train
    recipe = Recipe(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        flip=not (options.no_flip or is_digits),
        sparsity=options.sparsity,
        seed=options.seed,
    )
    levers = choose_levers(
        board,
        classes=classes,
        channels=channels,
        image_side=side,
        alpha=options.alpha,
        resolution=options.resolution,
    )
    console.print(
        f"MobileNetV2 alpha {levers.alpha}, {levers.resolution} x {levers.resolution} "
        f"{'grey' if channels == 1 else 'RGB'}, {classes} classes, for {board.title}"
    )
    data = _images(options, levers.resolution, channels, console, digits=is_digits)
    report = train(
        data,
        options.out,
        board=board,
        levers=levers,
        recipe=recipe,
        callbacks=[FitProgress(console, start_epoch=recipe.start_epoch)],
    )
    _print_report(report, board, console)


def _export(options: argparse.Namespace, console: Console) -> None:
    board = get_board(options.board, firmware=options.firmware)
    check_destination(options.out)
    with _quiet_tensorflow():
        from keras_omv.estimation import load_model
        from keras_omv.exporter import export
        from keras_omv.tracing import trace
    model = load_model(options.model)
    height, width, channels = trace(model).input_shape
    data = _images(options, (height, width), channels, console)
    low, high = options.input_range
    train_images, test_images = (
        (pixels / 255 * (high - low) + low).astype("float32")
        for pixels in (data.train_images, data.test_images)
    )
    report = export(
        model,
        options.out,
        board=board,
        class_names=data.class_names,
        representative_data=train_images,
        evaluation_data=(test_images, data.test_labels),
        input_range=(low, high),
        dtype=options.dtype,
    )
    _print_report(report, board, console)


def _images(
    options: argparse.Namespace,
    resolution: int | tuple[int, int],
    channels: int,
    console: Console,
    *,
    digits: bool = False,
) -> ImageData:
    """The images at a resolution, with a bar while they are read."""
    if digits:
        return images.load_digits(resolution=resolution, channels=channels)
    columns = (TextColumn("Reading images"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        data = images.load_image_folder(
            options.data,
            resolution=resolution,
            channels=channels,
            on_bad_image="skip" if options.skip_bad_images else "error",
            seed=getattr(options, "seed", 0),
            progress=lambda done, total: progress.update(
                task, completed=done, total=total
            ),
        )
    for path, reason in data.skipped:
        console.print(f"Left out {path}: {reason}", markup=False)
    return data


def _print_report(report: Any, board: Board, console: Console) -> None:
    """The last screen: what was made, how big, whether it fits, how accurate."""
    fit = board.fit(report.cost)
    table = _figures(report.cost)
    table.title = f"Made {report.directory}"
    table.add_row(f"fits {board.name}", "yes" if report.fits else "no")
    if report.accuracy is not None:
        count = report.accuracy.images
        table.add_row(
            f"accuracy, float ({count} images)", f"{report.accuracy.float32:.1%}"
        )
        table.add_row(
            f"accuracy, int8 ({report.accuracy.runtime})", f"{report.accuracy.int8:.1%}"
        )
    console.print(table)
    for reason in report.fit_reasons:
        console.print(reason)
    console.print(copy_instructions(board, storage=fit.storage), markup=False)


def _figures(cost: Any) -> Table:
    low, high = cost.latency_range_ms
    table = Table(show_header=False)
    table.add_row("flash (model.tflite)", format_bytes(cost.flash_bytes))
    table.add_row("RAM (arena)", format_bytes(cost.ram_bytes))
    table.add_row("multiply-accumulates", f"{cost.macs / 1e6:.2f} M")
    table.add_row(
        "time of one image, estimate",
        f"{cost.latency_ms:.0f} ms ({low:.0f} to {high:.0f})",
    )
    return table


@contextlib.contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Imports TensorFlow without the lines that it writes to stderr itself."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(null)
        os.close(stderr)
