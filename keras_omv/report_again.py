"""A camera folder's report made again, and where the one on disk differs from it.

Most entries of report.json follow from model.tflite, the camera and a few others; these
few are taken as they stand where they can be true at all. Imports no TensorFlow.
"""

import dataclasses
import json
import math
import operator
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from keras_omv.architecture import Levers
from keras_omv.boards import Board, Budget
from keras_omv.cost import cost_of
from keras_omv.evaluation import CAMERA_IMAGES, Accuracy, CameraAccuracy, class_count
from keras_omv.network import Network
from keras_omv.npu import FILE_FIGURES, NpuReport, blank, examine
from keras_omv.report import CandidateFigures, ExportReport, TrialFigures
from keras_omv.report_figures import (
    CONTENT_SHA256,
    accuracy_figures,
    network_input_range,
)
from keras_omv.screening import cost_of_levers
from keras_omv.script_options import ScriptOptions
from keras_omv.sparsity import pruning_notes, zero_share
from keras_omv.storage import RomfsContents, contents_of

_ROUNDING = 1e-9
_LISTED = 200
"""Characters of a value in a message."""


def made_again(
    report: Mapping[str, Any],
    file: bytes,
    network: Network,
    board: Board | Budget,
    *,
    compiled: bytes | None = None,
    image: bytes | None = None,
) -> ExportReport:
    """The report that an export of this model with this outcome gives.

    Args:
        report: The entries of report.json.
        file: The bytes of model.tflite.
        network: What it holds, with the names of the layers.
        board: The camera.
        compiled: The bytes of model_npu.tflite. Defaults to `None`: there is none.
        image: The bytes of romfs.img. Defaults to `None`: there is none.

    Raises:
        ValueError: If an entry is not what it should be; also `TypeError`,
            `LookupError`, `AttributeError` and `ArithmeticError`, each as it comes.
    """
    cost = cost_of(network, flash_bytes=len(file), board=board)
    low, high = map(float, report["input_range"])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"input_range: expected low < high, received {low}, {high}")
    return ExportReport(
        directory=pathlib.Path(),
        board=board.name,
        firmware=getattr(board, "firmware", ""),
        budget=board if isinstance(board, Budget) else None,
        class_names=tuple(report["class_names"]),
        quantization=report["quantization"],
        input_range=(low, high),
        network_input_range=network_input_range(network),
        input_shape=network.input.shape,
        cost=cost,
        fit=board.fit(cost),
        accuracy=_accuracy(report["accuracy"], class_count(network)),
        candidates=tuple(CandidateFigures(**one) for one in report["candidates"]),
        choice=report["choice"],
        trials=tuple(TrialFigures(**one) for one in report["trials"]),
        warnings=tuple(report["warnings"]),
        zero_weights=zero_share(network),
        notes=pruning_notes(network, board),
        npu=_npu(report["npu"], network, board, compiled),
        romfs=_romfs(board, image),
        script=ScriptOptions(**report["script"]),
        seed=None if report["seed"] is None else operator.index(report["seed"]),
        files=report["files"],
    )


def _npu(
    entries: Mapping[str, Any] | None,
    network: Network,
    board: Board | Budget,
    compiled: bytes | None,
) -> NpuReport | None:
    """What the compiled file says; what the compiler alone knows stands as it is."""
    if entries is None or not isinstance(board, Board) or board.npu is None:
        return None
    said = NpuReport(**entries)
    if compiled is None:
        return dataclasses.replace(blank(board), problem=said.problem)
    found, _ = examine(board, compiled, network)
    return dataclasses.replace(
        said,
        **{name: getattr(found, name) for name in FILE_FIGURES},
        problem="",
    )


def _romfs(board: Board | Budget, image: bytes | None) -> RomfsContents | None:
    if image is None or not isinstance(board, Board):
        return None
    return contents_of(image, board)


def _accuracy(entries: Mapping[str, Any] | None, classes: int) -> Accuracy | None:
    """The accuracy with everything that its confusion matrix gives."""
    if entries is None:
        return None
    counts = tuple(tuple(map(operator.index, row)) for row in entries["confusion"])
    if {len(counts), *map(len, counts)} != {classes} or min(map(min, counts)) < 0:
        raise ValueError(f"accuracy.confusion: no table of {classes} classes")
    images = sum(map(sum, counts))
    right = sum(row[index] for index, row in enumerate(counts))
    return Accuracy(
        images=images,
        int8=right / images,
        runtime=entries["runtime"],
        confusion=counts,
        camera=CameraAccuracy(**entries["camera"]),
        scores_sha256=entries["scores_sha256"],
        data_sha256=entries["data_sha256"],
        float32=entries["float32"],
        fake_quantized=entries["fake_quantized"],
        agreement=entries["agreement"],
    )


def report_differences(report: Mapping[str, Any], again: ExportReport) -> Iterator[str]:
    """Entries that are not those of the report that was made again."""
    now = again.content()
    yield from _key_differences(report, {*now, CONTENT_SHA256})
    accuracy = again.accuracy
    same = {k: v for k, v in now.items() if k not in ("accuracy", "versions")}
    yield from entry_differences(report, same, "the model gives")
    if accuracy is not None:
        figures = accuracy_figures(accuracy)
        yield from _key_differences(report["accuracy"], set(figures), "accuracy.")
        verb = "the other figures give"
        yield from entry_differences(report["accuracy"], figures, verb, "accuracy.")
        yield from _share_differences(accuracy, is_grey=again.is_grey)


def _key_differences(
    entries: Mapping[str, Any], expected: set[str], prefix: str = ""
) -> Iterator[str]:
    for name in sorted(set(entries) ^ expected):
        state = "is no entry of a report" if name in entries else "is missing"
        yield f"{prefix}{_shown(name)} {state}"


def _share_differences(accuracy: Accuracy, *, is_grey: bool) -> Iterator[str]:
    """What the shares cannot be, whatever the Keras model is."""
    images, camera = accuracy.images, accuracy.camera
    if camera.images != min(CAMERA_IMAGES, images):
        yield f"accuracy.camera.images: {camera.images} of {images} were not chosen"
    counted = {
        "float32": (accuracy.float32, images),
        "fake_quantized": (accuracy.fake_quantized, images),
        "agreement": (accuracy.agreement, images),
        "camera.int8": (camera.int8, camera.images),
        "camera.int8_clean": (camera.int8_clean, camera.images),
    }
    for name, (share, count) in counted.items():
        if not 0 <= share <= 1 or abs(share * count - round(share * count)) > _ROUNDING:
            yield f"accuracy.{name}: {share} is no share of {count} images"
    gap = abs(accuracy.int8 - accuracy.fake_quantized)
    if gap > 1 - accuracy.agreement + _ROUNDING:
        yield "accuracy.agreement: view and device differ more often than it allows"
    if camera.images == images and camera.int8_clean != accuracy.int8:
        yield "accuracy.camera.int8_clean: of all images it is accuracy.int8"
    if is_grey and camera.int8 != camera.int8_clean:
        yield "accuracy.camera.int8: the camera's grey images are those as they are"


def choice_differences(again: ExportReport) -> Iterator[str]:
    """What the candidates and the choice say about each other and about what ships."""
    ships = [one for one in again.candidates if one.ships]
    if len(ships) != 1:
        yield f"candidates: {len(ships)} of them ship, one is expected"
        return
    (shipped,) = ships
    now = {
        "quantization": again.quantization,
        "int8": again.accuracy and again.accuracy.int8,
        "flash_bytes": again.cost.flash_bytes,
        "ram_bytes": again.cost.ram_bytes,
        "fits": again.fits,
    }
    said = dataclasses.asdict(shipped)
    yield from entry_differences(said, now, "the report's own figure is", "ships.")
    if again.quantization not in ("trained", "calibrated"):
        yield f"quantization: {_shown(again.quantization)} is neither of its two values"
    if not shipped.fits and any(one.fits for one in again.candidates):
        yield "candidates: one that does not fit ships, though another fits"
    start = f"{shipped.name} ({shipped.quantization}) ships"
    is_told = again.choice.startswith(start) if len(again.candidates) > 1 else True
    if not is_told or (again.choice == "") != (len(again.candidates) == 1):
        yield f"choice: {_shown(again.choice)} does not say why {shipped.name} ships"


def trial_differences(again: ExportReport, board: Board | Budget) -> Iterator[str]:
    """Trials that cost something else, or are right more often than is possible."""
    channels = 1 if again.is_grey else 3
    for number, trial in enumerate(again.trials):
        levers = Levers(
            alpha=trial.alpha,
            resolution=trial.resolution,
            channels=channels,
            classes=len(again.class_names),
            head_channels=trial.head_channels,
            depth=trial.depth,
        )
        cost = cost_of_levers(levers, board=board)
        now = {"flash_bytes": cost.flash_bytes, "ram_bytes": cost.ram_bytes}
        prefix = f"trials.{number}."
        said = dataclasses.asdict(trial)
        yield from entry_differences(said, now, "its levers give", prefix)
        if not 0 <= trial.int8_accuracy <= 1:
            yield f"{prefix}int8_accuracy: {trial.int8_accuracy} is no share"
        if not isinstance(trial.stopped, bool):
            yield f"{prefix}stopped: {_shown(trial.stopped)} is neither true nor false"


def entry_differences(
    report: Mapping[str, Any], now: Mapping[str, Any], verb: str, prefix: str = ""
) -> Iterator[str]:
    """A sentence for each entry that is not what it is now."""
    for name, value in now.items():
        value = json.loads(json.dumps(value))
        said = report.get(name)
        if said != value or type(said) is not type(value):
            yield (
                f"{prefix}{name}: report.json says {_shown(said)}, {verb} "
                f"{_shown(value)}"
            )


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LISTED else f"{text[:_LISTED]}..."
