"""The default recipe: from labelled images to a camera folder.

What `keras-omv train` does. Those who want it otherwise write their own `fit` with
the callbacks.
"""

import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_omv.architecture import Levers
from keras_omv.boards import Board, Budget
from keras_omv.callbacks import BudgetMonitor, OpenMVExport
from keras_omv.images import ImageData
from keras_omv.mobilenet import model_of_levers
from keras_omv.pruners import ChannelPruning, Pruning
from keras_omv.qat import QuantizationAwareTraining
from keras_omv.recipe import (
    LearningRate,
    Recipe,
    compile_model,
    pruning_schedule,
    training_batches,
)
from keras_omv.report import ExportReport
from keras_omv.script_options import ScriptOptions
from keras_omv.space import ALPHAS, check_smallest, feasible_points

# Wider networks learn little more from a few thousand images.
LARGEST_ALPHA = 0.35
SMALLEST_RESOLUTION, LARGEST_RESOLUTION = 32, 96
RESOLUTION_STEP = 16


def train(
    data: ImageData,
    directory: str | os.PathLike[str],
    *,
    board: Board | Budget,
    levers: Levers,
    recipe: Recipe | None = None,
    shrink: bool = False,
    stock_models: Any = None,
    script: ScriptOptions | None = None,
    callbacks: Sequence[Any] = (),
) -> ExportReport:
    """Trains a MobileNetV2 on images and writes the camera folder.

    Args:
        data: Images at the resolution of the levers.
        directory: The folder to write.
        board: A `Board` or a `Budget`.
        levers: Of the MobileNetV2, from `choose_levers` perhaps.
        recipe: How to train. Defaults to `Recipe()`.
        shrink: Whether channels are removed in training until the network fits the
            board, see `ChannelPruning`. Defaults to `False`.
        stock_models: As for `omv.export`.
        script: As for `omv.export`.
        callbacks: More Keras callbacks, such as `FitProgress`.

    Returns:
        The export's report, with accuracy on `data.test_images`.
    """
    recipe = recipe or Recipe()
    keras.utils.set_random_seed(recipe.seed)
    model = model_of_levers(levers)
    images = (data.train_images, data.train_labels)
    dataset = training_batches(tf.data.Dataset.from_tensor_slices(images), recipe)
    steps = int(dataset.cardinality())
    compile_model(model, recipe)
    options = {"board": board, "stock_models": stock_models, "script": script}
    export = _make_export(data, directory, seed=recipe.seed, **options)
    model.fit(
        dataset,
        validation_data=(data.test_images, data.test_labels),
        epochs=recipe.epochs,
        shuffle=False,  # The dataset does it.
        verbose=0,
        callbacks=[
            *([ChannelPruning(board)] if shrink else []),
            *_compression(recipe, steps),
            BudgetMonitor(board),
            LearningRate(recipe, steps),
            *callbacks,
            export,
        ],
    )
    report: ExportReport = export.report  # type: ignore[assignment]
    return report


def choose_levers(
    board: Board | Budget,
    *,
    classes: int,
    channels: int = 3,
    image_side: int | None = None,
    alpha: float | None = None,
    resolution: int | None = None,
) -> Levers:
    """The largest MobileNetV2 by MACs that fits a camera.

    Args:
        board: A `Board` or a `Budget`.
        classes: Number of classes.
        channels: 1 for grey, 3 for RGB.
        image_side: The usual side of the images in pixels; more resolution than
            that (but 48) is not tried. Defaults to `None`, no such limit.
        alpha: Only this width.
        resolution: Only this resolution.

    Raises:
        BudgetError: If none fits, with what the smallest lacks.
    """
    alphas = [a for a in ALPHAS if a <= LARGEST_ALPHA] if alpha is None else [alpha]
    resolutions = _resolutions(image_side) if resolution is None else [resolution]
    points = feasible_points(
        board,
        classes=classes,
        channels=channels,
        alphas=alphas,
        resolutions=resolutions,
        limit=1,
    )
    if not points:
        check_smallest(
            board,
            classes=classes,
            channels=channels,
            alphas=alphas,
            resolutions=resolutions,
        )
    return points[0].levers


def _make_export(
    data: ImageData, directory: str | os.PathLike[str], **options: Any
) -> OpenMVExport:
    return OpenMVExport(
        directory,
        class_names=data.class_names,
        # Also plain rounding after training is tried; the better one ships.
        representative_data=data.train_images,
        evaluation_data=(data.test_images, data.test_labels),
        **options,
    )


def _compression(recipe: Recipe, steps: int) -> list[Any]:
    """The callbacks that prune weights, where the recipe does, and round to int8."""
    schedule = pruning_schedule(recipe, steps)
    return [
        *([Pruning(schedule)] if schedule else []),
        QuantizationAwareTraining(recipe.start_epoch),
    ]


def _resolutions(image_side: int | None) -> Sequence[int]:
    top = LARGEST_RESOLUTION
    if image_side is not None:
        rounded = -(-image_side // RESOLUTION_STEP) * RESOLUTION_STEP
        top = min(top, max(48, rounded))
    return range(SMALLEST_RESOLUTION, top + 1, RESOLUTION_STEP)
