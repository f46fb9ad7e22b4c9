"""A fit's figures in TensorBoard, with the camera's limits as lines in the same charts.

TensorBoard draws one chart for each tag, and in it one line for each run, that is each
folder of event files: `camera` holds what the model takes, `limit` what the camera
has. The part of a tag before the slash is the group of its chart.
"""

import dataclasses
import gc
import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_omv.boards import Board, Budget
from keras_omv.cost import Cost
from keras_omv.fit import Fit
from keras_omv.units import format_bytes

CAMERA_RUN = "camera"
LIMIT_RUN = "limit"
VERDICT_TAG = "Verdict"
KIB = 1024
MILLION = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Chart:
    """Where TensorBoard shows a figure.

    Attributes:
        tag: The group and, after the slash, the name with its unit.
        unit: What the figure is divided by.
    """

    tag: str
    unit: int = 1

    def write(self, value: float, step: int) -> None:
        """Adds a point to the line of the run that is being written."""
        tf.summary.scalar(self.tag, value / self.unit, step=step)


CHARTS: Mapping[str, Chart] = {
    "omv_flash_bytes": Chart("Memory/Flash (KiB)", KIB),
    "omv_ram_bytes": Chart("Memory/RAM (KiB)", KIB),
    "omv_macs": Chart("Speed/MACs (millions)", MILLION),
    "omv_latency_ms": Chart("Speed/Estimated time (ms)"),
    "omv_sparsity": Chart("Sparsity/Weights that are zero"),
    "omv_channel_sparsity": Chart("Sparsity/Channels that are gone"),
    "omv_int8_accuracy": Chart("Accuracy/int8 on the camera"),
    "omv_float_accuracy": Chart("Accuracy/float in Keras"),
}
"""The charts by the names that their figures have in `logs`."""


class Tracker:
    """Writes what a model in training takes of a camera, epoch by epoch.

    Args:
        log_dir: TensorBoard's folder, in which each line has a folder of its own.
        board: The camera.
    """

    def __init__(self, log_dir: str | os.PathLike[str], board: Board | Budget) -> None:
        self._board = board
        self._camera = _writer(log_dir, CAMERA_RUN)
        self._limit = _writer(log_dir, LIMIT_RUN)

    def write(self, epoch: int, logs: Mapping[str, Any], cost: Cost) -> None:
        """Adds an epoch to every chart.

        Args:
            epoch: Counted from 0, as in Keras' own charts.
            logs: Figures by the names of `CHARTS`; others are passed over.
            cost: What the verdict is about.
        """
        fit = self._board.fit(cost)
        with self._camera.as_default():
            write_charts(logs, epoch)
            tf.summary.text(VERDICT_TAG, _verdict(self._board, cost, fit), step=epoch)
        with self._limit.as_default():
            write_charts(_limits(fit), epoch)
        # TensorFlow's writers would keep the last points for two minutes.
        self._camera.flush()
        self._limit.flush()

    def close(self) -> None:
        """Closes the event files."""
        self._camera.close()
        self._limit.close()


def write_charts(figures: Mapping[str, Any], step: int) -> None:
    """Adds figures to their charts, in the run that is being written.

    Args:
        figures: By the names of `CHARTS`; others are passed over.
        step: An epoch.
    """
    for name, chart in CHARTS.items():
        if name in figures:
            chart.write(float(figures[name]), step)


def log_dir_beside(callback: Any) -> str | None:
    """Where the TensorBoard callback in the fit of a callback writes.

    Args:
        callback: A Keras callback in a running `fit`.

    Returns:
        The folder, `None` where the fit has no TensorBoard callback.
    """
    # Keras tells a callback of no other one: neither the model nor its History has the
    # fit's CallbackList. Nothing is kept or changed of what is looked at here.
    for other in gc.get_objects():
        # Not isinstance, which asks proxies of all kinds for their class.
        is_tensorboard = issubclass(type(other), keras.callbacks.TensorBoard)
        if is_tensorboard and _is_of_same_fit(other, callback):
            log_dir: str = os.fspath(other.log_dir)
            return log_dir
    return None


def _is_of_same_fit(other: Any, callback: Any) -> bool:
    """Whether two callbacks have one model, and the one `params` of each fit."""
    models = getattr(other, "model", None), callback.model
    return models[0] is models[1] and other.params is callback.params


def _writer(log_dir: str | os.PathLike[str], run: str) -> Any:
    return tf.summary.create_file_writer(os.path.join(os.fspath(log_dir), run))


def _limits(fit: Fit) -> dict[str, int]:
    limits = {
        "omv_flash_bytes": fit.flash_limit_bytes,
        "omv_ram_bytes": fit.ram_limit_bytes,
    }
    return {name: limit for name, limit in limits.items() if limit is not None}


def _verdict(board: Board | Budget, cost: Cost, fit: Fit) -> str:
    """Whether the model fits, and why, as Markdown."""
    sizes = (
        f"{format_bytes(cost.flash_bytes)} flash, {format_bytes(cost.ram_bytes)} RAM, "
        f"about {cost.latency_ms:.1f} ms."
    )
    answer = "Fits" if fit.fits else "Does not fit"
    return "\n\n".join((f"**{answer} {board.label}.**", sizes, *fit.reasons))
