"""A KerasTuner search that only trains what fits the camera."""

import contextlib
import dataclasses
import io
import logging
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any, Literal

import keras_tuner

from keras_omv import trial as trials
from keras_omv.boards import Board, Budget, as_board
from keras_omv.errors import SearchError
from keras_omv.exporter import export
from keras_omv.feeds import Images
from keras_omv.interruptions import (
    StoppedError,
    full_disk,
    in_words,
    is_chief,
    is_full_disk,
    is_worker,
    tuner_id,
)
from keras_omv.oracles import can_restore, make_oracle
from keras_omv.project import Project
from keras_omv.proposals import COSTS, SearchSpace, points_that_fit
from keras_omv.recipe import Recipe
from keras_omv.results import TrialResult, pareto
from keras_omv.runner import Runner
from keras_omv.search_tracking import write_pictures, write_trial
from keras_omv.sources import class_names_of, make_feeds
from keras_omv.space import ALPHAS
from keras_omv.trained import adopt

_LOGGER = logging.getLogger(__name__)
SEARCH_ALPHAS = tuple(alpha for alpha in ALPHAS if alpha <= 0.5)
SEARCH_RESOLUTIONS = tuple(range(32, 129, 16))
SEARCH_HEADS = (None, 640, 320, 160, 64)
SEARCH_DEPTHS = (17, 13, 10, 6, 3)


class MobileNetV2Tuner(keras_tuner.Tuner):
    """Searches the MobileNetV2 that a camera runs most accurately.

    Width (alpha), resolution, last convolution and depth are searched, and the
    training's learning rate, sparsity and augmentation if wanted. Whatever an oracle
    can propose fits the camera: its exact flash and RAM are known before anything is
    built. Every trial gets the images at its own resolution, scaled as the camera
    scales its frames, and is judged by the accuracy of its int8 network.

    For TensorBoard every trial is written as it ends: `tensorboard --logdir` of the
    project's folder `tensorboard` shows them all in its HParams tab and, with
    matplotlib, the Pareto fronts and what fits the camera as images, once the search
    has ended.

    A search survives its process: made again with the same arguments, it keeps the
    finished trials and repeats the one that ran.

    Args:
        board: A `Board`, its name, or a `Budget`.
        classes: Number of classes.
        oracle: A `keras_tuner.Oracle`, or the name of one: `"forecast"` (ours),
            `"random"`, `"grid"`, `"bayesian"` or `"hyperband"`. Defaults to `None`,
            ours. The objective of one that has none is `"omv_int8_accuracy"`;
            `"val_accuracy"`, `"omv_flash_bytes"`, `"omv_ram_bytes"`, `"omv_macs"` and
            `"omv_latency_ms"` are there too. KerasTuner adds up a list of objectives
            as they are, shares to bytes: `trade_off` is the way to have two.
        channels: 1 for grey, 3 for RGB. Defaults to `3`.
        alphas: Widths to choose from. Defaults to nine from 0.05 to 0.5, as wider
            ones learn little more from a few thousand images.
        resolutions: Sides in pixels to choose from. Defaults to 32 to 128 in steps
            of 16.
        head_channels: Widths of the last convolution to choose from; `None` is the
            paper's 1280. Defaults to `(None, 640, 320, 160, 64)`.
        depths: How many of the 17 blocks to keep. Defaults to `(17, 13, 10, 6, 3)`.
        max_latency_ms: Estimated time that an inference may take. Defaults to
            `None`, no limit.
        learning_rate: The lowest and highest to search. Defaults to `None`, the
            recipe's.
        sparsities: Shares of zeros to choose from. Defaults to `()`, the recipe's.
        augmentations: `"none"`, `"flip"`, `"shift"` and `"flip+shift"` to choose
            from. Defaults to `()`, the recipe's.
        trade_off: `"flash_bytes"`, `"ram_bytes"`, `"macs"` or `"latency_ms"`: our
            oracle then looks for the Pareto front of accuracy against it. Defaults
            to `None`, for the highest accuracy.
        max_trials: How many trials at most; for oracles given by name but
            `"hyperband"`, which counts for itself. Defaults to `20`.
        epochs: Of a whole training. Defaults to `None`: the oracle's `max_epochs`
            where it has one, else the recipe's, 24.
        recipe: How else a trial trains: batch size, learning rate, augmentation.
            Defaults to `Recipe()`.
        weights: What trials start from that no earlier trial can start:
            `"imagenet"`, a file or a Keras model, see `keras_omv.pretrained`.
            Defaults to `None`, random weights.
        carry_weights: Whether a trial starts from the most accurate earlier one that
            is at least as wide and deep, of another network. Such trials have seen
            more epochs than their own; weigh their results so. Defaults to `True`.
        early_stopping: Whether a trial that is behind three quarters of the earlier
            ones at the same epoch is stopped. Defaults to `True`.
        quantization_aware: Whether the last quarter of each training rounds to int8;
            otherwise ranges are calibrated after it. Defaults to `False`.
        on_trial_error: Whether the search goes on with other candidates
            (`"continue"`) or stops (`"raise"`) where a trial fails. Defaults to
            `"continue"`; three failures in a row stop it.
        distribution_strategy: A `tf.distribute.Strategy` to train every trial on
            several GPUs.
        seed: Of everything random. Defaults to `0`.
        directory: Where projects are. Defaults to the working directory.
        project_name: The folder of this search in it.
        overwrite: Whether to forget the trials of an earlier search there.

    Raises:
        BudgetError: If no candidate fits, with what the smallest lacks and the
            cameras that would do.
        SearchError: If the folder holds another search.
        ValueError: If an argument has no meaning.

    Example:

    ```python
    tuner = omv.MobileNetV2Tuner("openmv-h7-plus", classes=5)
    tuner.search(train, validation_data=validation)
    tuner.export_best("camera")
    ```
    """

    def __init__(
        self,
        board: Board | Budget | str,
        classes: int,
        *,
        oracle: Any = None,
        channels: int = 3,
        alphas: Sequence[float] = SEARCH_ALPHAS,
        resolutions: Sequence[int] = SEARCH_RESOLUTIONS,
        head_channels: Sequence[int | None] = SEARCH_HEADS,
        depths: Sequence[int] = SEARCH_DEPTHS,
        max_latency_ms: float | None = None,
        learning_rate: tuple[float, float] | None = None,
        sparsities: Sequence[float] = (),
        augmentations: Sequence[str] = (),
        trade_off: str | None = None,
        max_trials: int = 20,
        epochs: int | None = None,
        recipe: Recipe | None = None,
        weights: Any = None,
        carry_weights: bool = True,
        early_stopping: bool = True,
        quantization_aware: bool = False,
        on_trial_error: Literal["continue", "raise"] = "continue",
        distribution_strategy: Any = None,
        seed: int = 0,
        directory: str | os.PathLike[str] | None = None,
        project_name: str | None = None,
        overwrite: bool = False,
    ) -> None:
        _check_options(on_trial_error, trade_off, max_trials)
        self.board = as_board(board)
        self.classes, self.channels = classes, channels
        self.recipe = _with_epochs(recipe or Recipe(seed=seed), epochs, oracle)
        self.on_trial_error = on_trial_error
        self.space = SearchSpace(
            points_that_fit(
                self.board,
                classes=classes,
                channels=channels,
                alphas=alphas,
                resolutions=resolutions,
                head_channels=head_channels,
                depths=depths,
                max_latency_ms=max_latency_ms,
            ),
            learning_rate=learning_rate,
            sparsities=sparsities,
            augmentations=augmentations,
        )
        self.runner = Runner(
            folder=pathlib.Path(directory or ".", project_name or "mobilenetv2"),
            board=self.board,
            space=self.space,
            recipe=self.recipe,
            weights=weights,
            carry_weights=carry_weights,
            early_stopping=early_stopping,
            quantization_aware=quantization_aware,
            strategy=distribution_strategy,
        )
        self._data: tuple[Images, Images] | None = None
        self._class_names: Sequence[str] = ()
        self._deadline: float | None = None
        made = make_oracle(
            oracle,
            self.space,
            cost=trade_off,
            max_trials=max_trials,
            max_epochs=self.recipe.epochs,
            seed=seed,
        )
        self._project = Project(self.runner.folder)
        if not is_worker():
            self._open_project(made, overwrite=overwrite)
            self._limit_time(made)
        # KerasTuner prints that it goes on with earlier trials.
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(
                oracle=made,
                distribution_strategy=distribution_strategy,
                directory=os.fspath(self.runner.folder.parent),
                project_name=self.runner.folder.name,
            )
        if is_chief():
            self._project.hand_back(self.oracle)
        self.hypermodel = _Builder(self)

    def search(
        self,
        x: Any = None,
        y: Any = None,
        *,
        validation_data: Any = None,
        hours: float | None = None,
        callbacks: Sequence[Any] = (),
        verbose: int | str = 1,
    ) -> None:
        """Runs trials until there are enough.

        Args:
            x: Training images at their own size: a `tf.data.Dataset` of images
                `(height, width, channels)` and labels, batched or not, an array
                `(n, height, width, channels)` with `y` beside it, or a folder of
                class folders, which is split as `keras-omv train` does. Pixels are
                in [0, 255]. They are read once: do not augment them, the recipe does.
            y: Labels `(n,)` or one-hot `(n, classes)`, where `x` is an array.
            validation_data: Images and labels to judge by, in the same forms; not
                for a folder.
            hours: No trial begins after this time; with several processes the
                chief's counts.
            callbacks: Keras callbacks, copied for each trial; TensorBoard writes
                each trial to a folder of its own.
            verbose: As for `model.fit`; 0 prints nothing.

        Raises:
            DatasetError: If the images cannot be used as they are.
            SearchError: If the search cannot go on: a full disk, three failed trials
                in a row.
        """
        self._deadline = None if hours is None else time.monotonic() + hours * 3600
        self._class_names = class_names_of(x)
        if is_chief():
            super().search(verbose=verbose)
        else:
            self._data = make_feeds(
                x,
                y,
                validation_data,
                classes=self.classes,
                channels=self.channels,
                seed=self.recipe.seed,
                cache_directory=self.runner.folder / "cache",
            )
            with in_words(self.runner.folder):
                options = {"callbacks": list(callbacks), "verbose": verbose}
                super().search(*self._data, **options)
        if not is_worker():
            self._write_pictures()
        if self._project.failure:
            raise SearchError(
                "Expected trials to succeed. Received: some in a row that failed, the "
                f"last with: {self._project.failure}. Next step: mend that and run the "
                "search again; finished trials are kept."
            )

    def run_trial(self, trial: Any, *args: Any, **options: Any) -> dict[str, float]:
        """Trains and judges one candidate; called by `search`.

        Returns:
            The metrics that oracles can have as an objective.
        """
        values = trial.hyperparameters.values
        try:
            result = self.runner.run(trial.trial_id, values, *args, **options)
            write_trial(self.runner.folder, result)
            metrics = dict(result.metrics)
            objective = self.oracle.objective
            metrics.setdefault(objective.name, objective.get_value(metrics))
        except Exception as error:
            raise self._failure(trial.trial_id, error) from error
        return metrics

    def load_model(self, trial: Any) -> Any:
        """The trained model of a trial."""
        return self.runner.load(trial.trial_id)

    def results(self) -> tuple[TrialResult, ...]:
        """What all trials found, of other workers too, the most accurate first."""
        return self.runner.results()

    def pareto(self, cost: str = "flash_bytes") -> tuple[TrialResult, ...]:
        """The trials that no other one beats in both int8 accuracy and a cost.

        Args:
            cost: `"flash_bytes"`, `"ram_bytes"`, `"macs"` or `"latency_ms"`.

        Returns:
            The cheapest first.
        """
        return pareto(self.results(), cost)

    def export_best(
        self,
        directory: str | os.PathLike[str],
        *,
        class_names: Sequence[str] | None = None,
    ) -> Any:
        """Writes the camera folder of the most accurate trial.

        Args:
            directory: The folder to write, as for `omv.export`.
            class_names: The labels. Defaults to `None`: those of the dataset, where
                it has a `class_names` as Keras' folder datasets do, else numbers.

        Returns:
            The `ExportReport`; with accuracies where `search` was called before.

        Raises:
            SearchError: If no trial is finished.
        """
        results = self.results()
        if not results:
            raise SearchError(
                f"Expected finished trials in {self.runner.folder}. Received: none. "
                "Next step: tuner.search(train, validation_data=validation)."
            )
        return self._export(results[0], directory, class_names)

    def export_pareto(
        self,
        directory: str | os.PathLike[str],
        *,
        cost: str = "flash_bytes",
        class_names: Sequence[str] | None = None,
    ) -> tuple[Any, ...]:
        """Writes a camera folder for each trial of the Pareto front.

        Args:
            directory: The folder that gets one folder per trial, named by its levers.
            cost: As for `pareto`.
            class_names: As for `export_best`.

        Returns:
            The reports, the cheapest first.
        """
        return tuple(
            self._export(result, pathlib.Path(directory, result.name), class_names)
            for result in self.pareto(cost)
        )

    def _open_project(self, oracle: Any, *, overwrite: bool) -> None:
        if overwrite:
            self._project.remove()
        self._project.open(
            {
                "oracle": type(oracle).__name__,
                "objective": str(oracle.objective),
                **self.runner.settings(),
            },
            tuner_id=tuner_id(),
            restores=can_restore(oracle),
            has_workers=is_chief(),
        )
        self._project.keep(oracle)

    def _limit_time(self, oracle: Any) -> None:
        """Let the oracle hand out no trial after the deadline."""
        create_trial = oracle.create_trial

        def create_in_time(tuner: str) -> Any:
            if self._deadline is None or time.monotonic() < self._deadline:
                return create_trial(tuner)
            oracle.tuner_ids.discard(tuner)
            space = oracle.get_space()
            return keras_tuner.engine.trial.Trial(space, status="STOPPED")

        oracle.create_trial = create_in_time

    @property
    def image_count(self) -> int:
        """How many training images there are, 1 before `search` was called."""
        return self._data[0].count if self._data else 1

    def _export(
        self,
        result: TrialResult,
        directory: str | os.PathLike[str],
        class_names: Sequence[str] | None,
    ) -> Any:
        folder = self.runner.trial_folder(result.model_trial_id)
        model, view = trials.load_quantized(folder)
        adopt(model, view)
        side = result.levers.resolution
        return export(
            model,
            directory,
            board=self.board,
            class_names=class_names or self._labels(),
            evaluation_data=self._data and self._data[1].arrays(side),
            seed=self.recipe.seed,
        )

    def _write_pictures(self) -> None:
        write_pictures(
            self.runner.folder,
            self,
            board=self.board,
            classes=self.classes,
            channels=self.channels,
        )

    def _labels(self) -> Sequence[str]:
        if self._class_names:
            return self._class_names
        _LOGGER.warning(
            "The dataset has no class_names: labels.txt gets numbers. Next step: "
            "tuner.export_best(directory, class_names=[...])."
        )
        return [f"class {number}" for number in range(self.classes)]

    def _failure(self, trial_id: str, error: Exception) -> Exception:
        """What a trial's error means for the search."""
        if is_full_disk(error):
            return StoppedError(full_disk(self.runner.folder, error))
        if self.on_trial_error == "raise":
            return StoppedError(f"Trial {trial_id} failed: {error}")
        _LOGGER.warning("Trial %s failed, the search goes on: %s", trial_id, error)
        return error


class _Builder(keras_tuner.HyperModel):
    """Builds the model of hyperparameters, as users of KerasTuner expect it."""

    def __init__(self, tuner: MobileNetV2Tuner) -> None:
        super().__init__()
        self._tuner = tuner

    def build(self, hp: Any) -> Any:
        return self._tuner.runner.build(hp.values, self._tuner.image_count)


def _check_options(on_trial_error: str, trade_off: str | None, trials: int) -> None:
    for name, value, known in (
        ("on_trial_error", on_trial_error, ("continue", "raise")),
        ("trade_off", trade_off, (None, *COSTS)),
    ):
        if value not in known:
            raise ValueError(
                f"Invalid value received for argument `{name}`. Expected one of "
                f"{', '.join(map(repr, known))}. Received: {name}={value!r}"
            )
    if trials < 1:
        raise ValueError(
            "Invalid value received for argument `max_trials`. Expected 1 or more. "
            f"Received: max_trials={trials}"
        )


def _with_epochs(recipe: Recipe, epochs: int | None, oracle: Any) -> Recipe:
    """A recipe with the epochs that the oracle, or else the user, asks for."""
    theirs: int | None = getattr(oracle, "max_epochs", None)
    if theirs is not None and epochs not in (None, theirs):
        raise ValueError(
            f"Expected the oracle's max_epochs, {theirs}. Received: epochs={epochs}. "
            "Next step: leave epochs out."
        )
    wanted = theirs or (recipe.epochs if epochs is None else epochs)
    return dataclasses.replace(recipe, epochs=wanted)
