"""Float against int8 accuracy of the default recipe, on the exported file.

    python benchmarks/int8_accuracy.py [DATA_DIR ...] [--seeds 3]
    python benchmarks/int8_accuracy.py --table

Trains a MobileNetV2 of alpha 0.35 at 48 px from random weights, on scikit-learn's
digits and on each folder of images given, with quantization-aware training in the last
quarter of the epochs. The accuracies are those of the exported folder's report.

Writes benchmarks/results/int8_accuracy.json after every training and goes on from
there when started again; remove it to measure anew. Rows say how long they took.
"""

import argparse
import dataclasses
import os
import pathlib
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import RESULTS, Results, markdown, run_or_show, spread

import keras_omv as omv
from keras_omv.architecture import Levers
from keras_omv.images import ImageData, load_digits, load_image_folder
from keras_omv.recipe import Recipe
from keras_omv.training import train

PATH = RESULTS / "int8_accuracy.json"
ALPHA, RESOLUTION = 0.35, 48
BOARD = "openmv-h7-plus"
DIGITS, FOLDERS = Recipe(flip=False), Recipe(epochs=40)
TITLES = {
    "digits": "scikit-learn's digits",
    "cifar10-small": "CIFAR-10, 500 images a class",
}


def measure(data: ImageData, recipe: Recipe) -> dict[str, Any]:
    """Trains once; returns the accuracies of the report."""
    levers = Levers(
        alpha=ALPHA,
        resolution=RESOLUTION,
        channels=data.train_images.shape[-1],
        classes=len(data.class_names),
    )
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        camera = pathlib.Path(folder, "camera")
        board = omv.get_board(BOARD)
        report = train(data, camera, board=board, levers=levers, recipe=recipe)
    names = ("images", "float32", "fake_quantized", "int8", "agreement", "runtime")
    return {
        "seconds": round(time.perf_counter() - begin),
        **{name: getattr(report.accuracy, name) for name in names},
    }


def run(options: argparse.Namespace) -> None:
    """Measures what is not measured yet."""
    datasets = {"digits": (load_digits(resolution=RESOLUTION), DIGITS)}
    for folder in options.folders:
        data = load_image_folder(folder, resolution=RESOLUTION)
        datasets[folder.name] = (data, FOLDERS)
    results = Results(
        options.results,
        command="python benchmarks/int8_accuracy.py DATA_DIR",
        settings={
            "alpha": ALPHA,
            "resolution": RESOLUTION,
            "board": BOARD,
            "digits": dataclasses.asdict(DIGITS),
            "folders": dataclasses.asdict(FOLDERS),
        },
    )
    for name, (data, recipe) in datasets.items():
        for seed in range(options.seeds):
            task = (data, dataclasses.replace(recipe, seed=seed))
            results.measure({"data": name, "seed": seed}, lambda t=task: measure(*t))


def table(content: dict[str, Any]) -> str:
    """One line for each set of images: means over the seeds."""
    head = ("images", "tested on", "seeds", "float, %", "int8 file, %", "gap, points")
    names = dict.fromkeys(row["data"] for row in content["rows"])
    return markdown(head, (_line(name, content["rows"]) for name in names))


def _line(name: str, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    mine = [row for row in rows if row["data"] == name]
    return (
        TITLES.get(name, name),
        f"{mine[0]['images']:,}",
        str(len(mine)),
        spread(row["float32"] for row in mine),
        spread(row["int8"] for row in mine),
        spread((row["int8"] - row["float32"] for row in mine), signed=True),
    )


def main() -> None:
    """Measures and prints, or prints the table of what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=3)
    run_or_show(parser, PATH, run, table)


if __name__ == "__main__":
    main()
