"""How a classifier is trained: epochs, learning rate, augmentation, pruning.

The default recipe of `keras-omv train`, and of every trial of a search.
"""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_omv.pruning import PolynomialDecay

SHUFFLE_BUFFER = 10_000
"""Images that are shuffled among each other."""
_BATCH_SIZES = (8, 16, 32, 64)
_STEPS_OF_AN_EPOCH = 20
"""The largest batch is taken that leaves an epoch so many steps: of a few hundred
images, batches of 64 are too few steps to learn from."""
_FIRST_SHARE, _LOWEST_SHARE = 0.1, 0.01
"""Of the highest learning rate, that of the first step and that of the last."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: Passes over the images. Defaults to `24`.
        batch_size: Images of a step. Defaults to `None`: 64, or as many fewer, down
            to 8, as it takes for an epoch of 20 steps.
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
    batch_size: int | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 4e-3
    quantized_share: float = 0.25
    flip: bool = True
    shift: float = 0.1
    sparsity: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise ValueError(
                "Expected at least one epoch and one image a batch. Received: "
                f"epochs={self.epochs}, batch_size={self.batch_size}"
            )
        if not 0 <= self.sparsity < 1:
            raise ValueError(
                "Invalid value received for argument `sparsity`. Expected a share in "
                f"[0, 1). Received: sparsity={self.sparsity}"
            )

    def batch_size_for(self, images: int) -> int:
        """Images of a step where an epoch has this many."""
        if self.batch_size is not None:
            return self.batch_size
        fitting = (s for s in _BATCH_SIZES if s * _STEPS_OF_AN_EPOCH <= images)
        return max(fitting, default=min(_BATCH_SIZES))

    @property
    def start_epoch(self) -> int:
        """The epoch, counted from 0, from which int8 rounding is on."""
        return self.epochs - max(1, round(self.epochs * self.quantized_share))


class LearningRate(keras.callbacks.Callback):
    """Sets the learning rate of a recipe: it rises in a line, then falls as a cosine.

    The values of `keras.optimizers.schedules.CosineDecay` with a warm-up. AdamW traces
    a schedule of its own once for every variable, which takes longer than all the rest
    of a MobileNetV2's step; a number takes no time, and any Keras reads it from a file.

    Args:
        recipe: How to train.
        steps: Steps of an epoch.
    """

    def __init__(self, recipe: Recipe, steps: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.steps = steps

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        # Not int(iterations): a strategy of several devices mirrors the variable.
        step = int(tf.convert_to_tensor(self.model.optimizer.iterations))
        self.model.optimizer.learning_rate = self.at(step)

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        total = self.steps * self.recipe.epochs
        warm_up = min(2 * self.steps, total // 2)
        if step < warm_up:
            share = _FIRST_SHARE + (1 - _FIRST_SHARE) * step / warm_up
        else:
            done = min(1.0, (step - warm_up) / max(1, total - warm_up))
            cosine = (1 + math.cos(math.pi * done)) / 2
            share = _LOWEST_SHARE + (1 - _LOWEST_SHARE) * cosine
        return self.recipe.learning_rate * share


def compile_model(model: Any, recipe: Recipe) -> None:
    """Compiles a classifier for a fit of this recipe, in which a `LearningRate` stands.

    Which variables are trained is settled here: not afterwards.

    Args:
        model: From images to class probabilities.
        recipe: How to train.
    """
    model.compile(
        keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        # On a CPU, XLA takes longer to compile this than such a training takes.
        jit_compile=False,
    )
    make_variables(model)


def make_variables(model: Any) -> None:
    """Makes the variables of optimizer and metrics, which a first step would make.

    TensorFlow traces a step that makes variables twice. Metrics begin anew, and which
    variables are trained must not change any more.

    Args:
        model: A compiled classifier with scores `(batch, classes)`, whose labels are
            numbers.
    """
    model.optimizer.build(model.trainable_variables)
    scores = np.zeros((1, *model.output_shape[1:]), "float32")
    model.compute_metrics(None, np.zeros(1), scores)
    model.reset_metrics()


def training_batches(images: tf.data.Dataset, recipe: Recipe) -> tf.data.Dataset:
    """Shuffled, augmented batches.

    Args:
        images: Single images `(height, width, channels)` in [0, 255] and labels; a
            dataset that knows how many it holds.
        recipe: How to train.

    Returns:
        A dataset of float32 images `(batch, height, width, channels)` and labels
        `(batch,)`.
    """
    side = images.element_spec[0].shape[0]
    shift = round(recipe.shift * side)
    count = int(images.cardinality())
    shuffled = images.shuffle(min(count, SHUFFLE_BUFFER), seed=recipe.seed)

    def augment(pair: Any, number: Any) -> tuple[Any, Any]:
        return _augment(pair[0], number, shift, recipe), pair[1]

    return (
        tf.data.Dataset.zip(shuffled, tf.data.Dataset.counter())
        .map(augment, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(recipe.batch_size_for(count))
        .prefetch(tf.data.AUTOTUNE)
    )


def pruning_schedule(recipe: Recipe, steps: int) -> PolynomialDecay | None:
    """The schedule of the recipe's sparsity, `None` where it prunes nothing.

    Args:
        recipe: How to train.
        steps: Steps of an epoch.
    """
    if not recipe.sparsity:
        return None
    # Before rounding begins; a single epoch is half pruned, half rounded.
    end = max(1, recipe.start_epoch * steps or steps // 2)
    return PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=recipe.sparsity,
        begin_step=min(2 * steps, end // 2),
        end_step=end,
        frequency=max(1, steps // 4),
    )


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
