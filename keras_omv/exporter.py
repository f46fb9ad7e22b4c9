"""From a trained Keras model to the camera folder, with its report."""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from keras_omv import flatbuffer
from keras_omv.accuracy import measure, range_of
from keras_omv.boards import Board, Budget, as_board
from keras_omv.candidates import (
    Candidate,
    candidates_of,
    choose,
    evaluate,
    named_models,
)
from keras_omv.cost import Cost
from keras_omv.deploy import (
    DESKTOP_MODEL_FILE,
    LABELS_FILE,
    MODEL_FILE,
    REPORT_FILE,
    REPORT_PAGE_FILE,
    SCRIPT_FILE,
    camera_script,
    check_destination,
    class_labels,
    write_folder,
)
from keras_omv.errors import DatasetError, ExportError
from keras_omv.evaluation import Accuracy
from keras_omv.evaluation_data import gather
from keras_omv.fusion import build_graph
from keras_omv.graph import Graph
from keras_omv.report import (
    DEFAULT_FIRMWARE,
    CandidateFigures,
    ExportReport,
    file_hashes,
    network_input_range,
)
from keras_omv.report_check import oddities
from keras_omv.report_page import page
from keras_omv.view import batches_of

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 512


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
    seed: int | None = None,
) -> ExportReport:
    """Writes the folder that goes to the camera.

    Args:
        model: A Keras 3 model, or the path of a .keras or .h5 file; or several to
            choose from, as a list or a mapping from names. Of several, the one ships
            that is right most often on the camera's own arithmetic among those that
            fit; of equals within one standard error the smaller file, then the first.
            Where a model was trained with `QuantizationAwareTraining` and there are
            both representative and evaluation data, plain post-training quantization
            of the same weights is a candidate too.
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
            or a dataset of batches, of at most `evaluation_data.MOST_IMAGES` images.
            Images as they enter the model, on its scale. Defaults to `None`: not
            measured. Needed to choose among several models.
        input_range: The values `(low, high)` that pixels 0 and 255 have where they
            enter the model. Defaults to `None`: (0, 255) where the model rescales
            its input itself, else taken from the data. What a model was trained with
            stays.
        dtype: Only `"int8"`.
        on_exceed: Whether a model that does not fit the camera is refused
            (`"raise"`) or written all the same (`"warn"`, which the report tells).
        seed: Of the training, for the report. Defaults to `None`: not known.

    Returns:
        The report; also in the folder, as report.json and report.html.

    Raises:
        UnsupportedModelError: If the model cannot run on the camera.
        DatasetError: If labels do not fit the model, evaluation images are on another
            scale, or there are none to choose among several models.
        ExportError: If the folder is not ours, there are no images to take
            activation ranges from, or TFLM does not run the network.
        BudgetError: If the model, or each of several, does not fit the camera.
        TrainingDivergedError: If a weight is not a finite number.
        ValueError: If `dtype` is not int8, or `input_range` is not the one that a
            model was trained with.

    Example:

    ```python
    report = omv.export(
        {"wide": wide_model, "pruned": pruned_model}, "camera",
        board="openmv-h7-plus", class_names=names,
        representative_data=train_images,
        evaluation_data=(test_images, test_labels),
    )
    print(report.choice)
    ```
    """
    board = as_board(board)
    check_options(board, dtype=dtype, on_exceed=on_exceed)
    check_destination(directory)
    class_names = tuple(class_names)
    class_labels(class_names)
    models = named_models(model)
    _check_models(models, class_names, evaluation_data)
    batches = _calibration_batches(representative_data)
    candidates = [
        candidate
        for name, one in models.items()
        for candidate in candidates_of(
            name,
            one,
            board=board,
            batches=batches,
            input_range=input_range,
            compare=evaluation_data is not None,
        )
    ]
    if on_exceed == "raise":
        _check_some_fit(board, candidates)
    evaluation = None if evaluation_data is None else gather(evaluation_data)
    if evaluation is not None:
        candidates = evaluate(candidates, *evaluation)
    chosen, why = choose(candidates)
    warnings = _run_warnings(chosen)
    files = _camera_files(chosen, class_names, board)
    report = ExportReport(
        directory=pathlib.Path(directory),
        board=board.name,
        firmware=_firmware(board),
        budget=board if isinstance(board, Budget) else None,
        class_names=class_names,
        quantization=chosen.quantization,
        input_range=range_of(chosen.view),
        network_input_range=network_input_range(chosen.network),
        input_shape=chosen.network.input.shape,
        cost=chosen.cost,
        fit=chosen.fit,
        accuracy=_accuracy(chosen, evaluation),
        candidates=tuple(_figures(one, ships=one is chosen) for one in candidates),
        choice=why,
        warnings=warnings,
        seed=seed,
        files=file_hashes(files),
    )
    html = page(report, board=board, network=chosen.network, run=chosen.run)
    files[REPORT_PAGE_FILE] = html.encode()
    report = dataclasses.replace(report, files=file_hashes(files))
    files[REPORT_FILE] = report.to_json().encode()
    write_folder(directory, files)
    return report


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
    camera_script(firmware=_firmware(board) or DEFAULT_FIRMWARE)


def _check_models(
    models: Mapping[str, Any], class_names: Sequence[str], evaluation_data: Any
) -> None:
    for one in models.values():
        check_classes(build_graph(one), class_names)
    if len(models) > 1 and evaluation_data is None:
        raise DatasetError(
            f"Expected images and labels to choose among {len(models)} models. "
            "Received: evaluation_data=None. Pass evaluation_data=(images, labels)."
        )


def _calibration_batches(data: Any) -> list[Any]:
    """Batches that several calibrations can go over, whatever the data is."""
    if data is None:
        return []
    return list(batches_of(data, limit=CALIBRATION_IMAGES))


def _check_some_fit(board: Board | Budget, candidates: Sequence[Candidate]) -> None:
    """Raises `BudgetError` for the smallest candidate if none fits."""
    if not any(one.fit.fits for one in candidates):
        board.check(min((one.cost for one in candidates), key=_size))


def _size(cost: Cost) -> tuple[int, int]:
    return cost.flash_bytes, cost.ram_bytes


def _run_warnings(chosen: Candidate) -> tuple[str, ...]:
    """Runs what is about to ship in TFLM and says what is odd about its answers.

    Raises:
        ExportError: If TFLM refuses it, aborts on it or hangs.
    """
    failures, warnings = oddities(chosen.network, chosen.file)
    if failures:
        raise ExportError(
            f"Expected a network that runs. Received: {'; '.join(failures)}."
        )
    for warning in warnings:
        logger.warning("%s: %s", MODEL_FILE, warning)
    return warnings


def _camera_files(
    chosen: Candidate, class_names: Sequence[str], board: Board | Budget
) -> dict[str, bytes]:
    script = camera_script(firmware=_firmware(board) or DEFAULT_FIRMWARE)
    return {
        MODEL_FILE: chosen.file,
        DESKTOP_MODEL_FILE: flatbuffer.write(chosen.network, desktop=True),
        LABELS_FILE: class_labels(class_names).encode(),
        SCRIPT_FILE: script.encode(),
    }


def _accuracy(
    chosen: Candidate, evaluation: tuple[np.ndarray, np.ndarray] | None
) -> Accuracy | None:
    if evaluation is None or chosen.run is None:
        return None
    return measure(chosen.model, chosen.view, evaluation[0], chosen.run)


def _figures(candidate: Candidate, *, ships: bool) -> CandidateFigures:
    return CandidateFigures(
        name=candidate.name,
        quantization=candidate.quantization,
        int8=candidate.run.accuracy if candidate.run else None,
        flash_bytes=candidate.cost.flash_bytes,
        ram_bytes=candidate.cost.ram_bytes,
        fits=candidate.fit.fits,
        ships=ships,
    )


def _firmware(board: Board | Budget) -> str:
    return getattr(board, "firmware", "")
