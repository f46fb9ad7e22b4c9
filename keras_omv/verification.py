"""Judges a .tflite file: the firmware's rules, the camera's memory, TFLM's answers."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_omv import flatbuffer, sandbox
from keras_omv.boards import Board, get_board
from keras_omv.cost import Cost, cost_of
from keras_omv.deploy import REPORT_FILE
from keras_omv.errors import UnsupportedModelError
from keras_omv.firmware import Violation
from keras_omv.frames import probe_inputs
from keras_omv.network import Network
from keras_omv.progress import working
from keras_omv.rules import (
    USUAL_INPUT_RANGES,
    file_violations,
    name_violations,
    network_violations,
)
from keras_omv.verify import LITERT, RUNTIMES, TFLM

LITERT_NOTE = (
    "run in LiteRT's reference kernels, whose dense layers round about 1 % of their "
    "outputs one step differently from the camera's TFLM: the tflite-micro package, "
    "which equals the camera, is not installed"
)
MOST_ALIKE = 0.75
"""The share of frames that may have the same answer in a network that is at work."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found out about a .tflite file.

    Attributes:
        board: The camera's name.
        firmware: Its release.
        violations: What is wrong; empty for a model that runs as it should.
        cost: Flash, RAM and time, `None` where they cannot be told.
        runtime: What ran the model, `TFLM` or `LITERT`; `""` where a violation was
            found before, so that nothing ran it.
        frames: How many frames it answered.
    """

    board: str
    firmware: str
    violations: tuple[Violation, ...]
    cost: Cost | None = None
    runtime: str = ""
    frames: int = 0

    @property
    def passed(self) -> bool:
        """Whether the model ran and there is no error; warnings do not count."""
        return bool(self.runtime) and not _errors(self.violations)


def verify_file(
    path: str | os.PathLike[str],
    *,
    board: Board | str,
    input_range: tuple[float, float] | None = None,
) -> Verification:
    """Judges a .tflite file, whoever made it: would this camera run it, and well?

    The rules of the firmware come first, then the camera's memory, then TFLM itself,
    in a process of its own, on frames that a model must tell apart.

    Args:
        path: The file. Labels beside it are judged too.
        board: The camera, or its name for firmware 5.0.
        input_range: What pixels 0 and 255 are where they enter the network. Defaults
            to `None`: what the report of `omv.export` says where it lies beside the
            file, else any of 0 to 255, 0 to 1, -1 to 1 and the like.

    Raises:
        ModelFileError: If there is no such file.
        ValueError: For an unknown board.

    Example:

    >>> from keras_omv.verification import verify_file
    >>> verify_file("camera/model.tflite", board="openmv-h7-plus").passed
    True
    """
    path = pathlib.Path(path)
    data = flatbuffer.read_bytes(path)
    board = get_board(board) if isinstance(board, str) else board
    ranges: Sequence[tuple[float, float]] = USUAL_INPUT_RANGES
    if input_range is not None:
        ranges = (input_range,)
    elif (reported := _reported_range(path, data)) is not None:
        ranges = (reported,)
    (found,) = verify_models([data], board=board, input_ranges=ranges)
    network = None if found.cost is None else flatbuffer.read(data)
    named = name_violations(path, network)
    return dataclasses.replace(found, violations=(*named, *found.violations))


def verify_models(
    models: Sequence[bytes],
    *,
    board: Board,
    input_ranges: Sequence[tuple[float, float]] = USUAL_INPUT_RANGES,
    limit_seconds: float = sandbox.LIMIT_SECONDS,
) -> list[Verification]:
    """Judges the bytes of .tflite files as `verify_file` does, many in one process.

    Args:
        models: The files' bytes.
        board: The camera.
        input_ranges: What pixels 0 and 255 may be where they enter the network, as
            pairs; empty to allow any.
        limit_seconds: How long TFLM may take for one model.
    """
    judged = [_judge(data, board, input_ranges) for data in models]
    runnable = [
        (place, network)
        for place, (found, network) in enumerate(judged)
        if network is not None and not _errors(found.violations)
    ]
    runtime = _runtime()
    jobs = [_probe(network, models[place], runtime) for place, network in runnable]
    with working("Running test frames") as progress:
        answers = sandbox.run(
            jobs,
            runtime=RUNTIMES[runtime],
            limit_seconds=limit_seconds,
            progress=progress,
        )
    results = [found for found, _ in judged]
    for (place, _), answer in zip(runnable, answers, strict=True):
        violations = (*results[place].violations, *_judge_answer(answer, runtime))
        frames = len(answer.outputs[0]) if answer.outputs else 0
        results[place] = dataclasses.replace(
            results[place], violations=violations, runtime=runtime, frames=frames
        )
    return results


def run_violations(network: Network, data: bytes) -> list[Violation]:
    """Runs a file that keeps the firmware's rules, in a process of its own.

    Args:
        network: What the file holds.
        data: The file's bytes.

    Returns:
        An error of the rule `run` where the runtime refuses the file, dies of it or
        hangs. One of the rule `answers` where it answers the same to nearly all of
        some frames that a model must tell apart, or not with finite numbers. A
        warning of the rule `runtime` where TFLM is not installed and LiteRT ran it.

    Example:

    >>> from keras_omv import flatbuffer
    >>> from keras_omv.verification import run_violations
    >>> import pathlib
    >>> data = pathlib.Path("camera/model.tflite").read_bytes()
    >>> run_violations(flatbuffer.read(data), data)
    []
    """
    runtime = _runtime()
    job = _probe(network, data, runtime)
    with working("Running test frames"):
        (answer,) = sandbox.run([job], runtime=RUNTIMES[runtime])
    return _judge_answer(answer, runtime)


def _runtime() -> str:
    return TFLM if sandbox.has_tflm() else LITERT


def _reported_range(path: pathlib.Path, data: bytes) -> tuple[float, float] | None:
    """What pixels 0 and 255 are by the report of these bytes, if one lies beside."""
    try:
        report = json.loads(path.with_name(REPORT_FILE).read_text(encoding="utf-8"))
        if report["files"][path.name] != hashlib.sha256(data).hexdigest():
            return None
        low, high = map(float, report["network_input_range"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return (low, high) if low < high and np.isfinite([low, high]).all() else None


def _judge(
    data: bytes, board: Board, ranges: Sequence[tuple[float, float]]
) -> tuple[Verification, Network | None]:
    """Applies the rules and the camera's memory."""
    found = list(file_violations(data, target=board.target))
    network, cost = None, None
    if not found:
        network = flatbuffer.read(data)
        found += network_violations(
            network, firmware=board.firmware, target=board.target, input_ranges=ranges
        )
    if network is not None and not _errors(found):
        cost, more = _fit_violations(network, len(data), board)
        found += more
    verification = Verification(
        board=board.name, firmware=board.firmware, violations=tuple(found), cost=cost
    )
    return verification, network


def _fit_violations(
    network: Network, flash_bytes: int, board: Board
) -> tuple[Cost | None, list[Violation]]:
    try:
        cost = cost_of(network, flash_bytes=flash_bytes, board=board)
    except UnsupportedModelError as error:
        what, _, remedy = str(error).partition(" Next step: ")
        return None, [Violation("fit", what.rstrip("."), remedy.rstrip("."))]
    fit = board.fit(cost)
    if fit.fits:
        return cost, []
    what = f"it does not fit {board.label}: {' '.join(fit.reasons)}".rstrip(".")
    remedy = "train a smaller one; keras-omv space lists those that fit"
    return cost, [Violation("fit", what, remedy)]


def _probe(network: Network, data: bytes, runtime: str) -> sandbox.Job:
    if runtime == LITERT and {op.kind for op in network.ops} <= flatbuffer.WRITABLE:
        # LiteRT insists on parts that TFLM does not read and our files leave out.
        data = flatbuffer.write(network, desktop=True)
    return sandbox.Job(data, probe_inputs(network), len(network.outputs))


def _judge_answer(answer: sandbox.Answer, runtime: str) -> list[Violation]:
    found = []
    if runtime == LITERT:
        found.append(Violation("runtime", LITERT_NOTE, severity="warning"))
    if answer.failure:
        what = f"{runtime} did not run it: {answer.failure}"
        remedy = "the camera would reject it or hang; convert the model again"
        found.append(Violation("run", what, remedy))
    else:
        found += _answer_violations(answer.outputs)
    found += _infinite(answer.outputs)
    return found


def _answer_violations(outputs: Sequence[np.ndarray]) -> list[Violation]:
    """Find a network that does not look at its input, or hardly does."""
    rows = np.concatenate([part.reshape(len(part), -1) for part in outputs], axis=1)
    answers, counts = np.unique(rows, axis=0, return_counts=True)
    count, usual = int(counts.max()), answers[counts.argmax()]
    if count < len(rows) and (count <= MOST_ALIKE * len(rows) or _is_sure(usual)):
        return []
    what = (
        f"it answers the same to {count} of {len(rows)} frames, black, white, "
        f"gradients and noise among them: {_brief(usual)}"
    )
    remedy = (
        "it has hardly learnt anything, or its weights or ranges are lost; train it "
        "longer, or convert it again with omv.export"
    )
    return [Violation("answers", what, remedy)]


def _is_sure(values: np.ndarray) -> bool:
    """Whether scores are at the end of their scale, where many are alike.

    That is their upper end; a single score, as of a sigmoid, has two.
    """
    low, high = 0.0, 1.0
    if np.issubdtype(values.dtype, np.integer):
        low, high = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
    return bool(values.max() == high or (values.size == 1 and values.max() == low))


def _brief(values: np.ndarray) -> str:
    few = values.ravel()[:4].tolist()
    return f"{', '.join(map(str, few))}{', ...' if values.size > len(few) else ''}"


def _infinite(outputs: Sequence[np.ndarray]) -> list[Violation]:
    if all(np.all(np.isfinite(values)) for values in outputs):
        return []
    what = "it answers with numbers that are not finite"
    return [Violation("answers", what, "train it again: its weights have diverged")]


def _errors(violations: Sequence[Violation]) -> list[Violation]:
    return [violation for violation in violations if violation.severity == "error"]


def as_json(verification: Verification) -> dict[str, Any]:
    """A verification as plain data, as `keras-omv verify --json` prints it."""
    cost = verification.cost
    return {
        "passed": verification.passed,
        "board": verification.board,
        "firmware": verification.firmware,
        "violations": [dataclasses.asdict(v) for v in verification.violations],
        "flash_bytes": cost and cost.flash_bytes,
        "ram_bytes": cost and cost.ram_bytes,
        "runtime": verification.runtime,
        "frames": verification.frames,
    }
