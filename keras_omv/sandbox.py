"""Runs models in processes that may die of them: TFLM aborts where a camera hangs.

A job is a model with some frames. Many jobs share a process; when one kills it or
takes too long, the job fails with the reason and a new process takes the rest.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from keras_omv.tflm import failure_path

Runtime = Literal["tflm", "litert"]
LIMIT_SECONDS = 120.0
"""For one job, the start of its process included. A frame of the largest model that a
camera takes needs about two seconds in TFLM's reference kernels."""
NOT_RUN = "not run: another job failed before"
"""The failure of jobs that `stop_on_failure` left out."""
_POLL_SECONDS = 0.02
_WORDS = 500
"""How much of what a runtime said before it died goes into the reason."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A model and the frames that it is to answer.

    Attributes:
        model: The bytes of a .tflite file.
        inputs: For each of the model's inputs an array of shape `(frames, *input)`.
        output_count: The number of the model's outputs.
    """

    model: bytes
    inputs: tuple[np.ndarray, ...]
    output_count: int = 1


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a job gave.

    Attributes:
        outputs: For each output an array of shape `(frames, *output)`; empty where
            the job failed.
        failure: Why it failed, `""` where it did not.
    """

    outputs: tuple[np.ndarray, ...] = ()
    failure: str = ""


def has_tflm() -> bool:
    """Whether the `tflite-micro` package is installed."""
    return importlib.util.find_spec("tflite_micro") is not None


def run(
    jobs: Sequence[Job],
    *,
    runtime: Runtime,
    processes: int = 1,
    limit_seconds: float = LIMIT_SECONDS,
    progress: Callable[[int, int], None] | None = None,
    stop_on_failure: bool = False,
) -> list[Answer]:
    """Run jobs, whatever they do to the processes they run in.

    Args:
        jobs: The jobs.
        runtime: `"tflm"`, which needs the `tflite-micro` package, or `"litert"`, its
            reference kernels.
        processes: How many processes share the jobs. Defaults to 1.
        limit_seconds: How long a job may take. Defaults to two minutes.
        progress: Called with the number of jobs done and of all jobs. Defaults to
            `None`.
        stop_on_failure: Whether the first job that fails is the last; those that
            were not done then fail with `NOT_RUN`. Defaults to `False`.

    Returns:
        An answer for each job, in their order.
    """
    # A process that was killed may hold files for a moment longer on Windows.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        written = _write(jobs, pathlib.Path(folder))
        parts = [written[start::processes] for start in range(processes)]
        workers = [
            _Worker(pathlib.Path(folder, f"{place}"), part, runtime, limit_seconds)
            for place, part in enumerate(parts)
            if part
        ]
        _wait(workers, len(jobs), progress, stop_on_failure)
        return [_answer(pathlib.Path(job["answer"])) for job in written]


def _wait(
    workers: Sequence["_Worker"],
    total: int,
    progress: Callable[[int, int], None] | None,
    stop_on_failure: bool,
) -> None:
    done = -1
    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.callback(worker.kill)
        while done < total:
            before, done = done, sum(worker.advance() for worker in workers)
            if progress is not None and done > before:
                progress(done, total)
            if stop_on_failure and any(worker.has_failed for worker in workers):
                return
            if done < total:
                time.sleep(_POLL_SECONDS)


class _Worker:
    """A process at work on its jobs, started again after each that kills it."""

    def __init__(
        self,
        folder: pathlib.Path,
        jobs: Sequence[dict[str, Any]],
        runtime: Runtime,
        limit_seconds: float,
    ) -> None:
        folder.mkdir()
        self._folder = folder
        self._jobs = jobs
        self._runtime = runtime
        self._limit_seconds = limit_seconds
        self.has_failed = False
        self._done = 0
        self._since = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def advance(self) -> int:
        """Start or judge the process, and return how many jobs are done."""
        if self._done == len(self._jobs):
            return self._done
        if self._process is None:
            self._start()
            return self._done
        code = self._process.poll()
        self._count()
        if self._done == len(self._jobs):
            self.kill()
        elif code is not None:
            self._give_up(_ending(code))
        elif time.monotonic() - self._since > self._limit_seconds:
            self.kill()
            self._give_up(f"it took more than {self._limit_seconds:g} s")
        return self._done

    def kill(self) -> None:
        """End the process, if there is one."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()

    @property
    def _said(self) -> pathlib.Path:
        return self._folder / "said.txt"

    def _start(self) -> None:
        path = self._folder / "jobs.json"
        path.write_text(json.dumps(self._jobs[self._done :]), encoding="utf-8")
        command = [sys.executable, "-m", "keras_omv.tflm", str(path), str(self._said)]
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(
                [*command, "--runtime", self._runtime],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        self._since = time.monotonic()

    def _count(self) -> None:
        while self._done < len(self._jobs):
            path = pathlib.Path(self._jobs[self._done]["answer"])
            failed = failure_path(path).exists()
            if not path.exists() and not failed:
                return
            self.has_failed |= failed
            self._done += 1
            self._since = time.monotonic()

    def _give_up(self, reason: str) -> None:
        """Write down why the job at hand failed; a new process takes the next."""
        said = self._said.read_text("utf-8", "replace").strip()[-_WORDS:]
        path = pathlib.Path(self._jobs[self._done]["answer"])
        text = f"{reason}{': ' if said else ', without a word'}{said}"
        failure_path(path).write_text(text, encoding="utf-8")
        self.has_failed = True
        self._done += 1
        self._process = None


def _write(jobs: Sequence[Job], folder: pathlib.Path) -> list[dict[str, Any]]:
    """Write models and frames, those that jobs share once."""
    paths: dict[int, str] = {}

    def path_of(content: bytes | np.ndarray) -> str:
        path = paths.setdefault(id(content), str(folder / f"{len(paths)}.content"))
        if pathlib.Path(path).exists():
            return path
        with pathlib.Path(path).open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                np.save(file, content, allow_pickle=False)
        return path

    return [
        {
            "model": path_of(job.model),
            "inputs": [path_of(values) for values in job.inputs],
            "outputs": job.output_count,
            "answer": str(folder / f"{place}.answer"),
        }
        for place, job in enumerate(jobs)
    ]


def _answer(path: pathlib.Path) -> Answer:
    failed = failure_path(path)
    if failed.exists():
        text = failed.read_text("utf-8", "replace").strip()
        return Answer(failure=text[-_WORDS:])
    if not path.exists():
        return Answer(failure=NOT_RUN)
    with np.load(path, allow_pickle=False) as outputs:
        return Answer(tuple(outputs[f"arr_{place}"] for place in range(len(outputs))))


def _ending(code: int) -> str:
    """Say how a process ended; a negative code is the signal that ended it."""
    try:
        return f"it died of {signal.Signals(-code).name}"
    except ValueError:
        return f"it ended with exit code {code}"
