"""Checks a camera folder against its report: everything that can be recomputed is.

From model.tflite follow its size, RAM, MACs, time, fit and the firmware's rules;
from report.json the labels, the script and the hashes; from evaluation images the
accuracy. Only what needs the Keras model (float and fake-quantized accuracy) is taken
as it stands. Imports no TensorFlow.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_omv import flatbuffer
from keras_omv.boards import Board, Budget, get_board
from keras_omv.cost import cost_of
from keras_omv.deploy import (
    DESKTOP_MODEL_FILE,
    LABELS_FILE,
    MODEL_FILE,
    REPORT_FILE,
    REPORT_PAGE_FILE,
    SCRIPT_FILE,
    camera_script,
    class_labels,
)
from keras_omv.evaluation import (
    class_count,
    gather,
    measure_device,
    run_device,
    to_pixels,
)
from keras_omv.firmware import Violation
from keras_omv.network import Network
from keras_omv.report import (
    CONTENT_SHA256,
    DEFAULT_FIRMWARE,
    REPORT_FORMAT,
    cost_figures,
    device_figures,
    file_hashes,
    fit_figures,
    signed_text,
)
from keras_omv.rules import file_violations, network_violations

FILES = (
    *(MODEL_FILE, DESKTOP_MODEL_FILE, LABELS_FILE),
    *(SCRIPT_FILE, REPORT_PAGE_FILE, REPORT_FILE),
)
_LISTED = 200
"""Characters of a value in a message."""


def check_folder(
    directory: pathlib.Path, *, evaluation_data: Any = None
) -> tuple[str, ...]:
    """Says where a camera folder and its report differ.

    Args:
        directory: A folder that `omv.export` wrote.
        evaluation_data: The images and labels that its accuracy was measured on, as
            for `omv.export`. Defaults to `None`: the accuracy is not measured again,
            only whether its figures agree with each other.

    Returns:
        A sentence for each difference; empty where nothing was changed.

    Raises:
        DatasetError: If the evaluation data does not fit the model.

    Example:

    ```python
    for difference in check_folder(pathlib.Path("camera")):
        print(difference)
    ```
    """
    files = {name: _read(directory / name) for name in FILES}
    missing = [name for name, data in files.items() if data is None]
    found = {name: data for name, data in files.items() if data is not None}
    differences = [f"{name} is missing" for name in missing]
    report = _parse(found.get(REPORT_FILE, b""))
    if report is None:
        return (*differences, f"{REPORT_FILE} is no report of keras_omv")
    differences += _signature_differences(report, found[REPORT_FILE])
    differences += _hash_differences(report, found)
    if not missing:
        differences += _content_differences(report, found, evaluation_data)
    return tuple(dict.fromkeys(differences))


def board_violations(network: Network, board: Board | Budget) -> tuple[Violation, ...]:
    """The rules of a camera's firmware that a network breaks; see `keras_omv.rules`."""
    if isinstance(board, Budget):
        return network_violations(network, firmware=DEFAULT_FIRMWARE)
    return network_violations(network, firmware=board.firmware, target=board.target)


def _read(path: pathlib.Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        report = json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(report, dict) and report.get("format") == REPORT_FORMAT
    return report if is_ours else None


def _signature_differences(report: Mapping[str, Any], data: bytes) -> Iterator[str]:
    content = {name: value for name, value in report.items() if name != CONTENT_SHA256}
    if signed_text(content).encode("utf-8", "surrogatepass") != data:
        yield f"{REPORT_FILE} was changed: its own SHA-256 is not that of its text"


def _hash_differences(
    report: Mapping[str, Any], files: Mapping[str, bytes]
) -> Iterator[str]:
    now = file_hashes({n: data for n, data in files.items() if n != REPORT_FILE})
    listed = _entries(report, "files")
    for name in sorted(now):
        if listed.get(name) != now[name]:
            yield f"{name} was changed: its SHA-256 is not the one in {REPORT_FILE}"


def _content_differences(
    report: Mapping[str, Any], files: Mapping[str, bytes], evaluation_data: Any
) -> Iterator[str]:
    try:
        network = flatbuffer.read(files[MODEL_FILE])
    except ValueError as error:
        yield f"{MODEL_FILE}: {error}"
        return
    try:
        board = _board(report)
        yield from _violations(files[MODEL_FILE], network, board)
        yield from _figure_differences(report, files, network, board)
        yield from _file_differences(report, files, network, board)
    except (ValueError, TypeError, KeyError) as error:
        yield f"{REPORT_FILE} names no camera, labels or model that are known: {error}"
        return
    yield from _consistency_differences(report)
    if evaluation_data is not None:
        yield from _accuracy_differences(report, network, evaluation_data)


def _board(report: Mapping[str, Any]) -> Board | Budget:
    if report["budget"] is not None:
        return Budget(**report["budget"])
    return get_board(report["board"], firmware=report["firmware"])


def _violations(data: bytes, network: Network, board: Board | Budget) -> Iterator[str]:
    """The firmware's rules that the model breaks."""
    found = (*file_violations(data), *board_violations(network, board))
    for violation in found:
        yield f"{MODEL_FILE}: {violation}"


def _figure_differences(
    report: Mapping[str, Any],
    files: Mapping[str, bytes],
    network: Network,
    board: Board | Budget,
) -> Iterator[str]:
    """What follows from the model's bytes and the camera."""
    cost = cost_of(network, flash_bytes=len(files[MODEL_FILE]), board=board)
    now = {
        "board": board.name,
        "firmware": getattr(board, "firmware", ""),
        "input_shape": network.input.shape,
        **cost_figures(cost),
        **fit_figures(board.fit(cost)),
    }
    yield from _differences(report, now, "the model gives")


def _file_differences(
    report: Mapping[str, Any],
    files: Mapping[str, bytes],
    network: Network,
    board: Board | Budget,
) -> Iterator[str]:
    """What the other files have to be."""
    names = report["class_names"]
    if len(names) != class_count(network):
        yield (
            f"class_names: report.json has {len(names)}, the model tells "
            f"{class_count(network)} classes apart"
        )
    firmware = getattr(board, "firmware", DEFAULT_FIRMWARE)
    expected = {
        LABELS_FILE: class_labels(names).encode(),
        SCRIPT_FILE: camera_script(firmware=firmware).encode(),
    }
    for name, content in expected.items():
        if files[name] != content:
            yield f"{name} is not what keras_omv writes for this report"
    if _slimmed(files[DESKTOP_MODEL_FILE]) != files[MODEL_FILE]:
        yield f"{DESKTOP_MODEL_FILE} is not the network of {MODEL_FILE}"


def _slimmed(data: bytes) -> bytes | None:
    """The file for the camera with a desktop file's network."""
    try:
        return flatbuffer.write(flatbuffer.read(data))
    except (ValueError, KeyError):
        return None


def _consistency_differences(report: Mapping[str, Any]) -> Iterator[str]:
    """What the report's own figures say about each other."""
    shipped = {
        "quantization": report.get("quantization"),
        "int8": _entries(report, "accuracy").get("int8"),
        **{name: report.get(name) for name in ("flash_bytes", "ram_bytes", "fits")},
    }
    candidates = report.get("candidates") or []
    ships = [one for one in candidates if isinstance(one, dict) and one.get("ships")]
    if len(ships) != 1:
        yield f"candidates: {len(ships)} of them ship, one is expected"
    for one in ships:
        yield from _differences(one, shipped, "the report's own figure is", "ships.")
    accuracy = report.get("accuracy")
    if accuracy is not None:
        yield from _confusion_differences(accuracy)


def _confusion_differences(accuracy: Mapping[str, Any]) -> Iterator[str]:
    try:
        counts = np.array(accuracy["confusion"], "int64")
        totals = counts.sum(axis=1).tolist()
        right = np.diag(counts).tolist()
        now = {
            "images": sum(totals),
            "int8": sum(right) / sum(totals),
            "recall": [
                r / n if n else None for r, n in zip(right, totals, strict=True)
            ],
        }
    except (ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        yield f"accuracy.confusion is no table of counts: {error}"
        return
    yield from _differences(accuracy, now, "the confusion matrix gives", "accuracy.")


def _accuracy_differences(
    report: Mapping[str, Any], network: Network, evaluation_data: Any
) -> Iterator[str]:
    """What the network answers now to the evaluation images."""
    accuracy = report.get("accuracy")
    if accuracy is None:
        yield f"accuracy: {REPORT_FILE} has none, it was exported without images"
        return
    images, labels = gather(evaluation_data)
    low, high = report["input_range"]
    run = run_device(network, to_pixels(images, (low, high)), labels)
    now = device_figures(measure_device(run))
    if now["data_sha256"] != accuracy.get("data_sha256"):
        yield "the evaluation images or labels are not those of the export"
    yield from _differences(accuracy, now, "the model answers", "accuracy.")


def _differences(
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


def _entries(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An entry that has entries itself; empty where it is none."""
    value = report.get(name)
    return value if isinstance(value, dict) else {}
