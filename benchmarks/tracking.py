"""What watching a fit costs: the seconds of BudgetMonitor in an epoch, and their share.

    python benchmarks/tracking.py

Trains a MobileNetV2 on noise with three monitors that write charts for TensorBoard: one
measures accuracies too, and one does so after each tenth epoch. ChannelPruning removes
channels in the first epochs: there the cost is computed anew at each end. `--tiny
--results FILE` shows that all works.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from common import RESULTS, Results

import keras_omv as omv

CLASSES = 10
BOARD = "openmv-h7-plus"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is timed.

    Attributes:
        alpha: Of the MobileNetV2.
        resolution: Its image's side.
        images: Images of an epoch.
        batch_size: Images of a step.
        evaluation_images: Images that accuracies are measured on.
        evaluation_freq: After how many epochs the third monitor does so.
        pruning_epochs: Those in which channels are removed; the first, in which all is
            traced, is not counted.
        epochs: All of them.
    """

    alpha: float = 0.35
    resolution: int = 96
    images: int = 2048
    batch_size: int = 32
    evaluation_images: int = 500
    evaluation_freq: int = 10
    pruning_epochs: int = 3
    epochs: int = 30


TINY = Settings(alpha=0.05, resolution=32, images=64, evaluation_images=32, epochs=5)
PATH = RESULTS / "tracking.json"


class TimedMonitor(omv.BudgetMonitor):
    """Notes the seconds of each epoch's end."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        begin = time.perf_counter()
        super().on_train_begin(logs)
        self.begin_seconds = time.perf_counter() - begin
        self.seconds: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        begin = time.perf_counter()
        super().on_epoch_end(epoch, logs)
        self.seconds.append(time.perf_counter() - begin)


class Clock(keras.callbacks.Callback):
    """Notes the seconds of each epoch up to the callback behind it."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._begin)


def measure(settings: Settings) -> dict[str, Any]:
    """The seconds of an epoch and of each monitor at its end."""
    model, images, labels = make_model(settings), *make_images(settings)
    evaluation = tuple(part[: settings.evaluation_images] for part in (images, labels))
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        plain = TimedMonitor(BOARD, log_dir=pathlib.Path(folder, "plain"))
        measuring = TimedMonitor(
            BOARD, evaluation_data=evaluation, log_dir=pathlib.Path(folder, "measuring")
        )
        seldom = TimedMonitor(
            BOARD,
            evaluation_data=evaluation,
            evaluation_freq=settings.evaluation_freq,
            log_dir=pathlib.Path(folder, "seldom"),
        )
        model.fit(
            images,
            labels,
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            callbacks=[clock, pruning(settings), plain, measuring, seldom],
            verbose=0,
        )
    while_pruning = slice(1, settings.pruning_epochs)
    afterwards = slice(settings.pruning_epochs, None)
    epoch_seconds = statistics.median(clock.seconds[1:])
    seconds = {
        "monitor": statistics.median(plain.seconds[afterwards]),
        "monitor_while_pruning": statistics.median(plain.seconds[while_pruning]),
        "monitor_with_accuracies": statistics.median(measuring.seconds[afterwards]),
        # A mean: the time of few epochs, shared by all but the first.
        "monitor_with_seldom_accuracies": statistics.mean(seldom.seconds[1:]),
    }
    return {
        "epoch_seconds": epoch_seconds,
        # The first epoch's end traces, once, what measures.
        "first_measuring_seconds": measuring.seconds[0],
        "train_begin_seconds": plain.begin_seconds,
        "seconds": seconds,
        "shares": {name: value / epoch_seconds for name, value in seconds.items()},
    }


def make_model(settings: Settings) -> Any:
    """A compiled MobileNetV2 with seeded weights."""
    keras.utils.set_random_seed(0)
    shape = (settings.resolution, settings.resolution, 3)
    model = omv.MobileNetV2(shape, CLASSES, alpha=settings.alpha)
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    return model


def make_images(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Seeded noise with labels: what is in an image changes no time."""
    side, count = settings.resolution, settings.images
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3))
    return images.astype("float32"), np.arange(count) % CLASSES


def pruning(settings: Settings) -> omv.ChannelPruning:
    """Removes channels in each of its epochs."""
    steps_per_epoch = -(-settings.images // settings.batch_size)
    schedule = omv.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=0.3,
        begin_step=0,
        end_step=settings.pruning_epochs * steps_per_epoch - 1,
        power=1,
        frequency=max(1, steps_per_epoch // 4),
    )
    return omv.ChannelPruning(schedule=schedule)


def main() -> None:
    """Measures, unless it is measured already."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="to see that all works")
    parser.add_argument("--results", type=pathlib.Path, default=PATH)
    options = parser.parse_args()
    settings = TINY if options.tiny else Settings()
    results = Results(
        options.results,
        command="python benchmarks/tracking.py",
        settings=dataclasses.asdict(settings),
    )
    row = results.measure({}, lambda: measure(settings))
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
