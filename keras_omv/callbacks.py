"""The callbacks that users add to `model.fit`."""

import math
import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_omv import trained
from keras_omv.accuracy import int8_accuracy
from keras_omv.boards import Board, Budget, as_board
from keras_omv.cost import Cost
from keras_omv.deploy import check_destination, class_labels
from keras_omv.errors import BudgetError, ExportError, TrainingDivergedError
from keras_omv.estimation import estimate
from keras_omv.exporter import check_classes, check_options, export
from keras_omv.fusion import build_graph
from keras_omv.pruning import (
    Masks,
    PolynomialDecay,
    Schedule,
    prunable_kernels,
    sparsity_of,
)
from keras_omv.report import ExportReport
from keras_omv.routing import route, unroute
from keras_omv.view import QuantizedView


class QuantizationAwareTraining(keras.callbacks.Callback):
    """Trains with int8 rounding from an epoch of the running `fit` on.

    From `start_epoch` on the model computes through a quantized view of itself:
    weights rounded to int8 per output channel (dense layers per tensor), activations
    rounded to 256 levels over ranges that follow the batches. The model itself, its
    weights, the optimizer's state and the other callbacks stay as they are; the
    training step is traced once more. After `fit` the model is plain again, and
    `omv.export` finds the trained ranges. A fit that was interrupted leaves the model
    rounding until the next fit with a callback of this package, or `omv.export`.

    Args:
        start_epoch: Epoch, counted from 0, to begin at. Defaults to `0`.
        freeze_epochs: For how many of the last epochs the ranges are kept still.
            Defaults to `1`; never in the first epoch with rounding.
        input_range: The values `(low, high)` that pixels 0 and 255 have where they
            enter the model. Defaults to `None`: (0, 255) where the model rescales
            its input itself, else taken from the first batch.
        momentum: Of the moving average that ranges follow. Defaults to `0.99`.

    Raises:
        ValueError: If `fit` ends before `start_epoch`.
        UnsupportedModelError: If the model cannot run on the camera.

    Example:

    ```python
    model.fit(images, labels, epochs=30, callbacks=[
        omv.QuantizationAwareTraining(start_epoch=20),
    ])
    ```
    """

    def __init__(
        self,
        start_epoch: int = 0,
        *,
        freeze_epochs: int = 1,
        input_range: tuple[float, float] | None = None,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        _check_count("start_epoch", start_epoch)
        _check_count("freeze_epochs", freeze_epochs)
        self.start_epoch = start_epoch
        self.freeze_epochs = freeze_epochs
        self.input_range = input_range
        self.momentum = momentum

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        unroute(self.model)
        if self.start_epoch >= self.params["epochs"]:
            raise ValueError(
                "Invalid value received for argument `start_epoch`. Expected an epoch "
                f"before the last of this fit, 0 to {self.params['epochs'] - 1}. "
                f"Received: start_epoch={self.start_epoch}. Train for more epochs or "
                "start earlier."
            )
        view = QuantizedView(
            self.model, input_range=self.input_range, momentum=self.momentum
        )
        trained.begin(self.model, view)
        self._first_epoch: int | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        view = trained.in_training(self.model)
        if view is None or epoch < self.start_epoch:
            return
        if self._first_epoch is None:
            self._first_epoch = epoch
            route(self.model, view)
        elif epoch >= self.params["epochs"] - self.freeze_epochs:
            view.freeze()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        view = trained.in_training(self.model)
        if view is None:
            return
        _ = view.pixels.range  # Raises where the first batch had no usual range.
        trained.note_epoch(self.model, quantized=self._first_epoch is not None)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        unroute(self.model)


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


class BudgetMonitor(keras.callbacks.Callback):
    """Publishes what the model costs on a camera, and warns before it is too much.

    Adds to `logs`, and so to the history, TensorBoard and the others that stand
    behind it: `omv_flash_bytes`, `omv_ram_bytes`, `omv_macs`, `omv_latency_ms`
    (an estimate), `omv_sparsity`, and `omv_int8_accuracy` where there is data.

    Args:
        board: A `Board`, its name, or a `Budget`.
        on_exceed: What to do, before training, where the model does not fit:
            `"warn"`, `"stop"` the fit (Keras does so after its first epoch) or
            `"raise"` a `BudgetError`. Defaults to `"warn"`.
        evaluation_data: Images and labels, as for `omv.export`, on which to measure
            the int8 network after every epoch. Defaults to `None`: not measured.

    Raises:
        ValueError: If `on_exceed` is none of the three.
    """

    def __init__(
        self,
        board: Board | Budget | str,
        *,
        on_exceed: Literal["warn", "stop", "raise"] = "warn",
        evaluation_data: Any = None,
    ) -> None:
        super().__init__()
        if on_exceed not in ("warn", "stop", "raise"):
            raise ValueError(
                "Invalid value received for argument `on_exceed`. Expected 'warn', "
                f"'stop' or 'raise'. Received: on_exceed={on_exceed!r}"
            )
        self.board = board
        self.on_exceed = on_exceed
        self.evaluation_data = evaluation_data

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        unroute(self.model)
        board = as_board(self.board)
        graph = build_graph(self.model)
        self._kernels = [step.kernel for step in graph.weighted_steps]
        self.cost: Cost = estimate(self.model, board=board)
        measures = self.evaluation_data is not None
        self._view = QuantizedView(self.model) if measures else None
        try:
            board.check(self.cost)
        except BudgetError as error:
            if self.on_exceed == "raise":
                raise
            warnings.warn(str(error), stacklevel=2)
            if self.on_exceed == "stop":
                self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None:
            return
        logs["omv_flash_bytes"] = self.cost.flash_bytes
        logs["omv_ram_bytes"] = self.cost.ram_bytes
        logs["omv_macs"] = self.cost.macs
        logs["omv_latency_ms"] = self.cost.latency_ms
        logs.setdefault("omv_sparsity", sparsity_of(self._kernels))
        if self.evaluation_data is not None:
            logs["omv_int8_accuracy"] = int8_accuracy(
                self.model, self.evaluation_data, view=self._view
            )


class OpenMVExport(keras.callbacks.Callback):
    """Writes the camera folder when `fit` has finished.

    What can be wrong is looked at before training: the folder, the labels, the
    model's layers, the budget. Stands behind the callbacks that change weights at
    the end, such as EarlyStopping. The report is in its `report`.

    Args:
        directory: The folder to write; one that an earlier export wrote is replaced.
        board: A `Board`, its name, or a `Budget`.
        class_names: The labels in the order of the model's outputs.
        representative_data: As for `omv.export`; needed where there is no
            `QuantizationAwareTraining` in the same fit.
        evaluation_data: As for `omv.export`.
        input_range: As for `omv.export`.
        dtype: Only `"int8"`.
        on_exceed: As for `omv.export`.
        seed: As for `omv.export`.

    Raises:
        ExportError: If the folder is not ours, or there is nothing to take
            activation ranges from.
        DatasetError: If the labels do not fit the model.
        BudgetError: If the model does not fit the camera.
        TrainingDivergedError: If the loss is no longer a number.
        ValueError: If an option, or the camera's firmware, is not supported.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        board: Board | Budget | str,
        class_names: Sequence[str],
        representative_data: Any = None,
        evaluation_data: Any = None,
        input_range: tuple[float, float] | None = None,
        dtype: str = "int8",
        on_exceed: Literal["raise", "warn"] = "raise",
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.directory = directory
        self.board = board
        self.class_names = class_names
        self.representative_data = representative_data
        self.evaluation_data = evaluation_data
        self.input_range = input_range
        self.dtype = dtype
        self.on_exceed = on_exceed
        self.seed = seed

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        unroute(self.model)
        self.report: ExportReport | None = None
        self._begun = False
        check_destination(self.directory)
        board = as_board(self.board)
        check_options(board, dtype=self.dtype, on_exceed=self.on_exceed)
        class_labels(self.class_names)
        check_classes(build_graph(self.model), self.class_names)
        if self.on_exceed == "raise":
            board.check(estimate(self.model, board=board))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Not earlier: a QuantizationAwareTraining may stand behind this callback.
        if self._begun or self.representative_data is not None:
            return
        self._begun = True
        if trained.in_training(self.model) is None:
            raise ExportError(
                "Expected images to take activation ranges from. Received: neither "
                "QuantizationAwareTraining in this fit nor representative_data. Add "
                "one: omv.OpenMVExport(..., representative_data=train_images)."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        # A ReLU turns NaN into 0, so that the loss alone can look healthy.
        healthy = all(np.all(np.isfinite(w)) for w in self.model.get_weights())
        if not (math.isfinite(loss) and healthy):
            unroute(self.model)
            weights = "finite" if healthy else "not finite"
            raise TrainingDivergedError(
                f"Expected a finite loss and finite weights. Received: loss={loss}, "
                f"weights {weights} in epoch {epoch}. Lower the learning rate and "
                "check images and labels for NaN. Nothing was exported."
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.report = export(
            self.model,
            self.directory,
            board=self.board,
            class_names=self.class_names,
            representative_data=self.representative_data,
            evaluation_data=self.evaluation_data,
            input_range=self.input_range,
            dtype=self.dtype,
            on_exceed=self.on_exceed,
            seed=self.seed,
        )


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 0:
        raise ValueError(
            f"Invalid value received for argument `{name}`. Expected a whole number "
            f"of epochs, 0 or more. Received: {name}={value!r}"
        )
