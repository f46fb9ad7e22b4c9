"""The trials of a search in TensorBoard: a row of the HParams tab each, and pictures.

Every trial is one run, written whole when the trial has ended. One that is repeated
replaces what it wrote before, so that a search which was resumed shows no trial twice.
"""

import importlib.util
import io
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins.hparams import api as hparams_api

from keras_omv import plots
from keras_omv.boards import Board, Budget
from keras_omv.results import TrialResult
from keras_omv.tracking import write_charts

FOLDER = "tensorboard"
PICTURES_RUN = "search"
KERAS_ACCURACY_TAG = "Accuracy/validation in Keras"
"""After every epoch; HParams shows the last."""
_COST_NAMES = {
    "flash_bytes": "flash",
    "ram_bytes": "RAM",
    "macs": "MACs",
    "latency_ms": "estimated time",
}


def write_trial(project: pathlib.Path, result: TrialResult) -> None:
    """Writes a trial as a run of its own, in place of what is there.

    Args:
        project: The search's folder.
        result: What the trial found out.
    """
    writer = _new_writer(project / FOLDER / f"trial_{result.trial_id}")
    with writer.as_default():
        hparams_api.hparams(_hparams(result), trial_id=result.trial_id)
        write_charts(result.metrics, result.epochs)
        for epoch, accuracy in enumerate(result.val_accuracy, result.initial_epoch):
            tf.summary.scalar(KERAS_ACCURACY_TAG, accuracy, step=epoch)
    writer.close()


def write_pictures(
    project: pathlib.Path,
    search: plots.Search,
    *,
    board: Board | Budget,
    classes: int,
    channels: int,
) -> None:
    """Writes a search's Pareto fronts, and which networks fit the camera.

    In place of those that are there. Nothing happens without matplotlib, and where no
    trial is finished.

    Args:
        project: The search's folder.
        search: With what the trials found out.
        board: The camera.
        classes: Number of classes.
        channels: 1 for grey, 3 for RGB.
    """
    if importlib.util.find_spec("matplotlib") is None or not search.results():
        return
    figures = {
        f"Pareto front/Accuracy against {name}": plots.plot_pareto(search, cost)
        for cost, name in _COST_NAMES.items()
    }
    space = plots.plot_space(board, classes=classes, channels=channels)
    figures[f"Search space/What fits {board.label}"] = space
    writer = _new_writer(project / FOLDER / PICTURES_RUN)
    with writer.as_default():
        for tag, figure in figures.items():
            tf.summary.image(tag, _pixels(figure)[None], step=0)
    writer.close()


def _new_writer(run: pathlib.Path) -> Any:
    shutil.rmtree(run, ignore_errors=True)
    return tf.summary.create_file_writer(os.fspath(run))


def _hparams(result: TrialResult) -> dict[str, Any]:
    levers = result.levers
    return {
        "alpha": levers.alpha,
        "resolution (px)": levers.resolution,
        "head (channels)": levers.head,
        "depth (blocks)": levers.depth,
        "epochs": result.epochs,
        "stopped early": result.stopped,
        **result.training,
    }


def _pixels(figure: Any) -> np.ndarray:
    """The pixels of a matplotlib figure, `(height, width, 3)`, uint8."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB"))
