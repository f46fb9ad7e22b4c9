"""What pruning saves on a camera and what it costs in accuracy, against a smaller net.

    python benchmarks/pruning.py DATA_DIR [--seeds 3]
    python benchmarks/pruning.py --quick
    python benchmarks/pruning.py --table

MobileNetV2 alpha 0.35 at 64 px, trained in one fit from scratch, all for the same
epochs with the default recipe: dense; with channels removed until flash and RAM are
60 % and 75 % of the dense network's, and 40 % and 60 %; with the smallest 80 % of the
weights zero. The honest rival of removing channels is a smaller MobileNetV2 of all 17
blocks: of those with a like share of the flash, whatever their RAM, the one with the
most MACs.

Flash, RAM, time and accuracy (TFLM's, quantized after training) are those of the
exported folder's report; the time is an estimate.

Writes benchmarks/results/pruning.json after every training and goes on from there when
started again; remove it to measure anew. On two quiet cores a seed takes about 20
minutes. `--quick` is scikit-learn's digits at 32 px, one seed: a few minutes, and
results of its own.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from common import RESULTS, Results, markdown, spread

import keras_omv as omv
from keras_omv.architecture import Levers
from keras_omv.images import ImageData, load_digits, load_image_folder
from keras_omv.mobilenet import model_of_levers
from keras_omv.recipe import LearningRate, Recipe, compile_model, training_batches

PATH = RESULTS / "pruning.json"
CALIBRATION_IMAGES = 512
ALPHAS = tuple(percent / 100 for percent in range(5, 36))
HEADS = (160, 320, 480, 640, 800, 960, 1120, 1280)
TITLES = {
    "dense": "dense",
    "channels_60": "`omv.ChannelPruning`, 60 % flash, 75 % RAM",
    "alpha_60": "smaller alpha, 60 % flash, any RAM",
    "channels_40": "`omv.ChannelPruning`, 40 % flash, 60 % RAM",
    "alpha_40": "smaller alpha, 40 % flash, any RAM",
    "magnitude": "80 % of the weights zero, `omv.Pruning`",
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
        epochs: Of every training.
        sparsity: Of magnitude pruning.
        flip: Whether images are mirrored at random.
    """

    alpha: float = 0.35
    resolution: int = 64
    epochs: int = 16
    sparsity: float = 0.8
    flip: bool = True


FULL = Setting()
QUICK = Setting(resolution=32, epochs=6, flip=False)


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

    def trained(self, levers: Levers, *callbacks: Any) -> Any:
        """A network trained from scratch with the default recipe."""
        keras.utils.set_random_seed(self.seed)
        model = model_of_levers(levers)
        recipe = Recipe(
            epochs=self.setting.epochs, flip=self.setting.flip, seed=self.seed
        )
        images = self.data.train_images, self.data.train_labels
        dataset = training_batches(tf.data.Dataset.from_tensor_slices(images), recipe)
        compile_model(model, recipe)
        model.fit(
            dataset,
            epochs=recipe.epochs,
            shuffle=False,
            callbacks=[LearningRate(recipe, int(dataset.cardinality())), *callbacks],
            verbose=0,
        )
        return model


def magnitude(task: Task) -> omv.Pruning:
    """Zeros from a tenth to half of the training, as channel pruning has it."""
    batch_size = Recipe().batch_size
    steps = task.setting.epochs * -(-len(task.data.train_labels) // batch_size)
    return omv.Pruning(
        omv.PolynomialDecay(
            initial_sparsity=0.0,
            final_sparsity=task.setting.sparsity,
            begin_step=steps // 10,
            end_step=steps // 2,
            frequency=max(1, steps // 25),
        )
    )


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


def trained(task: Task, variant: str) -> Any:
    """The model of a variant."""
    if variant == "dense":
        return task.trained(task.levers)
    if variant == "magnitude":
        return task.trained(task.levers, magnitude(task))
    if variant.startswith("channels"):
        return task.trained(task.levers, omv.ChannelPruning(task.budget(variant)))
    return task.trained(rival_levers(task, variant))


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


def table(content: dict[str, Any]) -> str:
    """One line for each variant: means over the seeds, and shares of the dense."""
    by_variant = {
        variant: [row for row in content["rows"] if row["variant"] == variant]
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
        options.results = PATH.with_stem("pruning_quick") if options.quick else PATH
    if not options.table:
        run(options)
    print(table(json.loads(options.results.read_text())))


if __name__ == "__main__":
    main()
