"""What the commands of `keras-omv` do that write a camera folder: train and export.

Each takes the parsed options and the console to print to. TensorFlow is imported
only once the options are known to be right.
"""

import argparse

from rich.console import Console

from keras_omv import images, screens
from keras_omv.architecture import BLOCKS, Levers
from keras_omv.boards import Board, get_board
from keras_omv.deploy import check_destination
from keras_omv.images import ImageData
from keras_omv.progress import working
from keras_omv.shared_arguments import script_options
from keras_omv.survey import survey
from keras_omv.terminal import quiet_tensorflow


def train(options: argparse.Namespace, console: Console) -> None:
    """Trains a MobileNetV2 on images and writes the camera folder."""
    board = get_board(options.board, firmware=options.firmware)
    check_destination(options.out)
    script = script_options(options)
    is_digits = images.is_digits(options.data)
    channels = 1 if options.grey or is_digits else 3
    classes, side = (10, 48) if is_digits else survey(options.data)
    with quiet_tensorflow():
        from keras_omv.fit_progress import FitProgress
        from keras_omv.recipe import Recipe
        from keras_omv.training import train as train_model
    recipe = Recipe(
        epochs=_epochs(options, is_digits),
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        flip=not (options.no_flip or is_digits),
        sparsity=options.sparsity,
        seed=options.seed,
    )
    levers = _levers(options, board, classes=classes, channels=channels, side=side)
    console.print(
        f"MobileNetV2 alpha {levers.alpha}, last convolution {levers.head}, "
        f"{levers.depth} of {BLOCKS} blocks, {levers.resolution} x {levers.resolution} "
        f"{'grey' if channels == 1 else 'RGB'}, {classes} classes, for {board.title}"
    )
    data = _images(options, levers.resolution, channels, console, digits=is_digits)
    with FitProgress(console, start_epoch=recipe.start_epoch) as progress:
        report = train_model(
            data,
            options.out,
            board=board,
            levers=levers,
            recipe=recipe,
            shrink=options.shrink,
            stock_models=options.stock_models,
            script=script,
            callbacks=[progress],
        )
    screens.print_report(report, board, console)


def _levers(
    options: argparse.Namespace,
    board: Board,
    *,
    classes: int,
    channels: int,
    side: int | None,
) -> Levers:
    """The network that was asked for, or the largest that fits."""
    from keras_omv import training

    if options.shrink:
        return Levers(
            alpha=options.alpha or training.LARGEST_ALPHA,
            resolution=options.resolution or training.LARGEST_RESOLUTION,
            channels=channels,
            classes=classes,
        )
    return training.choose_levers(
        board,
        classes=classes,
        channels=channels,
        image_side=side,
        alpha=options.alpha,
        resolution=options.resolution,
    )


def _epochs(options: argparse.Namespace, is_digits: bool) -> int:
    """Digits are learned sooner than photographs."""
    if options.epochs is not None:
        return int(options.epochs)
    return 16 if is_digits else 24


def export(options: argparse.Namespace, console: Console) -> None:
    """Writes the camera folder of a saved model, whatever made it."""
    board = get_board(options.board, firmware=options.firmware)
    check_destination(options.out)
    script = script_options(options)
    with quiet_tensorflow():
        from keras_omv import trained
        from keras_omv.accuracy import WHOLE_RANGE, range_of
        from keras_omv.exporter import export as export_model
        from keras_omv.old_models import load
        from keras_omv.tracing import trace
    with working(f"Reading {options.model}"):
        model = load(options.model)
    height, width, channels = trace(model).input_shape
    data = _images(options, (height, width), channels, console)
    view = trained.trained_view(model)
    known_range = range_of(view) if view else WHOLE_RANGE
    low, high = options.input_range or known_range
    train_images, test_images = (
        (pixels / 255 * (high - low) + low).astype("float32")
        for pixels in (data.train_images, data.test_images)
    )
    report = export_model(
        model,
        options.out,
        board=board,
        class_names=data.class_names,
        representative_data=train_images,
        evaluation_data=(test_images, data.test_labels),
        input_range=(low, high),
        dtype=options.dtype,
        stock_models=options.stock_models,
        script=script,
    )
    screens.print_report(report, board, console)


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
    with working("Reading images") as progress:
        data = images.load_image_folder(
            options.data,
            resolution=resolution,
            channels=channels,
            on_bad_image="skip" if options.skip_bad_images else "error",
            seed=getattr(options, "seed", 0),
            progress=progress,
        )
    for path, reason in data.skipped:
        console.print(f"Left out {path}: {reason}", markup=False)
    return data
