"""From a trained Keras model to the camera folder, with its report."""

import dataclasses
import itertools
import logging
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from keras_omv import flatbuffer
from keras_omv.accuracy import measure, range_of
from keras_omv.batches import batches_of
from keras_omv.boards import Board, Budget, as_board
from keras_omv.camera_files import camera_files
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
    MODEL_FILE,
    REPORT_FILE,
    REPORT_PAGE_FILE,
    check_destination,
    class_labels,
    write_folder,
)
from keras_omv.errors import ExportError
from keras_omv.evaluation import Accuracy
from keras_omv.evaluation_data import gather
from keras_omv.export_checks import check_models, check_options
from keras_omv.front_map import trial_figures
from keras_omv.npu import compile_for
from keras_omv.planned import warn_if_denser
from keras_omv.progress import working
from keras_omv.report import CandidateFigures, ExportReport
from keras_omv.report_check import oddities
from keras_omv.report_figures import file_hashes, network_input_range
from keras_omv.report_page import page
from keras_omv.results import TrialResult
from keras_omv.script_options import ScriptOptions
from keras_omv.sparsity import pruning_notes, zero_share
from keras_omv.storage import StockModels, read_stock_models

logger = logging.getLogger(__name__)


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
    stock_models: StockModels = None,
    script: ScriptOptions | None = None,
    trials: Iterable[TrialResult] = (),
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
            `QuantizationAwareTraining` in this process; 512 images are taken, of an
            array from all over it, of a dataset the first.
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
        stock_models: What else romfs.img is to hold, which takes the place of all
            that is in the camera's /rom: the path of an image read from the camera,
            or of a folder; or files by path, such as some of `romfs.read_image`.
            Defaults to `None`: nothing, OpenMV's own models go. Where the model does
            not live in ROMFS, there is no romfs.img and they stay as they are.
        script: What main.py does beside naming what it sees. Defaults to `None`:
            nothing.
        trials: Of the search that the model comes from, such as `tuner.results()`:
            the report shows them, and the front. Defaults to `()`.

    Returns:
        The report; also in the folder, as report.json and report.html.

    Raises:
        UnsupportedModelError: If the model cannot run on the camera.
        DatasetError: If labels do not fit the model, evaluation images are on another
            scale, or there are none to choose among several models.
        ExportError: If the folder is not ours, there are no images to take
            activation ranges from, TFLM does not run the network, or there is no
            image or folder at `stock_models`.
        BudgetError: If the model, or each of several, does not fit the camera, or
            labels and `stock_models` do not fit its ROMFS beside the model.
        TrainingDivergedError: If a weight is not a finite number.
        ValueError: If `dtype` is not int8, or `input_range` is not the one that a
            model was trained with, or the camera has no ROMFS for `stock_models`, or
            `trials` are of another search.

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
    check_options(
        board,
        dtype=dtype,
        on_exceed=on_exceed,
        stock_models=stock_models,
        script=script,
    )
    check_destination(directory)
    class_names = tuple(class_names)
    class_labels(class_names)
    models = named_models(model)
    check_models(models, class_names, evaluation_data)
    for one in models.values():
        warn_if_denser(one, board)
    candidates = _candidates(
        models,
        board=board,
        batches=_calibration_batches(representative_data),
        input_range=input_range,
        compare=evaluation_data is not None,
    )
    if on_exceed == "raise":
        _check_some_fit(board, candidates)
    search_trials = trial_figures(
        trials,
        board=board,
        classes=len(class_names),
        channels=candidates[0].network.input.shape[-1],
    )
    evaluation = _evaluation_images(evaluation_data)
    if evaluation is not None:
        candidates = evaluate(candidates, *evaluation)
    chosen, why = choose(candidates)
    warnings = _run_warnings(chosen)
    compiled, npu = compile_for(board, chosen.file, chosen.network)
    made = camera_files(
        chosen.file,
        class_names,
        board,
        chosen.fit,
        compiled=compiled,
        kept=read_stock_models(stock_models),
        script=script,
    )
    files = {**_model_files(chosen), **made.files}
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
        trials=search_trials,
        warnings=warnings,
        zero_weights=zero_share(chosen.network),
        notes=_notes(chosen, board),
        npu=npu,
        romfs=made.romfs,
        script=script or ScriptOptions(),
        seed=seed,
        files=file_hashes(files),
    )
    return _written(report, files, board, chosen)


def _candidates(models: Mapping[str, Any], **options: Any) -> list[Candidate]:
    """All ways to quantize all models; the options are those of `candidates_of`."""
    found = (candidates_of(name, one, **options) for name, one in models.items())
    return list(itertools.chain.from_iterable(found))


def _written(
    report: ExportReport,
    files: dict[str, bytes],
    board: Board | Budget,
    chosen: Candidate,
) -> ExportReport:
    """Writes the folder; the report then has the hash of its own page too."""
    html = page(report, board=board, network=chosen.network, run=chosen.run)
    files = {**files, REPORT_PAGE_FILE: html.encode()}
    report = dataclasses.replace(report, files=file_hashes(files))
    content = report.to_json().encode()
    write_folder(report.directory, {**files, REPORT_FILE: content})
    return report


def _calibration_batches(data: Any) -> list[Any]:
    """Batches that several calibrations can go over, whatever the data is."""
    if data is None:
        return []
    with working("Reading images"):
        return list(batches_of(data))


def _evaluation_images(data: Any) -> tuple[np.ndarray, np.ndarray] | None:
    if data is None:
        return None
    with working("Reading images"):
        return gather(data)


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


def _notes(chosen: Candidate, board: Board | Budget) -> tuple[str, ...]:
    notes = pruning_notes(chosen.network, board)
    for note in notes:
        logger.warning("%s", note)
    return notes


def _model_files(chosen: Candidate) -> dict[str, bytes]:
    return {
        MODEL_FILE: chosen.file,
        DESKTOP_MODEL_FILE: flatbuffer.write(chosen.network, desktop=True),
    }


def _accuracy(
    chosen: Candidate, evaluation: tuple[np.ndarray, np.ndarray] | None
) -> Accuracy | None:
    if evaluation is None or chosen.run is None:
        return None
    with working("Comparing with the Keras model"):
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
