"""A search with KerasTuner's own service: one chief, two workers."""

import os
import pathlib
import socket
import subprocess
import sys

import small_search

SCRIPT = pathlib.Path(small_search.__file__)
TRIALS = 3


def start(folder, port, name):
    environment = {
        **os.environ,
        "KERASTUNER_TUNER_ID": name,
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": str(port),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with open(folder / f"{name}.log", "w") as log:
        return subprocess.Popen(
            [sys.executable, os.fspath(SCRIPT), os.fspath(folder), str(TRIALS)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_chief_and_two_workers_do_every_trial_once(tmp_path):
    port = free_port()
    names = ("chief", "worker0", "worker1")
    processes = {name: start(tmp_path, port, name) for name in names}
    try:
        codes = {name: p.wait(timeout=500) for name, p in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    logs = {name: (tmp_path / f"{name}.log").read_text()[-2000:] for name in names}
    assert codes == {"chief": 0, "worker0": 0, "worker1": 0}, logs

    # Anyone can read what they found, and export it.
    tuner = small_search.make(os.fspath(tmp_path), oracle="random", max_trials=TRIALS)
    results = tuner.results()
    assert sorted(result.trial_id for result in results) == ["0", "1", "2"]
    assert len({result.key for result in results}) == TRIALS
    assert {trial.status for trial in tuner.oracle.trials.values()} == {"COMPLETED"}
    assert all(result.model_trial_id == result.trial_id for result in results)
