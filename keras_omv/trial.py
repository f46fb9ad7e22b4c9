"""One trial of a search: a candidate built, trained and measured as the camera runs it.

Knows nothing of oracles and of other trials.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_omv.accuracy import device_classes
from keras_omv.batches import CALIBRATION_IMAGES, batches_of
from keras_omv.errors import TrainingDivergedError
from keras_omv.feeds import Images
from keras_omv.mobilenet import model_of_levers
from keras_omv.proposals import AUGMENTATIONS, Proposal
from keras_omv.pruners import Pruning
from keras_omv.qat import QuantizationAwareTraining
from keras_omv.recipe import (
    LearningRate,
    Recipe,
    compile_model,
    pruning_schedule,
    training_batches,
)
from keras_omv.results import write_atomically
from keras_omv.trained import trained_view
from keras_omv.view import QuantizedView

MODEL_FILE = "model.keras"
RANGES_FILE = "ranges.json"


class StopBehind(keras.callbacks.Callback):
    """Stops a training that is behind most earlier ones at the same epoch.

    As the median stopping rule (Golovin et al. 2017, "Google Vizier: A Service for
    Black-Box Optimization", section 3.2.2), but at the lowest quarter: it stops where
    the best `val_accuracy` so far is below the first quartile of the others' best.
    The median stopped one best network in eight of `benchmarks/search_table.py`.

    Args:
        curves: The `val_accuracy` of earlier trainings, epoch by epoch.
        grace_epochs: Epochs that every training gets.
        least: How many earlier trainings there must be.
    """

    def __init__(
        self, curves: Sequence[Sequence[float]], *, grace_epochs: int, least: int = 3
    ) -> None:
        super().__init__()
        self.curves = curves
        self.grace_epochs = grace_epochs
        self.least = least

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._best = 0.0
        self.stopped = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._best = max(self._best, (logs or {}).get("val_accuracy", 0.0))
        others = [
            max(curve[: epoch + 1]) for curve in self.curves if len(curve) > epoch
        ]
        if epoch + 1 < self.grace_epochs or len(others) < self.least:
            return
        if self._best < np.quantile(others, 0.25):
            self.model.stop_training = True
            self.stopped = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The epochs of a trial.

    Attributes:
        begin_epoch: The epoch, counted from 0, that training goes on from.
        end_epoch: The epoch that it ends before.
        total_epochs: The epochs of a whole training, for the learning rate.
    """

    begin_epoch: int
    end_epoch: int
    total_epochs: int


def recipe_of(proposal: Proposal, recipe: Recipe, span: Span) -> Recipe:
    """The recipe with what the proposal says otherwise."""
    changes: dict[str, Any] = {"epochs": span.total_epochs}
    if proposal.learning_rate is not None:
        changes["learning_rate"] = proposal.learning_rate
    if proposal.sparsity is not None:
        changes["sparsity"] = proposal.sparsity
    if proposal.augmentation is not None:
        changes["flip"], changes["shift"] = AUGMENTATIONS[proposal.augmentation]
    return dataclasses.replace(recipe, **changes)


def build(proposal: Proposal, recipe: Recipe) -> Any:
    """A compiled model of a proposal, with random weights.

    Args:
        proposal: What to build.
        recipe: How it is to be trained.
    """
    keras.utils.set_random_seed(recipe.seed)
    model = model_of_levers(proposal.point.levers)
    compile_model(model, recipe)
    return model


def fit(
    model: Any,
    train: Images,
    validation: Images,
    *,
    recipe: Recipe,
    span: Span,
    quantized: bool,
    callbacks: Sequence[Any],
    verbose: int | str,
) -> tuple[float, ...]:
    """Trains a model over a span of epochs.

    Returns:
        The `val_accuracy` of each epoch.

    Raises:
        TrainingDivergedError: If the weights are no longer finite numbers.
    """
    resolution = model.input_shape[1]
    dataset = training_batches(train.at(resolution), recipe)
    steps = int(dataset.cardinality())
    own: list[keras.callbacks.Callback] = [LearningRate(recipe, steps)]
    if schedule := pruning_schedule(recipe, steps):
        own.append(Pruning(schedule))
    if quantized and span.end_epoch > recipe.start_epoch:
        own.append(QuantizationAwareTraining(max(recipe.start_epoch, span.begin_epoch)))
    history = model.fit(
        dataset,
        validation_data=validation.at(resolution).batch(
            recipe.batch_size_for(train.count)
        ),
        initial_epoch=span.begin_epoch,
        epochs=span.end_epoch,
        shuffle=False,  # The dataset does it.
        callbacks=[*own, *callbacks],
        verbose=verbose,
    )
    if not all(np.all(np.isfinite(weight)) for weight in model.get_weights()):
        raise TrainingDivergedError(
            "Expected finite weights. Received: some that are not. Next step: lower "
            "the learning rate."
        )
    return tuple(float(value) for value in history.history["val_accuracy"])


def judge(model: Any, train: Images, validation: Images) -> tuple[float, QuantizedView]:
    """Accuracy of the int8 network that a model would be exported as.

    Returns:
        The share of validation images that it gets right, and the quantized view.
    """
    resolution = model.input_shape[1]
    view = trained_view(model)
    if view is None:
        view = QuantizedView(model)
        images, _ = train.arrays(resolution, CALIBRATION_IMAGES)
        view.calibrate(batches_of(images))
    pixels, labels = validation.arrays(resolution)
    return float(np.mean(device_classes(view, pixels) == labels)), view


def save(model: Any, view: Any, folder: pathlib.Path) -> None:
    """Keeps a trained model and its activation ranges in a trial's folder."""
    new = folder / f"new.{MODEL_FILE}"
    model.save(new)
    new.replace(folder / MODEL_FILE)
    write_atomically(
        folder / RANGES_FILE, json.dumps(sorted(view.get_ranges().items()))
    )


def load(folder: pathlib.Path) -> Any:
    """The model that `save` kept, compiled as it was."""
    return keras.models.load_model(folder / MODEL_FILE)


def load_quantized(folder: pathlib.Path) -> tuple[Any, QuantizedView]:
    """The model that `save` kept, and its quantized view with the kept ranges."""
    model = load(folder)
    view = QuantizedView(model)
    content = json.loads((folder / RANGES_FILE).read_text())
    view.set_ranges({value: (low, high) for value, (low, high) in content})
    return model, view
