"""Models of Keras 2 to test with, which a process of its own writes.

Keras 2 and Keras 3 cannot share one. Beside each model lies NAME.npy, its answers to
`images()`.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np

SHAPE = (16, 16, 3)
CLASSES = 3
SCRIPT = pathlib.Path(__file__).with_name("old_keras_models.py")


def images():
    return np.random.default_rng(3).uniform(0, 1, (6, *SHAPE)).astype("float32")


def answers(folder, name):
    return np.load(folder / f"{name}.npy")


def make(folder):
    """Runs old_keras_models.py."""
    environment = {
        **os.environ,
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, str(SCRIPT), str(folder)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder
