"""Float against int8 accuracy of the default recipe, on the exported file.

    python benchmarks/int8_accuracy.py [DATA_DIR ...] [--seeds 3]

Trains a MobileNetV2 of alpha 0.35 at 48 px on scikit-learn's digits and on each
folder of images given, with quantization-aware training in the last quarter of the
epochs. Writes benchmarks/results/int8_accuracy.json. One digits run takes about two
minutes on two cores, one of 5,000 images about eight.
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import platform
import tempfile

import keras
import numpy
import tensorflow

import keras_omv as omv
from keras_omv.architecture import Levers
from keras_omv.images import ImageData, load_digits, load_image_folder
from keras_omv.training import Recipe, train

RESULTS = pathlib.Path(__file__).parent / "results" / "int8_accuracy.json"
RESOLUTION = 48


def measure(data: ImageData, recipe: Recipe) -> dict[str, object]:
    """Trains once; returns the accuracies of the report."""
    levers = Levers(
        alpha=0.35,
        resolution=RESOLUTION,
        channels=data.train_images.shape[-1],
        classes=len(data.class_names),
    )
    with tempfile.TemporaryDirectory() as folder:
        report = train(
            data,
            pathlib.Path(folder, "camera"),
            board=omv.get_board("openmv-h7-plus"),
            levers=levers,
            recipe=recipe,
        )
    return {"seed": recipe.seed, **dataclasses.asdict(report.accuracy)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=pathlib.Path)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    datasets = {"digits": (load_digits(resolution=RESOLUTION), Recipe(flip=False))}
    for folder in options.folders:
        data = load_image_folder(folder, resolution=RESOLUTION)
        datasets[folder.name] = (data, Recipe(epochs=40))
    rows = [
        {"data": name, **measure(data, dataclasses.replace(recipe, seed=seed))}
        for name, (data, recipe) in datasets.items()
        for seed in range(options.seeds)
    ]
    for row in rows:
        gap = 100 * (row["int8"] - row["float32"])
        print(
            f"{row['data']} seed {row['seed']}: float {row['float32']:.1%}, "
            f"int8 {row['int8']:.1%}, gap {gap:+.2f} points, "
            f"agreement with training {row['agreement']:.1%}"
        )
    content = {
        "command": "python benchmarks/int8_accuracy.py DATA_DIR ...",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{platform.machine()}, {platform.system()}",
        "versions": {
            "keras": keras.__version__,
            "numpy": numpy.__version__,
            "tensorflow": tensorflow.__version__,
        },
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
