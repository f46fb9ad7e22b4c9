"""Runs a search that is killed again and again, and reports what was trained.

    python tests/killed_search.py ORACLE FOLDER SEED

KerasTuner's loop and files are the real ones; only the training of a network is
replaced, by a formula, and pictures are left out, so that hundreds of moments can be
killed in. Prints JSON.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time
import traceback
import warnings
from typing import Any
from unittest import mock

import keras_omv as omv
from keras_omv import search_loop, search_options
from keras_omv.results import TrialResult, read_result, write_result
from keras_omv.runner import Runner
from keras_omv.tuner import MobileNetV2Tuner

TRIALS = 9


class FastRunner(Runner):
    """Answers by a formula, and notes what it was asked to train."""

    def _trained(self, trial_id: str, proposal: Any, span: Any, *_: Any) -> TrialResult:
        folder = self.trial_folder(trial_id)
        # A result that is there is what ended a training, not a line after it: between
        # the two the process may die.
        verb = "repeat" if read_result(folder) else "begin"
        with open(self.folder / "trained.log", "a") as log:
            log.write(f"{verb} {trial_id} {span.end_epoch} {proposal.point.levers}\n")
        time.sleep(0.002)
        result = result_of(trial_id, proposal, span)
        write_result(folder, result)
        return result


def result_of(trial_id: str, proposal: Any, span: Any) -> TrialResult:
    cost = proposal.point.cost
    accuracy = 0.5 + cost.macs % 1009 / 4000
    return TrialResult(
        trial_id=trial_id,
        model_trial_id=trial_id,
        levers=proposal.point.levers,
        training=proposal.training,
        epochs=span.end_epoch,
        initial_epoch=span.begin_epoch,
        int8_accuracy=accuracy,
        val_accuracy=(accuracy,),
        flash_bytes=cost.flash_bytes,
        ram_bytes=cost.ram_bytes,
        macs=cost.macs,
        latency_ms=cost.latency_ms,
        started_from="",
        stopped=False,
        duration_s=0.002,
    )


def make(oracle: str, folder: str) -> MobileNetV2Tuner:
    with mock.patch.object(search_options, "Runner", FastRunner):
        return MobileNetV2Tuner(
            omv.Budget(flash_bytes=64 * 1024, ram_bytes=40 * 1024),
            classes=3,
            channels=1,
            oracle=oracle,
            alphas=(0.05, 0.1, 0.2),
            resolutions=(16, 24, 32),
            head_channels=(64, 112),
            depths=(3, 6),
            recipe=omv.Recipe(epochs=9),
            max_trials=TRIALS,
            directory=folder,
            project_name="killed",
        )


def search(oracle: str, folder: str) -> None:
    search_with(make(oracle, folder))


def search_with(tuner: MobileNetV2Tuner) -> None:
    images = [[[[255]]]] * 3
    with mock.patch.object(search_loop, "write_pictures"):
        tuner.search(images, [0, 1, 2], validation_data=(images, [0, 1, 2]), verbose=0)


def search_and_die(oracle: str, folder: str, seconds: float) -> bool:
    """Whether the search came to its end before it was killed."""
    child = os.fork()
    if child == 0:
        try:
            search(oracle, folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def report(oracle: str, folder: str) -> dict[str, Any]:
    project = pathlib.Path(folder, "killed")
    return {
        "results": [
            [r.trial_id, str(r.levers), r.epochs, r.int8_accuracy]
            for r in make(oracle, folder).results()
        ],
        "log": (project / "trained.log").read_text().splitlines(),
    }


def main() -> None:
    oracle, folder, seed = sys.argv[1:]
    warnings.simplefilter("ignore")  # fork beside TensorFlow's idle threads
    moment = random.Random(seed)
    kills = 0
    seconds = 0.05
    while not search_and_die(oracle, folder, moment.uniform(0, seconds)):
        kills += 1
        seconds *= 1.1  # Longer and longer: the search comes to its end.
    undisturbed = f"{folder}/undisturbed"
    search_and_die(oracle, undisturbed, 3600)
    reports = {"killed": report(oracle, folder), "whole": report(oracle, undisturbed)}
    sys.stdout.write(json.dumps({"kills": kills, **reports}))


if __name__ == "__main__":
    main()
