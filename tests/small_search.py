"""A real search over tiny networks and scikit-learn's digits.

    python tests/small_search.py FOLDER TRIALS

Also run by each process of a search with workers, see KERASTUNER_TUNER_ID.
"""

import sys
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import keras_omv as omv

BUDGET = omv.Budget(flash_bytes=64 * 1024, ram_bytes=32 * 1024)
SETTINGS: dict[str, Any] = {
    "classes": 10,
    "channels": 1,
    "alphas": (0.05, 0.2),
    "resolutions": (16, 20),
    "head_channels": (64,),
    "depths": (1, 2),
    "recipe": omv.Recipe(epochs=3, batch_size=100, flip=False),
}


def digits(count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Grey images of 16x16 pixels and their labels."""
    data = load_digits()
    images = (data.images[:count] * (255 / 16)).astype("uint8")[..., None]
    return images.repeat(2, axis=1).repeat(2, axis=2), data.target[:count]


def make(folder: str, *, max_trials: int = 3, **options: Any) -> Any:
    """A tuner of networks that train in a second."""
    settings = {
        **SETTINGS,
        "max_trials": max_trials,
        "directory": folder,
        "project_name": "digits",
        **options,
    }
    return omv.MobileNetV2Tuner(BUDGET, **settings)


def search(tuner: Any, **options: Any) -> None:
    """Trains on 400 digits and judges on 100."""
    images, labels = digits()
    held_out = images[400:], labels[400:]
    options.setdefault("verbose", 0)
    tuner.search(images[:400], labels[:400], validation_data=held_out, **options)


if __name__ == "__main__":
    search(make(sys.argv[1], max_trials=int(sys.argv[2]), oracle="random"))
