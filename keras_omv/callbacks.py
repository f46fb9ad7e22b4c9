"""The callbacks that watch a `model.fit` and export its result."""

import math
import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from keras_omv import channel_masks, fits, trained
from keras_omv.boards import Board, Budget, as_board
from keras_omv.cost import Cost
from keras_omv.deploy import check_destination, class_labels
from keras_omv.epoch_accuracy import EpochAccuracy
from keras_omv.epoch_cost import EpochCost
from keras_omv.errors import BudgetError, ExportError, TrainingDivergedError
from keras_omv.estimation import estimate
from keras_omv.export_checks import check_classes, check_options
from keras_omv.exporter import export
from keras_omv.fusion import build_graph
from keras_omv.progress import silent
from keras_omv.pruners import BOARD_NOTE
from keras_omv.report import ExportReport
from keras_omv.routing import unroute
from keras_omv.script_options import ScriptOptions
from keras_omv.tracking import Tracker, log_dir_beside


class BudgetMonitor(keras.callbacks.Callback):
    """Publishes what the model costs on a camera, and warns before it is too much.

    Adds to `logs`, and so to the history, TensorBoard and the others that stand
    behind it: `omv_flash_bytes`, `omv_ram_bytes`, `omv_macs`, `omv_latency_ms`
    (an estimate), `omv_sparsity`, `omv_channel_sparsity` beside a `ChannelPruning`,
    and `omv_int8_accuracy` and `omv_float_accuracy` where there is data.

    TensorBoard gets charts of the same figures, in groups with readable names, in
    which the camera's limits are lines (run `limit` beside run `camera`), and whether
    the model fits, and why, as a text of every epoch.

    Args:
        board: A `Board`, its name, or a `Budget`.
        on_exceed: What to do, before training, where the model does not fit:
            `"warn"`, `"stop"` the fit (Keras does so after its first epoch) or
            `"raise"` a `BudgetError`. Defaults to `"warn"`.
        evaluation_data: Images and labels, as for `omv.export`, on which to measure
            the int8 network, and the model as Keras computes it, between epochs; 500
            are taken, of arrays from all over them, of a dataset the first. Without
            trained ranges these are taken from 128 of them. Defaults to `None`: not
            measured.
        evaluation_freq: After how many epochs to measure again. The fit's first epoch
            is measured too, and its last one, unless a callback behind this one stops
            the fit early; epochs between have no such accuracy in their `logs`, which
            callbacks that follow it are told of by a warning of Keras. Defaults to
            `1`: every epoch.
        log_dir: The folder of the charts for TensorBoard. Defaults to `None`: that of
            the `keras.callbacks.TensorBoard` in the same fit; no charts without one.

    Raises:
        ValueError: If `on_exceed` is none of the three, or `evaluation_freq` no whole
            number of 1 or more.
        DatasetError: If `evaluation_data` is no images and labels.

    Example:

    ```python
    model.fit(images, labels, epochs=30, callbacks=[
        omv.BudgetMonitor("openmv-h7", evaluation_data=(test_images, test_labels)),
        keras.callbacks.TensorBoard("logs"),
    ])
    # Then in a shell: tensorboard --logdir logs
    ```
    """

    def __init__(
        self,
        board: Board | Budget | str,
        *,
        on_exceed: Literal["warn", "stop", "raise"] = "warn",
        evaluation_data: Any = None,
        evaluation_freq: int = 1,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        if on_exceed not in ("warn", "stop", "raise"):
            raise ValueError(
                "Invalid value received for argument `on_exceed`. Expected 'warn', "
                f"'stop' or 'raise'. Received: on_exceed={on_exceed!r}"
            )
        if not isinstance(evaluation_freq, int) or evaluation_freq < 1:
            raise ValueError(
                "Invalid value received for argument `evaluation_freq`. Expected a "
                "whole number of epochs, at least 1. Received: "
                f"evaluation_freq={evaluation_freq!r}"
            )
        self.board = board
        self.on_exceed = on_exceed
        self.evaluation_data = evaluation_data
        self.evaluation_freq = evaluation_freq
        self.log_dir = log_dir

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        unroute(self.model)
        board = as_board(self.board)
        fits.note(self.model, BOARD_NOTE, board)
        self._costs = EpochCost(self.model, board)
        self.cost: Cost = self._costs.now()
        self._accuracy: EpochAccuracy | None = None
        if self.evaluation_data is not None:
            self._accuracy = EpochAccuracy(self.model, self.evaluation_data)
        log_dir = self.log_dir or log_dir_beside(self)
        self._tracker = Tracker(log_dir, board) if log_dir else None
        self._first_epoch: int | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Not earlier: a ChannelPruning may stand behind this callback.
        if self._first_epoch is not None:
            return
        self._first_epoch = epoch
        board = as_board(self.board)
        try:
            board.check(_planned_cost(self.model, board) or self.cost)
        except BudgetError as error:
            if self.on_exceed == "raise":
                raise
            warnings.warn(str(error), stacklevel=2)
            if self.on_exceed == "stop":
                self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None:
            return
        self.cost = self._costs.now()
        self._publish(logs)
        if self._accuracy is not None and self._is_measured(epoch):
            logs["omv_int8_accuracy"] = self._accuracy.int8()
            logs["omv_float_accuracy"] = self._accuracy.float32()
        if self._tracker is not None:
            self._tracker.write(epoch, logs, self.cost)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._tracker is not None:
            self._tracker.close()
        # Event files and traced functions cannot be copied with the callback.
        self._accuracy = self._tracker = None

    def _publish(self, logs: dict[str, Any]) -> None:
        logs["omv_flash_bytes"] = self.cost.flash_bytes
        logs["omv_ram_bytes"] = self.cost.ram_bytes
        logs["omv_macs"] = self.cost.macs
        logs["omv_latency_ms"] = self.cost.latency_ms
        logs.setdefault("omv_sparsity", self._costs.sparsity)
        channels = channel_masks.in_training(self.model)
        if channels is not None:
            logs["omv_channel_sparsity"] = channels.sparsity

    def _is_measured(self, epoch: int) -> bool:
        # The first: CSVLogger makes its columns there, and has no others later.
        is_first = epoch == self._first_epoch
        is_planned_last = epoch == (self.params or {}).get("epochs", 0) - 1
        is_last = is_planned_last or self.model.stop_training
        return is_first or is_last or (epoch + 1) % self.evaluation_freq == 0


class OpenMVExport(keras.callbacks.Callback):
    """Writes the camera folder when `fit` has finished.

    What can be wrong is looked at before training: the folder, the labels, the
    model's layers, the budget. Stands behind the callbacks that change weights at
    the end, such as EarlyStopping; where these bring back weights from before pruning
    ended, a warning says so. The report is in its `report`.

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
        stock_models: As for `omv.export`.
        script: As for `omv.export`.
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
        stock_models: Any = None,
        script: ScriptOptions | None = None,
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
        self.stock_models = stock_models
        self.script = script
        self.seed = seed

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        unroute(self.model)
        self.report: ExportReport | None = None
        self._begun = False
        check_destination(self.directory)
        board = as_board(self.board)
        fits.note(self.model, BOARD_NOTE, board)
        check_options(
            board,
            dtype=self.dtype,
            on_exceed=self.on_exceed,
            stock_models=self.stock_models,
            script=self.script,
        )
        class_labels(self.class_names)
        check_classes(build_graph(self.model), self.class_names)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Not earlier: what these checks ask for may stand behind this callback.
        if self._begun:
            return
        self._begun = True
        board = as_board(self.board)
        if self.on_exceed == "raise":
            with silent(self._is_quiet):
                cost = _planned_cost(self.model, board)
                board.check(cost or estimate(self.model, board=board))
        has_ranges = trained.in_training(self.model) is not None
        if self.representative_data is None and not has_ranges:
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
        with silent(self._is_quiet):
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
                stock_models=self.stock_models,
                script=self.script,
                seed=self.seed,
            )

    @property
    def _is_quiet(self) -> bool:
        return (self.params or {}).get("verbose") == 0


def _planned_cost(model: Any, board: Board | Budget) -> Cost | None:
    """What a model costs once this fit has removed its channels, if it removes any."""
    channels = channel_masks.in_training(model)
    return None if channels is None else channels.planned_cost(board)
