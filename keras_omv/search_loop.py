"""KerasTuner's loop around a `Runner`: a search from its first trial to its last.

What ends a search before its time, and how one goes on after that, is arranged here;
`keras_omv.tuner` says what is searched.
"""

import contextlib
import io
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import keras_tuner

from keras_omv.errors import SearchError
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
from keras_omv.oracles import can_restore
from keras_omv.progress import silent
from keras_omv.project import Project
from keras_omv.results import TrialResult, pareto
from keras_omv.search_options import SearchOptions
from keras_omv.search_tracking import write_pictures, write_trial
from keras_omv.sources import class_names_of, make_feeds

_LOGGER = logging.getLogger(__name__)


class SearchLoop(keras_tuner.Tuner):
    """A search that trains, whatever its options.

    Args:
        options: Of the search.
    """

    def __init__(self, options: SearchOptions) -> None:
        self.runner = options.make_runner()
        self.board, self.space = self.runner.board, self.runner.space
        self.recipe = self.runner.recipe
        self.classes, self.channels = options.classes, options.channels
        self.on_trial_error = options.on_trial_error
        self._data: tuple[Images, Images] | None = None
        self._class_names: Sequence[str] = ()
        self._deadline: float | None = None
        self._project = Project(self.runner.folder)
        oracle = self._make_oracle(options)
        # KerasTuner prints that it goes on with earlier trials.
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(
                oracle=oracle,
                distribution_strategy=options.distribution_strategy,
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
        with silent(verbose == 0):
            if is_chief():
                super().search(verbose=verbose)
            else:
                self._data = self._feeds(x, y, validation_data)
                with in_words(self.runner.folder):
                    options = {"callbacks": list(callbacks), "verbose": verbose}
                    super().search(*self._data, **options)
        if not is_worker():
            self._write_pictures()
        self._check_ended_well()

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

    def _make_oracle(self, options: SearchOptions) -> Any:
        """The oracle, kept in the folder by the process that has it."""
        oracle = options.make_oracle(self.runner)
        if not is_worker():
            self._open_project(oracle, overwrite=options.overwrite)
            self._limit_time(oracle)
        return oracle

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

    def _feeds(self, x: Any, y: Any, validation_data: Any) -> tuple[Images, Images]:
        return make_feeds(
            x,
            y,
            validation_data,
            classes=self.classes,
            channels=self.channels,
            seed=self.recipe.seed,
            cache_directory=self.runner.folder / "cache",
        )

    def _write_pictures(self) -> None:
        write_pictures(
            self.runner.folder,
            self,
            board=self.board,
            classes=self.classes,
            channels=self.channels,
        )

    def _check_ended_well(self) -> None:
        if self._project.failure:
            raise SearchError(
                "Expected trials to succeed. Received: some in a row that failed, the "
                f"last with: {self._project.failure}. Next step: mend that and run the "
                "search again; finished trials are kept."
            )

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

    def __init__(self, loop: SearchLoop) -> None:
        super().__init__()
        self._loop = loop

    def build(self, hp: Any) -> Any:
        return self._loop.runner.build(hp.values)
