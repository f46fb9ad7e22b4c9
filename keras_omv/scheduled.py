"""A callback that follows a sparsity schedule."""

import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_omv.pruning import PolynomialDecay, Schedule


class ScheduledCallback(keras.callbacks.Callback):
    """Follows a schedule over the optimizer's steps; subclasses say what it does."""

    schedule: Schedule | None
    _active: Schedule
    _sparsity: float

    def begin(self, *, sparsity: float) -> None:
        """Starts a fit.

        Args:
            sparsity: What an earlier fit left, from which on masks are applied.
        """
        self._is_planned = False
        self._next_step = self._steps_done()
        self._sparsity = sparsity
        self._begun = sparsity > 0
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        if not self._is_planned:
            self._is_planned = True
            # Not earlier: only now it is known with which epoch the fit begins.
            self._active = self.schedule or self.default_schedule()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._begun:
            return
        # Keras puts averaged weights in place after the last batch (use_ema=True).
        if not getattr(self.model.optimizer, "use_ema", False) and not self.holds():
            warnings.warn(_too_late(type(self).__name__), stacklevel=2)
        self.apply()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        # Several steps may have run since the last call (steps_per_execution). They
        # are numbered as before the optimizer counted them, from 0.
        end = self._steps_done()
        due = [bool(self._active(step)[0]) for step in range(self._next_step, end)]
        sparsity = float(self._active(end - 1)[1])
        self._next_step = end
        self._begun = self._begun or any(due)
        missed = sparsity != self._sparsity and self._is_last(end - 1, batch)
        if any(due) or (self._begun and missed):
            self.prune(sparsity)
            self._sparsity = sparsity
        elif self._begun:
            self.apply()

    def default_schedule(self) -> Schedule:
        """What is followed where the user gave no schedule."""
        raise NotImplementedError

    def prune(self, sparsity: float) -> None:
        """Prunes to a sparsity, as the schedule asks for it."""
        raise NotImplementedError

    def apply(self) -> None:
        """Puts zeros back after a training step."""
        raise NotImplementedError

    def holds(self) -> bool:
        """Whether what was made zero still is."""
        raise NotImplementedError

    def _steps_done(self) -> int:
        # Not int(iterations): a strategy of several devices mirrors the variable.
        return int(tf.convert_to_tensor(self.model.optimizer.iterations))

    def _is_last(self, step: int, batch: int) -> bool:
        """Whether the schedule or the fit ends with this step."""
        end_step = getattr(self._active, "end_step", -1)
        last_epoch = self._epoch == self.params["epochs"] - 1
        steps = self.params.get("steps")
        last_batch = steps is not None and batch >= steps - 1
        return (0 <= end_step <= step) or (last_epoch and last_batch)

    def decay(
        self, sparsity: float, *, begin: float, end: float, updates: int
    ) -> PolynomialDecay:
        """A schedule from 0 to a sparsity, `begin` and `end` as shares of the fit."""
        steps = self.params.get("steps")
        if steps is None:
            raise ValueError(
                "Expected a schedule, as the number of steps is unknown. Received: "
                "schedule=None and a dataset without a length. Pass "
                "omv.PolynomialDecay(...) or steps_per_epoch to fit."
            )
        epochs = self.params["epochs"] - self._epoch
        # The optimizer counts a step when it applies what it has gathered.
        gathered = getattr(self.model.optimizer, "gradient_accumulation_steps", None)
        total = steps * epochs // (gathered or 1)
        first = self._steps_done() + int(begin * total)
        length = max(1, int((end - begin) * total))
        return PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=sparsity,
            begin_step=first,
            end_step=first + length,
            frequency=max(1, length // updates),
        )


def _too_late(name: str) -> str:
    """Says that weights are pruned which were not trained since."""
    return (
        f"Expected weights that {name} has pruned. Received at the end of fit: weights "
        "of an epoch before (restored by EarlyStopping, perhaps). They are pruned now, "
        "with no training after it, which costs accuracy. Next step: an EarlyStopping "
        "whose start_from_epoch lies behind the end of the pruning schedule."
    )
