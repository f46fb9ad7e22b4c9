"""Processes that die or hang of a model, and the one that starts them."""

import importlib.util
import pathlib
import time

import numpy as np
import pytest

from keras_omv import flatbuffer, sandbox
from keras_omv.network import Network, Op, Tensor

needs_tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="the tflite-micro wheel exists for Linux on x86-64 only",
)
FRAMES = np.random.default_rng(0).integers(-128, 128, (3, 1, 2, 2, 3), "int8")


def doubling(scale=0.2):
    """A file that adds its input to itself; TFLM aborts where the scale is zero."""
    zero = np.zeros(1, "i8")
    tensors = tuple(
        Tensor(name, (1, 2, 2, 3), "int8", np.float32([of]), zero)
        for name, of in (("image", 0.1), ("sum", scale))
    )
    op = Op("ADD", (0, 0), (1,), {"activation": "NONE"})
    return flatbuffer.write(Network(tensors, (op,), (0,), (1,)), desktop=True)


SOUND, ABORTING = doubling(), doubling(0.0)


@pytest.mark.parametrize("runtime", [pytest.param("tflm", marks=needs_tflm), "litert"])
def test_an_answer_holds_all_frames(runtime):
    (answer,) = sandbox.run([sandbox.Job(SOUND, (FRAMES,))], runtime=runtime)
    assert answer.failure == ""
    np.testing.assert_array_equal(answer.outputs[0], FRAMES)


@needs_tflm
@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_that_kills_its_process_takes_no_other_with_it(processes):
    models = [SOUND, ABORTING, b"no model at all", ABORTING, SOUND]
    jobs = [sandbox.Job(model, (FRAMES,)) for model in models]
    told = []
    answers = sandbox.run(
        jobs,
        runtime="tflm",
        processes=processes,
        progress=lambda *counts: told.append(counts),
    )
    assert [bool(answer.failure) for answer in answers] == [False, *[True] * 3, False]
    assert "died of SIGABRT" in answers[1].failure
    assert answers[1].outputs == ()
    assert told[-1] == (5, 5)


@needs_tflm
@pytest.mark.parametrize("failing", [ABORTING, b"no model at all"])
def test_the_first_failure_is_the_last_where_that_is_asked(failing):
    models = [SOUND, failing, *[ABORTING] * 40]
    jobs = [sandbox.Job(model, (FRAMES,)) for model in models]
    told = []
    answers = sandbox.run(
        jobs,
        runtime="tflm",
        stop_on_failure=True,
        progress=lambda *counts: told.append(counts),
    )
    assert answers[0].failure == ""
    assert answers[1].failure not in ("", sandbox.NOT_RUN)
    assert answers[-1].failure == sandbox.NOT_RUN
    assert told[-1][0] < len(jobs)


def test_an_input_of_another_shape_is_the_failure_of_its_job():
    jobs = [sandbox.Job(SOUND, (frames,)) for frames in (FRAMES[..., :1], FRAMES)]
    wrong, right = sandbox.run(jobs, runtime="litert")
    assert "Dimension mismatch" in wrong.failure
    assert right.failure == ""


def test_a_job_that_takes_too_long_is_ended(monkeypatch, tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sandbox.sys, "executable", str(slow))
    jobs = [sandbox.Job(SOUND, (FRAMES,))] * 2
    begin = time.monotonic()
    answers = sandbox.run(jobs, runtime="litert", limit_seconds=0.3)
    assert time.monotonic() - begin < 60
    assert {answer.failure for answer in answers} == {
        "it took more than 0.3 s, without a word"
    }


def test_a_process_that_says_why_it_ends_is_quoted(monkeypatch, tmp_path):
    talker = tmp_path / "talker"
    talker.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    talker.chmod(0o755)
    monkeypatch.setattr(sandbox.sys, "executable", str(talker))
    (answer,) = sandbox.run([sandbox.Job(SOUND, (FRAMES,))], runtime="litert")
    assert answer.failure == "it ended with exit code 3: out of luck"


def test_nothing_is_left_behind_where_the_caller_is_interrupted(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    started = []
    start = sandbox.subprocess.Popen

    def remember(*arguments, **options):
        started.append(start(*arguments, **options))
        return started[-1]

    def interrupt(seconds):
        if started:
            raise KeyboardInterrupt

    monkeypatch.setattr(sandbox.subprocess, "Popen", remember)
    monkeypatch.setattr(sandbox.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sandbox.run([sandbox.Job(SOUND, (FRAMES,))], runtime="litert")
    assert started[0].returncode is not None
    assert list(pathlib.Path(tmp_path).iterdir()) == []


def test_no_jobs_have_no_answers():
    assert sandbox.run([], runtime="litert") == []
