"""Checks a camera folder against its report: everything that can be recomputed is.

The report is made again from model.tflite (size, RAM, MACs, time, fit) and from those
of its own entries that nothing else gives; it has to be the same again, and so do the
labels, romfs.img, the NPU's file and the page. The script has to be the same unless it
was edited, which is what scripts are for: then it has to be Python. The model keeps the
firmware's rules and runs. With evaluation images its accuracy is measured again. Only
what needs the Keras model (float accuracy, that of the quantized view, candidates that
did not ship), or an NPU's compiler that is not installed, is taken as it stands, where
it can be true at all. Imports no TensorFlow.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from keras_omv import flatbuffer
from keras_omv.boards import Board, Budget, get_board
from keras_omv.deploy import (
    BOARD_FILES,
    DESKTOP_MODEL_FILE,
    LABELS_FILE,
    MODEL_FILE,
    NPU_MODEL_FILE,
    REPORT_FILE,
    REPORT_KIND,
    REPORT_PAGE_FILE,
    ROMFS_FILE,
    SCRIPT_FILE,
    is_edited,
)
from keras_omv.evaluation import DeviceRun, measure_device, run_device
from keras_omv.evaluation_data import check_pixels, gather, to_pixels
from keras_omv.folder_swap import put_back
from keras_omv.network import Network
from keras_omv.report import ExportReport
from keras_omv.report_again import (
    choice_differences,
    entry_differences,
    made_again,
    report_differences,
    trial_differences,
)
from keras_omv.report_figures import (
    CONTENT_SHA256,
    REPORT_FORMAT,
    device_figures,
    file_hashes,
    signed_text,
)
from keras_omv.report_files import (
    compiled_differences,
    file_differences,
    image_problem,
    script_problems,
)
from keras_omv.report_page import page
from keras_omv.verification import run_violations

FILES = (
    *(MODEL_FILE, DESKTOP_MODEL_FILE, LABELS_FILE),
    *(SCRIPT_FILE, REPORT_PAGE_FILE, REPORT_FILE),
)
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What comes of entries that are not of the kind that they should be."""
_MISTAKES = re.compile(
    r'<section class="card" aria-labelledby="mistakes">.*?</section>', re.DOTALL
)
_PICTURE = re.compile('src="data:[^"]*"')
"""Its bytes depend on the version of Pillow."""


def check_folder(
    directory: pathlib.Path, *, evaluation_data: Any = None
) -> tuple[str, ...]:
    """Says where a camera folder and its report differ.

    A folder that an interrupted export left aside is put back first.

    Args:
        directory: A folder that `omv.export` wrote.
        evaluation_data: The images and labels that its accuracy was measured on, as
            for `omv.export`. Defaults to `None`: the accuracy is not measured again,
            only whether its figures agree with each other.

    Returns:
        A sentence for each difference; empty where nothing was changed.

    Raises:
        DatasetError: If the evaluation data does not fit the model, or is on another
            scale than the report's `input_range`.

    Example:

    ```python
    from keras_omv.report_check import check_folder

    for difference in check_folder(pathlib.Path("camera")):
        print(difference)
    ```
    """
    put_back(directory.absolute())
    read = {name: _read(directory / name) for name in (*FILES, *BOARD_FILES)}
    found = {name: data for name, data in read.items() if data is not None}
    report = _parse(found.get(REPORT_FILE, b""))
    listed = _entries(report or {}, "files")
    needed = (*FILES, *(name for name in BOARD_FILES if name in listed))
    missing = [name for name in needed if name not in found]
    differences = [f"{name} is missing" for name in missing]
    if report is None:
        return (*differences, _not_ours(found.get(REPORT_FILE, b"")))
    differences += _signature_differences(report, found[REPORT_FILE])
    differences += _hash_differences(report, found)
    if not missing:
        differences += _content_differences(report, found, evaluation_data)
    if not missing and not differences:
        differences += _run_differences(report, found)
    return tuple(dict.fromkeys(differences))


def edited_files(directory: pathlib.Path) -> tuple[str, ...]:
    """Names the files of a sound camera folder that are the user's own by now.

    That is main.py where it was changed after the export; its other files are not for
    editing, and `check_folder` says where one was.

    Args:
        directory: A folder in which `check_folder` finds no difference.
    """
    report = json.loads((directory / REPORT_FILE).read_bytes())
    script = (directory / SCRIPT_FILE).read_bytes()
    return (SCRIPT_FILE,) if is_edited(report["files"], script) else ()


def _read(path: pathlib.Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _parse(data: bytes) -> dict[str, Any] | None:
    try:
        report = json.loads(data.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(report, dict) and report.get("format") == REPORT_FORMAT
    return report if is_ours else None


def _not_ours(data: bytes) -> str:
    of_any_version = f'"format": "{REPORT_KIND}'.encode()
    if of_any_version in data and REPORT_FORMAT.encode() not in data:
        return f"{REPORT_FILE} is of another version of keras_omv: export again"
    return f"{REPORT_FILE} is no report of keras_omv"


def _refuse(constant: str) -> None:
    raise ValueError(f"Expected a number of JSON. Received: {constant}.")


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
        if name in BOARD_FILES and name not in listed:
            yield f"{name} is none of the files that {REPORT_FILE} lists"
        elif name == SCRIPT_FILE:
            yield from script_problems(files[name])
        elif listed.get(name) != now[name]:
            yield f"{name} was changed: its SHA-256 is not the one in {REPORT_FILE}"
    for name in sorted(set(listed) - ({*FILES, *BOARD_FILES} - {REPORT_FILE})):
        yield f"files: {name} is none of the files of an export"


def _content_differences(
    report: Mapping[str, Any], files: Mapping[str, bytes], evaluation_data: Any
) -> Iterator[str]:
    try:
        network = flatbuffer.read(files[MODEL_FILE])
    except ValueError as error:
        yield f"{MODEL_FILE}: {error}"
        return
    named = _named_network(files)
    if named is None:
        yield f"{DESKTOP_MODEL_FILE} is not the network of {MODEL_FILE}"
    if problem := image_problem(files):
        yield problem
        return
    try:
        board, versions = _board(report), dict(report["versions"])
        again = made_again(
            report,
            files[MODEL_FILE],
            named or network,
            board,
            compiled=files.get(NPU_MODEL_FILE),
            image=files.get(ROMFS_FILE),
        )
        yield from report_differences(report, again)
        yield from file_differences(files, network, board, again)
        yield from choice_differences(again)
        yield from trial_differences(again, board)
        yield from _page_differences(files, named, board, again, versions)
    except _MALFORMED as error:
        yield f"{REPORT_FILE} has no camera, labels or figures that are known: {error}"
        return
    if evaluation_data is None:
        return
    if again.accuracy is None:
        yield f"accuracy: {REPORT_FILE} has none, it was exported without images"
        return
    run = _run_again(network, again, evaluation_data)
    yield from _accuracy_differences(report["accuracy"], run)
    yield from _page_differences(files, named, board, again, versions, run)


def _board(report: Mapping[str, Any]) -> Board | Budget:
    if report["budget"] is not None:
        return Budget(**report["budget"])
    return get_board(report["board"], firmware=report["firmware"])


def _named_network(files: Mapping[str, bytes]) -> Network | None:
    """The network with the names of its layers, if the desktop file is of the model."""
    try:
        network = flatbuffer.read(files[DESKTOP_MODEL_FILE])
        return network if flatbuffer.write(network) == files[MODEL_FILE] else None
    except (ValueError, KeyError):
        return None


def _page_differences(
    files: Mapping[str, bytes],
    named: Network | None,
    board: Board | Budget,
    again: ExportReport,
    made_with: Mapping[str, str | None],
    run: DeviceRun | None = None,
) -> Iterator[str]:
    """Whether the page is that of the report; its mistakes only where it was run."""
    if named is None:
        return
    # The page was there before its own hash was.
    hashes = {n: digest for n, digest in again.files.items() if n != REPORT_PAGE_FILE}
    shown = dataclasses.replace(again, files=hashes)
    expected = page(shown, board=board, network=named, run=run, made_with=made_with)
    found = files[REPORT_PAGE_FILE].decode("utf-8", "replace")
    left_out = _PICTURE if run else _MISTAKES
    if left_out.sub("", found) != left_out.sub("", expected):
        yield f"{REPORT_PAGE_FILE} is not what keras_omv writes for this report"


def _run_again(
    network: Network, again: ExportReport, evaluation_data: Any
) -> DeviceRun:
    images, labels = gather(evaluation_data)
    check_pixels(images, again.input_range)
    return run_device(network, to_pixels(images, again.input_range), labels)


def _accuracy_differences(accuracy: Mapping[str, Any], run: DeviceRun) -> Iterator[str]:
    """What the network answers now to the evaluation images."""
    now = device_figures(measure_device(run))
    if now["data_sha256"] != accuracy["data_sha256"]:
        yield "the evaluation images or labels are not those of the export"
    runtime = {"runtime": now.pop("runtime")}
    differences = [*entry_differences(accuracy, now, "the model answers", "accuracy.")]
    # Another runtime that answers the same says nothing against the report.
    if differences:
        yield from entry_differences(accuracy, runtime, "now it is", "accuracy.")
    yield from differences


def oddities(network: Network, file: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Runs a model on frames that it must tell apart, in TFLM where it is installed.

    Args:
        network: What the file holds.
        file: The bytes of model.tflite.

    Returns:
        Why it does not run, and what is odd about its answers, in sentences.
    """
    found = run_violations(network, file)
    failures, odd = (
        tuple(str(violation) for violation in found if violation.rule == rule)
        for rule in ("run", "answers")
    )
    return failures, odd


def _run_differences(
    report: Mapping[str, Any], files: Mapping[str, bytes]
) -> Iterator[str]:
    """Whether the model runs, as oddly as for the export, and is compiled as then."""
    network, board = flatbuffer.read(files[MODEL_FILE]), _board(report)
    failures, odd = oddities(network, files[MODEL_FILE])
    yield from compiled_differences(report, files, network, board)
    yield from (f"{MODEL_FILE}: {failure}" for failure in failures)
    if not failures:
        yield from entry_differences(report, {"warnings": odd}, "the model's run gives")


def _entries(report: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An entry that has entries itself; empty where it is none."""
    value = report.get(name)
    return value if isinstance(value, dict) else {}
