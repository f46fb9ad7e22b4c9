"""Candidates a second: screening in closed form against converting and measuring.

    python benchmarks/screening.py

Three ways to know what a MobileNetV2 costs, on one core in one run:

- ours: `omv.feasible_points` over the whole grid of a camera, every point exact;
- convert and measure: TensorFlow's converter with int8 calibration, then LiteRT's
  interpreter, for one Keras MobileNetV2;
- uNAS' resource model, an analytic one: 7 ms a candidate, 140 a second, measured
  elsewhere and quoted as such.

Rates are by the processor's seconds, so that other work on the machine does not
count; the wall clock's stand beside them. Writes benchmarks/results/screening.json.
Only the ratios travel between machines.
"""

import json
import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# One core for everyone.
os.environ["OMP_NUM_THREADS"] = "1"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
from common import RESULTS, stamp, write

import keras_omv as omv
from keras_omv.architecture import Levers
from keras_omv.screening import cost_of_levers

PATH = RESULTS / "screening.json"
UNAS_PER_SECOND = 140  # uNAS' resource model at 7 ms a candidate, quoted.
CLASSES = 5
REPEATS = 3


def seconds(function):
    """The shortest of some runs, by the wall clock and by the processor's."""
    runs = []
    for _ in range(REPEATS):
        wall, processor = time.perf_counter(), time.process_time()
        result = function()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        runs.append((wall, processor))
    return min(run[0] for run in runs), min(run[1] for run in runs), result


def screen(name, candidates):
    """The whole grid of one camera; equal networks count once."""
    board = omv.get_board(name)
    wall, processor, points = seconds(
        lambda: omv.feasible_points(board, classes=CLASSES)
    )
    return {
        "board": name,
        "candidates": candidates,
        "feasible_networks": len(points),
        "wall_seconds": round(wall, 3),
        "cpu_seconds": round(processor, 3),
        "candidates_per_second": round(candidates / processor),
    }


def convert_and_measure():
    """The file of one Keras MobileNetV2 by TensorFlow, and LiteRT's memory of it."""
    import keras
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    model = keras.applications.MobileNetV2(
        (96, 96, 3), alpha=0.35, weights=None, classes=CLASSES
    )

    def images():
        for _ in range(4):
            yield [np.zeros((1, 96, 96, 3), "float32")]

    def run():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = images
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        content = converter.convert()
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "model.tflite"
            path.write_bytes(content)
            interpreter = Interpreter(str(path), num_threads=1)
            interpreter.allocate_tensors()
        return len(content)

    wall, processor, size = seconds(run)
    return {
        "model": "keras.applications.MobileNetV2, alpha 0.35, 96x96x3, 5 classes",
        "wall_seconds": round(wall, 3),
        "cpu_seconds": round(processor, 3),
        "candidates_per_second": round(1 / processor, 4),
        "flash_bytes": size,
    }


def main():
    """Runs everything, prints it and writes it."""
    candidates = len(omv.feasible_points(omv.Budget(), classes=CLASSES))
    boards = [screen(name, candidates) for name in omv.board_names()]
    ours = min(board["candidates_per_second"] for board in boards)
    levers = Levers(alpha=0.35, resolution=96, classes=CLASSES)
    cost = cost_of_levers(levers)
    converted = convert_and_measure()
    content = {
        "command": "python benchmarks/screening.py",
        **stamp(),
        "cores_used": 1,
        "screening": boards,
        "slowest_board_candidates_per_second": ours,
        "convert_and_measure": converted,
        "unas_resource_model_candidates_per_second_quoted": UNAS_PER_SECOND,
        "times_convert_and_measure": round(ours / converted["candidates_per_second"]),
        "times_unas_resource_model": round(ours / UNAS_PER_SECOND, 1),
        "one_candidate": {
            "flash_bytes": cost.flash_bytes,
            "ram_bytes": cost.ram_bytes,
        },
    }
    write(PATH, content)
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
