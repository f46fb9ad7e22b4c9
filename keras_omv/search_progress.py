"""Shows a search as one bar, or as one line a trial where there is no terminal."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any

import keras
from rich.console import Console

from keras_omv.progress import Bar, print_line, working
from keras_omv.results import TrialResult, read_result
from keras_omv.tuner import MobileNetV2Tuner


class SearchProgress(keras.callbacks.Callback):
    """Shows the trial, the best so far and the time left.

    Args:
        console: Where lines go; a quiet one shows nothing.
        trials: How many trials there are to be, `None` where that is not known.
        hours: How long the search may take, `None` for no limit.
    """

    def __init__(
        self, console: Console, *, trials: int | None, hours: float | None
    ) -> None:
        super().__init__()
        self.console = console
        self.trials = trials
        self.hours = hours
        self._begin = time.monotonic()
        self._done = 0
        self._best: TrialResult | None = None
        self._opened = contextlib.ExitStack()
        self._bar: Bar | None = None

    def __deepcopy__(self, memo: Any) -> "SearchProgress":
        """All trials share this one: it shows them together."""
        return self

    def count_earlier(self, done: int, results: Sequence[TrialResult]) -> None:
        """Counts what an earlier run did, and says so.

        Args:
            done: How many trials have ended.
            results: Of those that did not fail, the most accurate first.
        """
        self._done = done
        self._best = results[0] if results else None
        if self._best:
            text = f"{done} done in an earlier run, the best: {self._best}"
            print_line(text, self.console)

    def start(self) -> None:
        """Shows the bar, where there is a terminal."""
        # Lines that go elsewhere may come back to the terminal, as through `tee`.
        if self.console.is_terminal:
            self._bar = self._opened.enter_context(working("Searching"))

    def begin_trial(self, name: str) -> None:
        """Shows that a trial begins.

        Args:
            name: What is trained.
        """
        self._name = name
        self._show(0.0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._show((epoch + 1) / self.params["epochs"])

    def end_trial(self, result: TrialResult | None) -> None:
        """Shows what a trial found.

        Args:
            result: `None` for one that failed.
        """
        self._done += 1
        if result and (
            self._best is None or result.int8_accuracy > self._best.int8_accuracy
        ):
            self._best = result
        self._show(0.0)
        number = f"Trial {self._done}{f' of {self.trials}' if self.trials else ''}"
        print_line(f"{number}: {result or 'failed'}", self.console)

    def stop(self) -> None:
        """Takes the bar away."""
        self._bar = None
        self._opened.close()

    def _show(self, share: float) -> None:
        if self._bar is None:
            return
        best = f"best {self._best.int8_accuracy:.1%}" if self._best else "no result yet"
        title = f"Trial {self._done + 1}, {self._name}; {best}{self._time_left()}"
        self._bar.rename(title)
        if self.trials is not None:
            self._bar(self._done + share, self.trials)

    def _time_left(self) -> str:
        if self.hours is None:
            return ""
        left = self._begin + self.hours * 3600 - time.monotonic()
        return f"; {max(0.0, left) / 60:.0f} min left"


class ShownTuner(MobileNetV2Tuner):
    """A tuner whose trials are shown.

    Args:
        progress: What shows them.
        **options: As for `MobileNetV2Tuner`.
    """

    def __init__(self, progress: SearchProgress, **options: Any) -> None:
        self.progress = progress
        super().__init__(**options)
        progress.count_earlier(len(self.oracle.end_order), self.results())

    def on_trial_begin(self, trial: Any) -> None:
        super().on_trial_begin(trial)
        levers = self.space.proposal(trial.hyperparameters.values).point.levers
        self.progress.begin_trial(f"alpha {levers.alpha:g} at {levers.resolution} px")

    def on_trial_end(self, trial: Any) -> None:
        super().on_trial_end(trial)
        self.progress.end_trial(read_result(self.runner.trial_folder(trial.trial_id)))
