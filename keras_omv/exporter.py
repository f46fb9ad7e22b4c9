"""From a trained Keras model to the camera folder, with its report."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from keras_omv import flatbuffer, trained, verify
from keras_omv.accuracy import Accuracy, measure
from keras_omv.boards import Board, Budget, as_board
from keras_omv.convert import lower
from keras_omv.cost import Cost
from keras_omv.deploy import (
    camera_script,
    check_destination,
    class_labels,
    write_folder,
)
from keras_omv.errors import DatasetError, ExportError
from keras_omv.estimation import estimate, load_model
from keras_omv.fusion import build_graph
from keras_omv.graph import Graph
from keras_omv.routing import unroute
from keras_omv.view import QuantizedView, batches_of

REPORT_FORMAT = "keras_omv.report/1"
CALIBRATION_IMAGES = 512


@dataclasses.dataclass(frozen=True, slots=True)
class ExportReport:
    """What `omv.export` wrote, with the figures of report.json.

    Attributes:
        directory: The folder.
        board: Name of the camera, or `"budget"`.
        firmware: Its release, or `""`.
        class_names: The labels.
        quantization: `"trained"` where ranges come from quantization-aware
            training, `"calibrated"` where they come from representative data.
        input_range: The values that pixels 0 and 255 have where they enter the model.
        cost: Flash, RAM, MACs and time.
        fits: Whether the model fits the camera.
        fit_reasons: Why, in sentences.
        accuracy: On the evaluation data, `None` without.
        sha256: Of model.tflite.
    """

    directory: pathlib.Path
    board: str
    firmware: str
    class_names: tuple[str, ...]
    quantization: str
    input_range: tuple[float, float]
    cost: Cost
    fits: bool
    fit_reasons: tuple[str, ...]
    accuracy: Accuracy | None
    sha256: str

    def to_json(self) -> str:
        """The text of report.json."""
        cost = self.cost
        content = {
            "format": REPORT_FORMAT,
            "board": self.board,
            "firmware": self.firmware,
            "class_names": list(self.class_names),
            "quantization": self.quantization,
            "input_range": list(self.input_range),
            "flash_bytes": cost.flash_bytes,
            "ram_bytes": cost.ram_bytes,
            "macs": cost.macs,
            "parameters": cost.parameters,
            "latency_ms_estimate": cost.latency_ms,
            "fits": self.fits,
            "fit_reasons": list(self.fit_reasons),
            "accuracy": self.accuracy and dataclasses.asdict(self.accuracy),
            "model_sha256": self.sha256,
            "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        }
        return json.dumps(content, indent=2) + "\n"


def export(
    model: Any,
    directory: str | os.PathLike[str],
    *,
    board: Board | Budget | str,
    class_names: Sequence[str],
    representative_data: Any = None,
    evaluation_data: Any = None,
    input_range: tuple[float, float] | None = None,
    dtype: str = "int8",
    on_exceed: Literal["raise", "warn"] = "raise",
) -> ExportReport:
    """Writes the folder that goes to the camera.

    Args:
        model: A Keras 3 model, or the path of a .keras or .h5 file.
        directory: The folder to write; one that an earlier export wrote is replaced,
            any other that holds files is refused.
        board: A `Board`, its name, or a `Budget`.
        class_names: The labels in the order of the model's outputs; two for a model
            with a single sigmoid output.
        representative_data: Images as they enter the model: an array of shape
            `(n, height, width, channels)` or a tf.data dataset of batches, labels
            beside them or not. Needed where the model was not trained with
            `QuantizationAwareTraining` in this process; 512 images are taken.
        evaluation_data: Images and labels to measure accuracy on: a pair of arrays
            or a dataset of batches. Defaults to `None`: not measured.
        input_range: The values `(low, high)` that pixels 0 and 255 have where they
            enter the model. Defaults to `None`: (0, 255) where the model rescales
            its input itself, else taken from the data.
        dtype: Only `"int8"`.
        on_exceed: Whether a model that does not fit the camera is refused
            (`"raise"`) or written all the same (`"warn"`, which the report tells).

    Returns:
        The report; also in the folder as report.json.

    Raises:
        UnsupportedModelError: If the model cannot run on the camera.
        DatasetError: If labels do not fit the model.
        ExportError: If the folder is not ours, or there are no images to take
            activation ranges from.
        BudgetError: If the model does not fit the camera.
        TrainingDivergedError: If a weight is not a finite number.
        ValueError: If `dtype` is not int8.
    """
    board = as_board(board)
    check_options(board, dtype=dtype, on_exceed=on_exceed)
    check_destination(directory)
    class_names = tuple(class_names)
    labels = class_labels(class_names)
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    unroute(model)
    check_classes(build_graph(model), class_names)
    view, quantization = quantized_view(model, representative_data, input_range)
    network = lower(view)
    verify.check_network(network)
    cost = estimate(network, board=board)
    if on_exceed == "raise":
        board.check(cost)
    file = flatbuffer.write(network)
    fit = board.fit(cost)
    report = ExportReport(
        directory=pathlib.Path(directory),
        board=board.name,
        firmware=_firmware(board),
        class_names=class_names,
        quantization=quantization,
        input_range=view.pixels.range or (0.0, 255.0),
        cost=cost,
        fits=fit.fits,
        fit_reasons=fit.reasons,
        accuracy=None
        if evaluation_data is None
        else measure(model, view, evaluation_data),
        sha256=hashlib.sha256(file).hexdigest(),
    )
    files = {
        "model.tflite": file,
        "model_desktop.tflite": flatbuffer.write(network, desktop=True),
        "labels.txt": labels.encode(),
        "main.py": camera_script(firmware=report.firmware or "5.0").encode(),
        "report.json": report.to_json().encode(),
    }
    write_folder(directory, files)
    return report


def quantized_view(
    model: Any, representative_data: Any, input_range: tuple[float, float] | None
) -> tuple[QuantizedView, str]:
    """The view to export, and whether its ranges are trained or calibrated.

    Raises:
        ExportError: If there are neither trained ranges nor images.
    """
    view = trained.trained_view(model)
    if view is not None:
        return view, "trained"
    if representative_data is None:
        raise ExportError(
            "Expected images to take activation ranges from. Received: a model whose "
            "weights were not trained with QuantizationAwareTraining in this process, "
            "and representative_data=None. Pass representative_data=train_images."
        )
    view = QuantizedView(model, input_range=input_range)
    images = view.calibrate(batches_of(representative_data, limit=CALIBRATION_IMAGES))
    if images == 0:
        raise ExportError(
            "Expected some images to take activation ranges from. Received: empty "
            "representative_data. Pass a few hundred training images."
        )
    return view, "calibrated"


def check_classes(graph: Graph, class_names: Sequence[str]) -> None:
    """Checks that there is a label for each output.

    Raises:
        DatasetError: If there is not.
    """
    expected = 2 if graph.output_units == 1 else graph.output_units
    if len(class_names) != expected:
        raise DatasetError(
            f"Expected {expected} class names, as the model has {graph.output_units} "
            f"output{'s' if graph.output_units > 1 else ''}. Received: "
            f"{len(class_names)}: {list(class_names)}. Give one label for each output, "
            "in their order."
        )


def check_options(board: Board | Budget, *, dtype: str, on_exceed: str) -> None:
    """Checks what can be told from an export's options alone.

    Raises:
        ValueError: If one is not supported, or there is no script for the firmware.
    """
    if dtype != "int8":
        raise ValueError(
            "Invalid value received for argument `dtype`. Expected 'int8': the "
            "camera's TFLM has int8 kernels only for what an image classifier needs, "
            f"and feeds int8 pixels. Received: dtype={dtype!r}. Leave it out."
        )
    if on_exceed not in ("raise", "warn"):
        raise ValueError(
            "Invalid value received for argument `on_exceed`. Expected 'raise' or "
            f"'warn'. Received: on_exceed={on_exceed!r}"
        )
    camera_script(firmware=_firmware(board) or "5.0")


def _firmware(board: Board | Budget) -> str:
    return getattr(board, "firmware", "")
