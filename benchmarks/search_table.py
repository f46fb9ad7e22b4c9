"""Trains every feasible point of a small space once, for searches to be replayed on.

    python benchmarks/search_table.py DATA_DIR [--worker 0 --workers 2]

The space is `SPACE` under `BUDGET`. Each point is trained for `EPOCHS` epochs on half
of the images and measured on the other half after every epoch; after the last one its
int8 network is measured too. A row is added to benchmarks/data/search_table.jsonl when
its point is done, and a point that has a row is not trained again. 3,000 images of
32x32 take two workers on two cores about an hour.
"""

import argparse
import dataclasses
import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf

import keras_omv as omv
from keras_omv.accuracy import int8_accuracy
from keras_omv.images import ImageData, load_image_folder
from keras_omv.mobilenet import model_of_levers
from keras_omv.recipe import Recipe, training_batches

TABLE = pathlib.Path(__file__).parent / "data" / "search_table.jsonl"
BUDGET = omv.Budget(flash_bytes=192 * 1024, ram_bytes=80 * 1024)
SPACE = {
    "alphas": (0.1, 0.2, 0.35, 0.5),
    "resolutions": (32, 48, 56, 64),
    "head_channels": (None, 160),
    "depths": (17, 13, 10),
}
CLASSES, CHANNELS = 10, 3
EPOCHS, BATCH_SIZE, SEED = 12, 32, 0


def halves(data: ImageData) -> ImageData:
    """The same images, every class one half for training and one for measuring."""
    images = np.concatenate([data.train_images, data.test_images])
    labels = np.concatenate([data.train_labels, data.test_labels])
    order = np.random.default_rng(SEED).permutation(len(labels))
    grouped = order[np.argsort(labels[order], kind="stable")]
    train, test = grouped[0::2], grouped[1::2]
    return ImageData(
        class_names=data.class_names,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
    )


def train_point(data: ImageData, point: omv.Point) -> dict[str, object]:
    """Trains one point; returns its row."""
    levers = point.levers
    keras.utils.set_random_seed(SEED)
    model = model_of_levers(levers)
    recipe = Recipe(epochs=EPOCHS, batch_size=BATCH_SIZE, seed=SEED)
    images = data.train_images, data.train_labels
    dataset = training_batches(tf.data.Dataset.from_tensor_slices(images), recipe)
    steps = EPOCHS * int(dataset.cardinality())
    rate = keras.optimizers.schedules.CosineDecay(
        3e-4, steps * 7 // 8, alpha=0.01, warmup_target=3e-3, warmup_steps=steps // 8
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=4e-3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    held_out = data.test_images, data.test_labels
    begin = time.perf_counter()
    history = model.fit(
        dataset, validation_data=held_out, epochs=EPOCHS, shuffle=False, verbose=0
    )
    fitted = time.perf_counter()
    int8 = int8_accuracy(model, held_out, limit=len(data.test_labels))
    return {
        **dataclasses.asdict(levers),
        "flash_bytes": point.cost.flash_bytes,
        "ram_bytes": point.cost.ram_bytes,
        "macs": point.cost.macs,
        "latency_ms": point.cost.latency_ms,
        "val_accuracy": [round(v, 4) for v in history.history["val_accuracy"]],
        "int8_accuracy": round(int8, 4),
        "fit_s": round(fitted - begin, 1),
        "int8_s": round(time.perf_counter() - fitted, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    if options.workers > 1:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    points = omv.feasible_points(BUDGET, classes=CLASSES, channels=CHANNELS, **SPACE)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.touch()
    for index, point in enumerate(points):
        done = [json.loads(line) for line in TABLE.read_text().splitlines()]
        levers = dataclasses.asdict(point.levers)
        known = any(levers.items() <= row.items() for row in done)
        if known or index % options.workers != options.worker:
            continue
        data = halves(
            load_image_folder(options.folder, resolution=levers["resolution"])
        )
        row = train_point(data, point)
        with TABLE.open("a") as table:
            table.write(json.dumps(row) + "\n")
        print(f"{index + 1} of {len(points)}: {row}", flush=True)
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
