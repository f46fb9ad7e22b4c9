"""A thousand damaged models: none passes that TFLM refuses, dies of or zeroes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import mutants
import pytest
from file_edits import damaged

from keras_omv import flatbuffer
from keras_omv.boards import get_board
from keras_omv.verification import verify_models

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="the tflite-micro wheel exists for Linux on x86-64 only",
)
DATA = Path(__file__).parent / "data" / "device-ram"
MUTANTS = 1000

# TFLM without any of our code: prints what became of each file on its own line, and
# dies where TFLM does.
WITNESS = """
import pathlib, sys
import numpy as np
from tflite_micro import runtime
random = np.random.default_rng(7)
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    print(path.name, end=" ", flush=True)
    model = runtime.Interpreter.from_file(str(path), arena_size=1 << 24)
    detail = model.get_input_details(0)
    limits = np.iinfo(detail["dtype"])
    shape = tuple(detail["shape"])
    frames = [np.full(shape, fill) for fill in (limits.min, limits.max, 0)]
    frames += [random.integers(limits.min, limits.max + 1, shape) for _ in range(5)]
    answers = set()
    for frame in frames:
        model.set_input(frame.astype(detail["dtype"]), 0)
        model.invoke()
        answers.add(model.get_output(0).tobytes())
    print(len(answers), flush=True)
"""


def originals():
    files = [
        (DATA / f"{name}.tflite").read_bytes() for name in ("concat", "lenet", "sep")
    ]
    networks = [flatbuffer.read(data) for data in files]
    ours = [
        flatbuffer.write(network)
        for network in networks
        if {op.kind for op in network.ops} <= flatbuffer.WRITABLE
    ]
    assert ours
    return [
        mutants.with_weights(data, flatbuffer.read(data)) for data in (*files, *ours)
    ]


def answers_of(files, folder):
    """How many different answers TFLM gives for each file, as far as it gets."""
    for place, data in enumerate(files):
        (folder / f"{place:04}.tflite").write_bytes(data)
    command = [sys.executable, "-c", WITNESS, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"{last} {done.stderr[-2000:]}"
    return [int(line.split()[1]) for line in done.stdout.splitlines()]


def test_no_damaged_file_passes_that_tflm_refuses_or_runs_to_zeros(tmp_path):
    files = list(damaged(originals(), MUTANTS, seed=0))
    assert len(files) == MUTANTS
    found = verify_models(files, board=get_board("openmv-h7-plus"))
    passed = [data for data, one in zip(files, found, strict=True) if one.passed]
    counts = answers_of(passed, tmp_path)
    assert len(counts) == len(passed)
    assert min(counts) > 1, counts.index(min(counts))
    # Not because all is refused: damage to a weight is another, sound, network.
    assert 0.1 < len(passed) / MUTANTS < 0.5
    rules = {violation.rule for one in found for violation in one.violations}
    assert {"file", "range", "shapes", "types", "operators", "run", "answers"} <= rules


def test_undamaged_files_pass(tmp_path):
    files = [data for data, _ in originals()]
    found = verify_models(files, board=get_board("openmv-h7-plus"))
    assert [one.passed for one in found] == [True] * len(files)
    assert min(answers_of(files, tmp_path)) > 1
