"""Runs the trials of a search: each candidate once, from what is known already."""

import contextlib
import copy
import dataclasses
import gc
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_omv import trial as trials
from keras_omv.boards import Board, Budget
from keras_omv.callbacks import BudgetMonitor
from keras_omv.feeds import Images
from keras_omv.proposals import Proposal, SearchSpace
from keras_omv.recipe import Recipe
from keras_omv.results import TrialResult, read_result, read_results, write_result
from keras_omv.starting import start_weights


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """How the trials of one search are run.

    Attributes:
        folder: The project's, which holds a folder for each trial.
        board: The camera.
        space: What the oracle may propose.
        recipe: How a trial trains.
        weights: What trials start from that no earlier trial can start.
        carry_weights: Whether a trial starts from an earlier one.
        early_stopping: Whether a trial that is behind is stopped.
        quantization_aware: Whether the last epochs round to int8.
        strategy: A `tf.distribute.Strategy`, or `None`.
    """

    folder: pathlib.Path
    board: Board | Budget
    space: SearchSpace
    recipe: Recipe
    weights: Any
    carry_weights: bool
    early_stopping: bool
    quantization_aware: bool
    strategy: Any

    def settings(self) -> dict[str, Any]:
        """What decides what a trial's result means, as JSON data."""
        board = self.board
        limits = dataclasses.asdict(board) if isinstance(board, Budget) else {}
        return {
            "board": board.name,
            "firmware": getattr(board, "firmware", ""),
            **limits,
            "candidates": self.space.fingerprint(),
            "recipe": dataclasses.asdict(self.recipe),
            "weights": _name(self.weights),
            "carry_weights": self.carry_weights,
            "early_stopping": self.early_stopping,
            "quantization_aware": self.quantization_aware,
        }

    def run(
        self,
        trial_id: str,
        values: Mapping[str, Any],
        train: Images,
        validation: Images,
        *,
        callbacks: Sequence[Any] = (),
        verbose: int | str = 0,
    ) -> TrialResult:
        """Trains and judges a candidate, unless a trial did the same before.

        Args:
            trial_id: KerasTuner's name of the trial.
            values: Of its hyperparameters.
            train: Images to train on.
            validation: Images to judge by.
            callbacks: Keras callbacks to copy.
            verbose: As for `model.fit`.
        """
        span = _span(values, self.recipe.epochs)
        proposal = self.space.proposal(values)
        known = self._known_result(trial_id, proposal, span)
        if known is not None:
            write_result(self.trial_folder(trial_id), known)
            return known
        former = values.get("tuner/trial_id")  # Hyperband goes on with that trial.
        options = {"callbacks": callbacks, "verbose": verbose}
        return self._trained(
            trial_id, proposal, span, former, train, validation, options
        )

    def build(self, values: Mapping[str, Any]) -> Any:
        """A compiled model of hyperparameters, with random weights.

        Args:
            values: Of the hyperparameters.
        """
        proposal = self.space.proposal(values)
        span = _span(values, self.recipe.epochs)
        recipe = trials.recipe_of(proposal, self.recipe, span)
        return trials.build(proposal, recipe)

    def load(self, trial_id: str) -> Any:
        """The trained model of a trial."""
        result = read_result(self.trial_folder(trial_id))
        with self._scope():
            name = result.model_trial_id if result else trial_id
            return trials.load(self.trial_folder(name))

    def results(self) -> tuple[TrialResult, ...]:
        """What all trials found, the most accurate first."""
        return read_results(self.folder)

    def trial_folder(self, trial_id: str) -> pathlib.Path:
        """Where a trial's files are."""
        folder = self.folder / f"trial_{trial_id}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _known_result(
        self, trial_id: str, proposal: Proposal, span: trials.Span
    ) -> TrialResult | None:
        training = tuple(sorted(proposal.training.items()))
        key = proposal.point.levers, training, span.end_epoch, span.begin_epoch
        own = read_result(self.trial_folder(trial_id))
        for result in (own, *self.results()):
            if result is not None and result.key == key:
                return dataclasses.replace(result, trial_id=trial_id)
        return None

    def _trained(
        self,
        trial_id: str,
        proposal: Proposal,
        span: trials.Span,
        former: str | None,
        train: Images,
        validation: Images,
        options: Mapping[str, Any],
    ) -> TrialResult:
        begin = time.perf_counter()
        keras.backend.clear_session()
        gc.collect()  # The graphs of the trial before hold each other.
        recipe = trials.recipe_of(proposal, self.recipe, span)
        with self._scope():
            model, started_from = self._model(proposal, recipe, former)
        stops = self._stops(span, started_from)
        curve = trials.fit(
            model,
            train,
            validation,
            recipe=recipe,
            span=span,
            quantized=self.quantization_aware,
            callbacks=[
                BudgetMonitor(self.board),
                *stops,
                *_copies(options["callbacks"], trial_id),
            ],
            verbose=options["verbose"],
        )
        accuracy, view = trials.judge(model, train, validation)
        trials.save(model, view, self.trial_folder(trial_id))
        result = TrialResult(
            trial_id=trial_id,
            model_trial_id=trial_id,
            training=proposal.training,
            epochs=span.end_epoch,
            initial_epoch=span.begin_epoch,
            int8_accuracy=accuracy,
            val_accuracy=curve,
            started_from=started_from,
            stopped=any(stop.stopped for stop in stops),
            duration_s=time.perf_counter() - begin,
            **_sizes(proposal),
        )
        write_result(self.trial_folder(trial_id), result)
        return result

    def _model(
        self, proposal: Proposal, recipe: Recipe, former: str | None
    ) -> tuple[Any, str]:
        """A compiled model, and where its weights come from."""
        if former is not None:
            return self.load(former), former
        model = trials.build(proposal, recipe)
        started_from = start_weights(
            model,
            proposal.point.levers,
            earlier=self.results() if self.carry_weights else (),
            project=self.folder,
            weights=self.weights,
        )
        return model, started_from

    def _stops(self, span: trials.Span, started_from: str) -> list[trials.StopBehind]:
        if not self.early_stopping or span.end_epoch != span.total_epochs:
            return []
        # A training from random weights is not behind one that goes on from others.
        curves = [
            result.val_accuracy
            for result in self.results()
            if result.initial_epoch == span.begin_epoch
            and bool(result.started_from) == bool(started_from)
        ]
        grace_epochs = -(-(span.end_epoch - span.begin_epoch) // 3)
        return [trials.StopBehind(curves, grace_epochs=grace_epochs)]

    def _scope(self) -> contextlib.AbstractContextManager[Any]:
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()


def _name(weights: Any) -> str:
    if isinstance(weights, str | os.PathLike):
        return os.fspath(weights)
    return str(getattr(weights, "name", weights))


def _span(values: Mapping[str, Any], epochs: int) -> trials.Span:
    """The epochs of a trial: Hyperband's, or all."""
    return trials.Span(
        begin_epoch=values.get("tuner/initial_epoch", 0),
        end_epoch=values.get("tuner/epochs", epochs),
        total_epochs=epochs,
    )


def _sizes(proposal: Proposal) -> dict[str, Any]:
    cost = proposal.point.cost
    return {
        "levers": proposal.point.levers,
        "flash_bytes": cost.flash_bytes,
        "ram_bytes": cost.ram_bytes,
        "macs": cost.macs,
        "latency_ms": cost.latency_ms,
    }


def _copies(callbacks: Sequence[Any], trial_id: str) -> list[Any]:
    """A trial's own callbacks; TensorBoards write to folders of their own."""
    copies = [copy.deepcopy(callback) for callback in callbacks]
    for callback in copies:
        if isinstance(callback, keras.callbacks.TensorBoard):
            callback.log_dir = os.path.join(os.fspath(callback.log_dir), trial_id)
    return copies
