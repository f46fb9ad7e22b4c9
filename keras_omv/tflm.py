"""Runs .tflite files in TFLM, or in LiteRT, in a process that may die of them.

Command: `python -m keras_omv.tflm JOBS.json SAID.txt`, which `keras_omv.sandbox`
writes and starts. JOBS.json is a list of `{"model", "inputs", "outputs", "answer"}`:
the paths of a .tflite file and of one .npy file for each of its inputs, the frames
along the first axis, then how many outputs there are and where they go. An answer is
an .npz file of arrays `arr_0`, `arr_1`, ...; a file of the same name with `.failed`
behind it holds the reason where there is none. SAID.txt is where stderr goes.

TFLM is the `tflite-micro` package, which equals the camera bit for bit; it aborts on
some models, and so may LiteRT on damaged ones.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

MEMORY_LIMIT_BYTES = 4 << 30
"""Far above what any camera's model takes; a damaged file must not take it all."""
ARENA_BYTES = 64 << 20
"""More than the largest arena of any camera; pages that are not used cost nothing."""


def main(jobs_path: str, said_path: str, *, runtime: str) -> None:
    """Does every job in turn.

    Args:
        jobs_path: The list of jobs.
        said_path: The file that stderr goes to; emptied before each job, so that it
            holds the last words about the job that the process died of.
        runtime: `"tflm"` or `"litert"`.
    """
    _limit_memory()
    for job in json.loads(pathlib.Path(jobs_path).read_text(encoding="utf-8")):
        os.truncate(said_path, 0)
        answer = pathlib.Path(job["answer"])
        try:
            outputs = _run(runtime, job["model"], job["inputs"], job["outputs"])
        except (Exception, MemoryError) as error:
            said = pathlib.Path(said_path).read_text("utf-8", "replace")
            _write_whole(failure_path(answer), f"{said}{error}".encode())
        else:
            _write_whole(answer, _packed(outputs))


def _run(
    runtime: str, model: str, input_paths: Sequence[str], output_count: int
) -> list[np.ndarray]:
    invoke = _load(runtime, model)
    inputs = [np.load(path, allow_pickle=False) for path in input_paths]
    frames = [
        invoke([part[index] for part in inputs], output_count)
        for index in range(len(inputs[0]))
    ]
    return [np.stack(parts) for parts in zip(*frames, strict=True)]


@functools.lru_cache(maxsize=1)
def _load(runtime: str, model: str) -> Any:
    return _load_tflm(model) if runtime == "tflm" else _load_litert(model)


def _load_tflm(model: str) -> Any:
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(model, arena_size=ARENA_BYTES)

    def invoke(values: Sequence[np.ndarray], output_count: int) -> list[np.ndarray]:
        for place, value in enumerate(values):
            interpreter.set_input(value, place)
        interpreter.invoke()
        return [interpreter.get_output(place).copy() for place in range(output_count)]

    return invoke


def _load_litert(model: str) -> Any:
    from ai_edge_litert import interpreter as litert

    interpreter = litert.Interpreter(
        model_path=model,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    sources = [detail["index"] for detail in interpreter.get_input_details()]
    targets = [detail["index"] for detail in interpreter.get_output_details()]

    def invoke(values: Sequence[np.ndarray], output_count: int) -> list[np.ndarray]:
        for source, value in zip(sources, values, strict=True):
            interpreter.set_tensor(source, value)
        interpreter.invoke()
        return [interpreter.get_tensor(target).copy() for target in targets]

    return invoke


def _write_whole(path: pathlib.Path, content: bytes) -> None:
    """Write a file that is there whole or not at all: its being there is the news."""
    half = path.with_name(path.name + ".half")
    half.write_bytes(content)
    half.replace(path)


def _packed(outputs: Sequence[np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, *outputs)
    return file.getvalue()


def failure_path(answer: pathlib.Path) -> pathlib.Path:
    """Return where the reason goes if there is no answer."""
    return answer.with_name(answer.name + ".failed")


def _limit_memory() -> None:
    """Limit this process's memory and forbid core dumps, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES,) * 2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("jobs")
    parser.add_argument("said")
    parser.add_argument("--runtime", choices=("tflm", "litert"), required=True)
    return parser.parse_args()


if __name__ == "__main__":
    options = _arguments()
    main(options.jobs, options.said, runtime=options.runtime)
