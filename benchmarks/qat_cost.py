"""What quantization-aware training costs: seconds and bytes, ours and tfmot's.

Part of qat.py. As a command, `python benchmarks/qat_cost.py ours` trains for some steps
and prints the memory that it took: that needs a process of its own.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from common import batches, orders, scaled, status_bytes
from rival import Rival

import keras_omv as omv
from keras_omv.routing import route
from keras_omv.view import QuantizedView

LOSS = "sparse_categorical_crossentropy"
LEARNING_RATE = 1e-3
CLASSES = 10
OWN = ("float", "ours")
MEMORY = (*OWN, "keras2", "tfmot")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is timed.

    Attributes:
        alpha: Of the MobileNetV2.
        resolution: Its image's side.
        batch_size: Images of a step.
        rounds: How often everyone has a turn; the first is not counted.
        steps: Steps of a turn.
        preparations: How often the model is made quantization-aware.
        memory_steps: Steps of an epoch when memory is measured; there are two epochs.
    """

    alpha: float = 0.35
    resolution: int = 96
    batch_size: int = 32
    rounds: int = 12
    steps: int = 5
    preparations: int = 5
    memory_steps: int = 8


TINY = Settings(
    alpha=0.05, resolution=32, rounds=1, steps=1, preparations=2, memory_steps=1
)
"""To see that all works."""


def make_model(settings: Settings) -> Any:
    """A MobileNetV2 that takes values from -1 to 1, with seeded weights."""
    keras.utils.set_random_seed(0)
    return omv.MobileNetV2(
        (settings.resolution, settings.resolution, 3),
        CLASSES,
        alpha=settings.alpha,
        dropout=0,
        include_rescaling=False,
    )


def make_images(settings: Settings, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Seeded noise with labels: what is in an image changes no time."""
    random = np.random.default_rng(0)
    side = settings.resolution
    images = random.integers(0, 256, (count, side, side, 3))
    return scaled(images), np.arange(count) % CLASSES


def compile_model(model: Any, loss: Any = LOSS) -> None:
    """Compiles with Keras' defaults; whether that means XLA is in the results."""
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss=loss, metrics=["accuracy"])


def own_steppers(settings: Settings) -> dict[str, Any]:
    """Functions that take one step each: Keras 3 float and ours."""
    batch = make_images(settings, settings.batch_size)
    found = {}
    for name in OWN:
        model = make_model(settings)
        compile_model(model)
        if name == "ours":
            route(model, QuantizedView(model, input_range=(-1, 1)))
        found[name] = lambda model=model: model.train_on_batch(*batch)
    return found


def timed(step: Any, count: int) -> list[float]:
    """The seconds of each of some calls."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return seconds


def measure_steps(settings: Settings) -> dict[str, Any]:
    """The seconds of a step, everyone in turn, so that noise hits all alike."""
    steppers = own_steppers(settings)
    with Rival() as rival:
        rival.load(make_model(settings))
        preparations = [rival.ask("quantize")["seconds"] for _ in range(3)]
        images, labels = make_images(settings, settings.batch_size)
        shared = {
            "images": rival.share("images", images),
            "labels": rival.share("labels", labels),
        }
        total = settings.rounds * settings.steps
        for model in ("float", "tfmot"):
            rival.ask("compile", model=model, learning_rate=LEARNING_RATE, steps=total)
        rounds = []
        for _ in range(settings.rounds + 1):
            turn = {name: timed(f, settings.steps) for name, f in steppers.items()}
            for name, model in (("keras2", "float"), ("tfmot", "tfmot")):
                answer = rival.ask("steps", model=model, count=settings.steps, **shared)
                turn[name] = answer["seconds"]
            rounds.append({name: statistics.median(s) for name, s in turn.items()})
    return {
        "preparation_seconds": preparations,
        "step_seconds": {
            name: statistics.median(turn[name] for turn in rounds[1:])
            for name in rounds[0]
        },
        "step_ratios": ratios(rounds[1:]),
    }


def ratios(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds of what is claimed: a turn against one of its round."""
    pairs = {
        "ours_to_float": ("ours", "float"),
        "ours_to_tfmot": ("ours", "tfmot"),
        "tfmot_to_its_float": ("tfmot", "keras2"),
    }
    return {
        name: statistics.median(turn[one] / turn[other] for turn in rounds)
        for name, (one, other) in pairs.items()
    }


def measure_preparation(settings: Settings) -> dict[str, Any]:
    """The seconds of making a model quantization-aware, the first time and later."""
    model = make_model(settings)
    compile_model(model)

    def prepare() -> None:
        route(model, QuantizedView(model, input_range=(-1, 1)))

    return {
        "preparation_seconds": timed(prepare, settings.preparations),
        "uses_xla": model.jit_compile,
    }


def measure_switch(settings: Settings) -> dict[str, Any]:
    """How often our callback has the training step traced, epoch by epoch."""
    traces = [0, 0, 0, 0]
    epoch = -1

    def loss(truth: Any, scores: Any) -> Any:
        traces[epoch] += 1  # Runs in Python, so only while a step is traced.
        return keras.losses.sparse_categorical_crossentropy(truth, scores)

    def begin(number: int, logs: Any) -> None:
        nonlocal epoch
        epoch = number

    model = make_model(settings)
    compile_model(model, loss)
    images, labels = make_images(settings, 2 * settings.batch_size)
    counter = keras.callbacks.LambdaCallback(on_epoch_begin=begin)
    qat = omv.QuantizationAwareTraining(2, input_range=(-1, 1))
    model.fit(
        images,
        labels,
        batch_size=settings.batch_size,
        epochs=len(traces),
        callbacks=[counter, qat],
        verbose=0,
    )
    return {"traces_of_epochs": traces, "switch_epoch": 2, "freeze_epoch": 3}


def train_own(name: str, settings: Settings) -> dict[str, int]:
    """The memory of a training in Keras 3, of this process."""
    model, before = make_model(settings), status_bytes("VmRSS")
    compile_model(model)
    count = settings.memory_steps * settings.batch_size
    images, labels = make_images(settings, count)
    order = orders(count, 2, 0)
    dataset, steps = batches(images, labels, order, settings.batch_size)
    qat = omv.QuantizationAwareTraining(input_range=(-1, 1))
    model.fit(
        dataset,
        epochs=len(order),
        steps_per_epoch=steps,
        shuffle=False,
        callbacks=[qat] if name == "ours" else [],
        verbose=0,
    )
    return {"before_bytes": before, "peak_bytes": status_bytes("VmHWM")}


def measure_memory(settings: Settings) -> dict[str, Any]:
    """The memory of everyone's training, before it and at its peak."""
    return {name: memory_of(name, settings) for name in MEMORY}


def memory_of(name: str, settings: Settings) -> dict[str, int]:
    """The memory of a training, in a process of its own."""
    if name in ("keras2", "tfmot"):
        return _memory_of_rival({"keras2": "float"}.get(name, name), settings)
    given = json.dumps(dataclasses.asdict(settings))
    command = [sys.executable, __file__, name, "--settings", given]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _memory_of_rival(model: str, settings: Settings) -> dict[str, int]:
    count = settings.memory_steps * settings.batch_size
    images, labels = make_images(settings, count)
    with Rival() as rival:
        rival.load(make_model(settings))
        if model == "tfmot":
            rival.ask("quantize")
        rival.ask("compile", model=model, learning_rate=LEARNING_RATE, steps=100)
        return rival.ask(
            "fit",
            model=model,
            images=rival.share("images", images),
            labels=rival.share("labels", labels),
            order=rival.share("order", orders(count, 2, 0)),
            batch_size=settings.batch_size,
        )


PARTS = {
    "switch": measure_switch,
    "preparation": measure_preparation,
    "steps": measure_steps,
    "memory": measure_memory,
}
"""What qat.py measures, by the names in its results."""


def main() -> None:
    """Trains and prints the memory it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", choices=OWN)
    parser.add_argument("--settings", type=json.loads, default={})
    options = parser.parse_args()
    print(json.dumps(train_own(options.name, Settings(**options.settings))))


if __name__ == "__main__":
    main()
