"""What pruning saves on a camera and what it costs in accuracy, against a smaller net.

    python benchmarks/pruning.py DATA_DIR [--seeds 3]
    python benchmarks/pruning.py --quick
    python benchmarks/pruning.py --table

MobileNetV2 alpha 0.35 at 64 px. One dense training a seed; from its weights go on, for
the same epochs: training as before; with the smallest 80 % of the weights zero; with
channels removed until flash and RAM are 60 % and 75 % of the dense network's, and 40 %
and 60 %. Their rival is a smaller MobileNetV2 of all 17 blocks that is trained from
scratch for all these epochs: of those with a like share of the flash, whatever their
RAM, the one with the most MACs.

All are trained with the default recipe's augmentation and optimizer and quantized after
training. Flash, RAM, time and accuracy (TFLM's) are those of the exported folder's
report; the time is an estimate.

Writes benchmarks/results/pruning.json after every training and goes on from there when
started again; remove it to measure anew. The dense weights are kept in the system's
temporary folder. On two quiet cores a seed takes about 10 minutes. `--quick` is
scikit-learn's digits at 32 px, one seed: a few minutes, and results of its own.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from common import RESULTS, Results, markdown, spread

import keras_omv as omv
from keras_omv.architecture import Levers
from keras_omv.images import ImageData, load_digits, load_image_folder
from keras_omv.mobilenet import model_of_levers
from keras_omv.recipe import Recipe, compile_model, training_batches

WEIGHTS = pathlib.Path(tempfile.gettempdir(), "keras-omv-benchmarks")
CALIBRATION_IMAGES = 512
ALPHAS = tuple(percent / 100 for percent in range(5, 36))
HEADS = (160, 320, 480, 640, 800, 960, 1120, 1280)
TITLES = {
    "dense": "dense",
    "magnitude": "80 % of the weights zero, `omv.Pruning`",
    "channels_60": "`omv.ChannelPruning`, 60 % flash, 75 % RAM",
    "channels_40": "`omv.ChannelPruning`, 40 % flash, 60 % RAM",
    "alpha_60": "smaller alpha, 60 % flash, any RAM",
    "alpha_40": "smaller alpha, 40 % flash, any RAM",
}
LIMITS: dict[str, tuple[float, float | None]] = {
    "channels_60": (0.6, 0.75),
    "channels_40": (0.4, 0.6),
    "alpha_60": (0.6, None),
    "alpha_40": (0.4, None),
}
"""Shares of the dense network's flash and RAM."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is trained, and for how long.

    Attributes:
        alpha: Of the dense MobileNetV2.
        resolution: Its image's side.
        dense_epochs: Of the training that those with alpha 0.35 share.
        epochs: Of what each of them goes on with.
        learning_rate: The highest of the first; the default recipe's.
        tuning_rate: The highest of the second.
        sparsity: Of magnitude pruning.
        flip: Whether images are mirrored at random.
    """

    alpha: float = 0.35
    resolution: int = 64
    dense_epochs: int = 10
    epochs: int = 8
    learning_rate: float = 3e-3
    tuning_rate: float = 1e-3
    sparsity: float = 0.8
    flip: bool = True


FULL = Setting()
QUICK = Setting(resolution=32, dense_epochs=2, epochs=3, flip=False)


class Task:
    """A setting with its images and a seed."""

    def __init__(self, setting: Setting, data: ImageData, seed: int) -> None:
        self.setting, self.data, self.seed = setting, data, seed
        self.levers = Levers(
            alpha=setting.alpha,
            resolution=setting.resolution,
            channels=data.train_images.shape[-1],
            classes=len(data.class_names),
        )
        self.dense_cost = omv.estimate(self.levers)

    def budget(self, variant: str) -> omv.Budget:
        """The limits of a variant in bytes."""
        flash, ram = LIMITS[variant]
        return omv.Budget(
            flash_bytes=int(flash * self.dense_cost.flash_bytes),
            ram_bytes=ram and int(ram * self.dense_cost.ram_bytes),
        )

    def train(
        self, model: Any, epochs: int, learning_rate: float, callbacks: list[Any]
    ) -> None:
        """Trains with the default recipe."""
        recipe = Recipe(
            epochs=epochs,
            learning_rate=learning_rate,
            flip=self.setting.flip,
            seed=self.seed,
        )
        images = self.data.train_images, self.data.train_labels
        dataset = training_batches(tf.data.Dataset.from_tensor_slices(images), recipe)
        compile_model(model, recipe, int(dataset.cardinality()))
        model.fit(dataset, epochs=epochs, shuffle=False, callbacks=callbacks, verbose=0)

    def dense(self) -> Any:
        """The model with the weights of the dense training, which is done once."""
        keras.utils.set_random_seed(self.seed)
        model, path = model_of_levers(self.levers), self._weights_path()
        if path.exists():
            model.load_weights(path)
            return model
        self.train(model, self.setting.dense_epochs, self.setting.learning_rate, [])
        path.parent.mkdir(exist_ok=True)
        model.save_weights(path)
        return model

    def _weights_path(self) -> pathlib.Path:
        digest = hashlib.sha256(repr((self.setting, self.seed)).encode())
        digest.update(self.data.train_images.tobytes())
        return WEIGHTS / f"{digest.hexdigest()[:16]}.weights.h5"


def tuned(task: Task, *callbacks: Any) -> Any:
    """The dense model, trained on with some callbacks."""
    model = task.dense()
    task.train(model, task.setting.epochs, task.setting.tuning_rate, [*callbacks])
    return model


def magnitude(task: Task) -> Any:
    """The dense model with its smallest weights zero, over half of the epochs."""
    batch_size = Recipe().batch_size
    steps = task.setting.epochs * -(-len(task.data.train_labels) // batch_size)
    schedule = omv.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=task.setting.sparsity,
        begin_step=steps // 10,
        end_step=steps // 2,
        frequency=max(1, steps // 25),
    )
    return tuned(task, omv.Pruning(schedule))


def channels(task: Task, variant: str) -> Any:
    """The dense model with channels removed until it is within the limits."""
    return tuned(task, omv.ChannelPruning(task.budget(variant)))


def rival_levers(task: Task, variant: str) -> Levers:
    """The MobileNetV2 of all blocks with the most MACs within the limits."""
    points = omv.feasible_points(
        task.budget(variant),
        classes=task.levers.classes,
        channels=task.levers.channels,
        resolutions=task.levers.resolution,
        alphas=ALPHAS,
        head_channels=HEADS,
        depths=task.levers.depth,
        limit=1,
    )
    return points[0].levers


def smaller(task: Task, variant: str) -> Any:
    """A MobileNetV2 within the limits, trained from scratch for as many epochs."""
    keras.utils.set_random_seed(task.seed)
    model = model_of_levers(rival_levers(task, variant))
    epochs = task.setting.dense_epochs + task.setting.epochs
    task.train(model, epochs, task.setting.learning_rate, [])
    return model


def trained(task: Task, variant: str) -> Any:
    """The model of a variant."""
    if variant == "dense":
        return tuned(task)
    if variant == "magnitude":
        return magnitude(task)
    make: Callable[[Task, str], Any] = channels if "channels" in variant else smaller
    return make(task, variant)


def measure(task: Task, variant: str) -> dict[str, Any]:
    """The figures of a variant, from its exported folder's report."""
    model = trained(task, variant)
    with tempfile.TemporaryDirectory() as folder:
        report = omv.export(
            model,
            pathlib.Path(folder, "camera"),
            board=omv.Budget(),
            class_names=task.data.class_names,
            representative_data=task.data.train_images[:CALIBRATION_IMAGES],
            evaluation_data=(task.data.test_images, task.data.test_labels),
            seed=task.seed,
        )
    head = model.get_layer("head").filters
    keras.backend.clear_session()
    return {
        "trained": f"{model.name}, last convolution {head} wide",
        "int8": report.accuracy.int8,
        "float32": report.accuracy.float32,
        "images": report.accuracy.images,
        "runtime": report.accuracy.runtime,
        "flash_bytes": report.cost.flash_bytes,
        "ram_bytes": report.cost.ram_bytes,
        "latency_ms": report.cost.latency_ms,
        "macs": report.cost.macs,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """One line for each variant: means over the seeds, and shares of the dense."""
    by_variant = {
        variant: [row for row in rows if row["variant"] == variant]
        for variant in TITLES
    }
    head = ("", "flash", "RAM", "time", "accuracy, %", "to dense")
    dense = by_variant["dense"]
    lines = [_line(v, found, dense) for v, found in by_variant.items() if found]
    return markdown(head, lines)


def _line(variant: str, rows: list[dict], dense: list[dict]) -> tuple[str, ...]:
    accuracy = {row["seed"]: row["int8"] for row in dense}
    pairs = [r["int8"] - accuracy[r["seed"]] for r in rows if r["seed"] in accuracy]
    means = {
        name: statistics.fmean(row[name] for row in rows)
        for name in ("flash_bytes", "ram_bytes", "latency_ms")
    }
    shares = (
        f"{100 * mean / statistics.fmean(row[name] for row in dense):.0f} %"
        for name, mean in means.items()
    )
    flash, ram, latency = shares
    return (
        TITLES[variant],
        f"{means['flash_bytes']:,.0f} ({flash})",
        f"{means['ram_bytes']:,.0f} ({ram})",
        f"{means['latency_ms']:.1f} ms ({latency})",
        spread(row["int8"] for row in rows),
        spread(pairs, signed=True) if variant != "dense" else "",
    )


def run(options: argparse.Namespace) -> None:
    """Measures what is not measured yet."""
    if options.quick:
        setting, seeds = QUICK, 1
        data = load_digits(resolution=setting.resolution)
    elif options.folder is None:
        raise SystemExit("Expected a folder of images, or --quick.")
    else:
        setting, seeds = FULL, options.seeds
        data = load_image_folder(options.folder, resolution=setting.resolution)
    results = Results(
        options.results,
        command="python benchmarks/pruning.py DATA_DIR",
        settings={
            **dataclasses.asdict(setting),
            "limits": LIMITS,
            "train_images": len(data.train_labels),
        },
    )
    for seed in range(seeds):
        task = Task(setting, data, seed)
        for variant in TITLES:
            key = {"seed": seed, "variant": variant}
            results.measure(key, lambda t=task, v=variant: measure(t, v))


def main() -> None:
    """Measures and prints, or prints the table of what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--table", action="store_true", help="print the table only")
    options = parser.parse_args()
    if options.results is None:
        name = "pruning_quick.json" if options.quick else "pruning.json"
        options.results = RESULTS / name
    if not options.table:
        run(options)
    print(table(json.loads(options.results.read_text())["rows"]))


if __name__ == "__main__":
    main()
