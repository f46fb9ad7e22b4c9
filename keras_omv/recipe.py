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
_FIRST_SHARE, _LOWEST_SHARE = 0.1, 0.01
"""Of the highest learning rate, that of the first step and that of the last."""


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


@keras.saving.register_keras_serializable(package="keras_omv")
class WarmUpCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises in a line from a tenth, then falls as half a cosine.

    The values of `keras.optimizers.schedules.CosineDecay` with a warm-up. AdamW traces
    its schedule once for every variable, and with Keras' own branch that takes longer
    than all the rest of a MobileNetV2's step; this one has none.

    Args:
        learning_rate: The highest.
        warmup_steps: For how many steps it rises.
        decay_steps: For how many steps after these it falls, to a hundredth.

    Example:

    >>> schedule = WarmUpCosine(0.01, warmup_steps=10, decay_steps=90)
    >>> [round(float(schedule(step)), 4) for step in (0, 5, 10, 55, 100)]
    [0.001, 0.0055, 0.01, 0.005, 0.0001]
    """

    def __init__(
        self, learning_rate: float, *, warmup_steps: int, decay_steps: int
    ) -> None:
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps

    def __call__(self, step: Any) -> Any:
        step = keras.ops.cast(step, "float32")
        decayed = keras.ops.clip((step - self.warmup_steps) / self.decay_steps, 0, 1)
        cosine = keras.ops.cos(math.pi * decayed)
        share = 1 + (1 - _LOWEST_SHARE) / 2 * (cosine - 1)
        if self.warmup_steps:
            risen = keras.ops.minimum(step / self.warmup_steps, 1)
            share += (1 - _FIRST_SHARE) * (risen - 1)
        return self.learning_rate * share

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
        }


def compile_model(model: Any, recipe: Recipe, steps: int) -> None:
    """Compiles a classifier for a fit of this recipe.

    Args:
        model: From images to class probabilities.
        recipe: How to train.
        steps: Steps of an epoch.
    """
    model.compile(
        keras.optimizers.AdamW(
            _learning_rate(recipe, steps), weight_decay=recipe.weight_decay
        ),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        # On a CPU, XLA takes longer to compile this than such a training takes.
        jit_compile=False,
    )
    _make_variables(model)


def _make_variables(model: Any) -> None:
    """Makes the variables of optimizer and metrics, which a first step would make.

    TensorFlow traces a step that makes variables twice: at alpha 0.35 that is 11 s in
    place of 4 s.
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
        .batch(recipe.batch_size)
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


def _learning_rate(recipe: Recipe, steps: int) -> WarmUpCosine:
    total = steps * recipe.epochs
    warm_up = min(2 * steps, total // 2)
    return WarmUpCosine(
        recipe.learning_rate, warmup_steps=warm_up, decay_steps=max(1, total - warm_up)
    )
