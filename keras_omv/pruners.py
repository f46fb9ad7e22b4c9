"""Pruning, as callbacks of `model.fit`."""

from typing import Any

import keras

from keras_omv.fusion import build_graph
from keras_omv.pruning import (
    Masks,
    PolynomialDecay,
    Schedule,
    prunable_kernels,
    sparsity_of,
)
from keras_omv.routing import unroute


class Pruning(keras.callbacks.Callback):
    """Makes the smallest weights zero during `fit`, on a schedule.

    Convolutions and dense layers that are trained are pruned, each to the
    schedule's sparsity; depthwise kernels are left alone. After the last step each
    has exactly the share of zeros that the schedule ends with, rounded to whole
    weights. A weight of zero is a zero int8 after quantization.

    Args:
        schedule: `PolynomialDecay` or `ConstantSparsity`, ours or those of
            `tfmot.sparsity.keras`; steps are the optimizer's. Defaults to `None`:
            from 0 to 50 % over the first three quarters of the fit.

    Raises:
        ValueError: If there is no schedule and the number of steps is unknown.
        UnsupportedModelError: If no layer of the model can be pruned.

    Example:

    ```python
    model.fit(images, labels, epochs=30, callbacks=[
        omv.Pruning(omv.PolynomialDecay(
            initial_sparsity=0.0, final_sparsity=0.5, begin_step=0, end_step=1000)),
    ])
    ```
    """

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.schedule = schedule

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        unroute(self.model)
        self._kernels = prunable_kernels(build_graph(self.model))
        self._masks = Masks(self._kernels)
        self._active = self.schedule or self._default_schedule()
        self._next_step = int(self.model.optimizer.iterations)
        # Zeros that an earlier fit left stay zero from the start.
        self._sparsity = sparsity_of(self._kernels)
        self._begun = self._sparsity > 0
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        # Several steps may have run since the last call (steps_per_execution). They
        # are numbered as before the optimizer counted them, from 0.
        end = int(self.model.optimizer.iterations)
        due = [bool(self._active(step)[0]) for step in range(self._next_step, end)]
        sparsity = float(self._active(end - 1)[1])
        self._next_step = end
        self._begun = self._begun or any(due)
        missed = sparsity != self._sparsity and self._is_last(end - 1, batch)
        if any(due) or (self._begun and missed):
            self._masks.prune(sparsity)
            self._sparsity = sparsity
        elif self._begun:
            self._masks.apply()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["omv_sparsity"] = sparsity_of(self._kernels)

    def _is_last(self, step: int, batch: int) -> bool:
        """Whether the schedule or the fit ends with this step."""
        end_step = getattr(self._active, "end_step", -1)
        last_epoch = self._epoch == self.params["epochs"] - 1
        steps = self.params.get("steps")
        last_batch = steps is not None and batch >= steps - 1
        return (0 <= end_step <= step) or (last_epoch and last_batch)

    def _default_schedule(self) -> Schedule:
        steps = self.params.get("steps")
        if steps is None:
            raise ValueError(
                "Expected a schedule, as the number of steps is unknown. Received: "
                "schedule=None and a dataset without a length. Pass "
                "omv.PolynomialDecay(...) or steps_per_epoch to fit."
            )
        first = int(self.model.optimizer.iterations)
        total = steps * self.params["epochs"]
        return PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=0.5,
            begin_step=first,
            end_step=first + max(1, total * 3 // 4),
            frequency=max(1, total // 50),
        )
