"""The callbacks that watch a `model.fit` and export its result."""

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
from keras_omv.pruning import sparsity_of
from keras_omv.report import ExportReport
from keras_omv.routing import unroute
from keras_omv.view import QuantizedView


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
