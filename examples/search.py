"""
Title: Search the best MobileNetV2 under a budget
Description: Let a KerasTuner search choose width, resolution, last convolution and
    depth among the networks that fit a camera and a time limit, and export the best.

Run it with `python examples/search.py`; eight trials take some minutes.
"""

import os
import pathlib
import tempfile

import keras_omv as omv
from keras_omv.images import load_digits

TRIALS = int(os.environ.get("TRIALS", "8"))
EPOCHS = int(os.environ.get("EPOCHS", "16"))
LIMIT_MS = 8.0

"""
## Images

Give them once, at their own size: every trial gets them at its own resolution, scaled
as the camera scales its frames. Your own folder of images goes in as its path.
"""

data = load_digits(resolution=32)

"""
## The search

Only networks that fit the camera and take at most 8 ms (estimated) are candidates:
their cost is known before anything is built. Digits need no more than two blocks; the
defaults are for photographs. `recipe` says how a trial trains: digits must not be
mirrored.
"""

board = omv.get_board("openmv-m7")
with tempfile.TemporaryDirectory() as folder:
    tuner = omv.MobileNetV2Tuner(
        board,
        classes=10,
        channels=1,
        alphas=(0.2, 0.35, 0.5),
        resolutions=(16, 24, 32),
        head_channels=(64, 160),
        depths=(1, 2),
        max_latency_ms=LIMIT_MS,
        recipe=omv.Recipe(epochs=EPOCHS, batch_size=32, learning_rate=0.01, flip=False),
        max_trials=TRIALS,
        directory=folder,
        project_name="digits",
    )
    tuner.search(
        data.train_images,
        data.train_labels,
        validation_data=(data.test_images, data.test_labels),
        verbose=0,
    )

    """
    ## What it found

    Every trial, the most accurate first, and those that no other one beats in both
    accuracy and time. `omv.plot_pareto(tuner, cost="latency_ms")` draws them, with
    matplotlib (`pip install "keras-omv[plots]"`).
    """

    results = tuner.results()
    print(*results, sep="\n")
    print("front:", *(result.name for result in tuner.pareto("latency_ms")))
    report = tuner.export_best(
        pathlib.Path(folder, "camera"), class_names=data.class_names
    )

"""
## Nothing was tried in vain

Every trial fits the camera and the time limit, and the folder holds the best one.
"""

assert len(results) == TRIALS
assert all(board.fit(result).fits for result in results)
assert all(result.latency_ms <= LIMIT_MS for result in results)
assert report.fits
assert report.cost.ram_bytes == results[0].ram_bytes
assert report.accuracy.int8 > 0.6
