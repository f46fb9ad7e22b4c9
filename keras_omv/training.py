"""The default recipe: from labelled images to a camera folder.

What `keras-omv train` does. Those who want it otherwise write their own `fit` with
the callbacks.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_omv.architecture import Levers
from keras_omv.boards import Board, Budget
from keras_omv.callbacks import (
    BudgetMonitor,
    OpenMVExport,
    Pruning,
    QuantizationAwareTraining,
)
from keras_omv.exporter import ExportReport
from keras_omv.images import ImageData
from keras_omv.mobilenet import MobileNetV2
from keras_omv.pruning import PolynomialDecay
from keras_omv.space import ALPHAS, check_smallest, feasible_points

# Wider networks learn little more from a few thousand images.
LARGEST_ALPHA = 0.35
SMALLEST_RESOLUTION, LARGEST_RESOLUTION = 32, 96
RESOLUTION_STEP = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: Passes over the images. Defaults to `24`.
        batch_size: Images of a step. Defaults to `64`.
        learning_rate: The highest; it rises for two epochs and falls as a cosine.
            Defaults to `0.003`.
        weight_decay: Of AdamW. Defaults to `0.004`.
        quantized_share: Share of the epochs, the last ones, with int8 rounding.
            Defaults to `0.25`.
        flip: Whether images are mirrored at random. Defaults to `True`.
        shift: By which share of the side images are moved at random. Defaults to
            `0.1`.
        sparsity: Share of weights that magnitude pruning makes zero. Defaults to
            `0.0`, no pruning.
        seed: Of everything random. Defaults to `0`.
    """

    epochs: int = 24
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 4e-3
    quantized_share: float = 0.25
    flip: bool = True
    shift: float = 0.1
    sparsity: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                "Expected at least one epoch and one image a batch. Received: "
                f"epochs={self.epochs}, batch_size={self.batch_size}"
            )
        if not 0 <= self.sparsity < 1:
            raise ValueError(
                "Invalid value received for argument `sparsity`. Expected a share in "
                f"[0, 1). Received: sparsity={self.sparsity}"
            )

    @property
    def start_epoch(self) -> int:
        """The epoch, counted from 0, from which int8 rounding is on."""
        return self.epochs - max(1, round(self.epochs * self.quantized_share))


def train(
    data: ImageData,
    directory: str | os.PathLike[str],
    *,
    board: Board | Budget,
    levers: Levers,
    recipe: Recipe | None = None,
    callbacks: Sequence[Any] = (),
) -> ExportReport:
    """Trains a MobileNetV2 on images and writes the camera folder.

    Args:
        data: Images at the resolution of the levers.
        directory: The folder to write.
        board: A `Board` or a `Budget`.
        levers: Of the MobileNetV2, from `choose_levers` perhaps.
        recipe: How to train. Defaults to `Recipe()`.
        callbacks: More Keras callbacks, such as `FitProgress`.

    Returns:
        The export's report, with accuracy on `data.test_images`.
    """
    recipe = recipe or Recipe()
    keras.utils.set_random_seed(recipe.seed)
    model = MobileNetV2(
        (levers.resolution, levers.resolution, levers.channels),
        levers.classes,
        alpha=levers.alpha,
        head_channels=levers.head_channels,
        depth=levers.depth,
    )
    dataset = training_dataset(data, recipe)
    steps = int(dataset.cardinality())
    model.compile(
        keras.optimizers.AdamW(
            _learning_rate(recipe, steps), weight_decay=recipe.weight_decay
        ),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        # On a CPU, XLA takes longer to compile this than such a training takes.
        jit_compile=False,
    )
    export = OpenMVExport(
        directory,
        board=board,
        class_names=data.class_names,
        evaluation_data=(data.test_images, data.test_labels),
    )
    model.fit(
        dataset,
        validation_data=(data.test_images, data.test_labels),
        epochs=recipe.epochs,
        shuffle=False,  # The dataset does it.
        verbose=0,
        callbacks=[
            *_pruning(recipe, steps),
            QuantizationAwareTraining(recipe.start_epoch),
            BudgetMonitor(board),
            *callbacks,
            export,
        ],
    )
    report: ExportReport = export.report  # type: ignore[assignment]
    return report


def training_dataset(data: ImageData, recipe: Recipe) -> tf.data.Dataset:
    """Shuffled, augmented batches of images in [0, 255] and labels.

    Returns:
        A dataset of float32 images `(batch, height, width, channels)` and int64
        labels `(batch,)`.
    """
    images = tf.data.Dataset.from_tensor_slices((data.train_images, data.train_labels))
    images = images.shuffle(len(data.train_labels), seed=recipe.seed)
    shift = round(recipe.shift * data.train_images.shape[1])

    def augment(pair: Any, number: Any) -> tuple[Any, Any]:
        return _augment(pair[0], number, shift, recipe), pair[1]

    return (
        tf.data.Dataset.zip(images, tf.data.Dataset.counter())
        .map(augment, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(recipe.batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


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


def _resolutions(image_side: int | None) -> Sequence[int]:
    top = LARGEST_RESOLUTION
    if image_side is not None:
        rounded = -(-image_side // RESOLUTION_STEP) * RESOLUTION_STEP
        top = min(top, max(48, rounded))
    return range(SMALLEST_RESOLUTION, top + 1, RESOLUTION_STEP)


def _augment(image: Any, number: Any, shift: int, recipe: Recipe) -> Any:
    """Moves an image by some pixels, and mirrors every other one."""
    seed = tf.stack([tf.constant(recipe.seed, tf.int64), number])
    shape = tf.shape(image)
    if recipe.flip:
        image = tf.image.stateless_random_flip_left_right(image, seed)
    if shift:
        pads = [[shift, shift], [shift, shift], [0, 0]]
        image = tf.pad(image, pads, mode="REFLECT")
        image = tf.image.stateless_random_crop(image, shape, seed)
    return tf.cast(image, tf.float32)


def _learning_rate(recipe: Recipe, steps: int) -> Any:
    total = steps * recipe.epochs
    warm_up = min(2 * steps, total // 2)
    return keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 10,
        max(1, total - warm_up),
        alpha=0.01,
        warmup_target=recipe.learning_rate,
        warmup_steps=warm_up,
    )


def _pruning(recipe: Recipe, steps: int) -> list[Pruning]:
    if not recipe.sparsity:
        return []
    begin, end = 2 * steps, max(2 * steps + 1, recipe.start_epoch * steps)
    schedule = PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=recipe.sparsity,
        begin_step=begin,
        end_step=end,
        frequency=max(1, steps // 4),
    )
    return [Pruning(schedule)]
