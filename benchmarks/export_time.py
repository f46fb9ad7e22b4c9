"""How long an export takes, stage by stage, and conversion against TensorFlow's.

    python benchmarks/export_time.py [--images 1000]

MobileNetV2 alpha 0.35 at 96 px with 5 classes, weights as they are initialized: what
the network answers changes no time. Wall seconds depend on what else the machine
does; processor seconds, those of TFLM's processes included, do less. Writes
benchmarks/results/export_time.json.
"""

import argparse
import contextlib
import io
import json
import pathlib
import resource
import tempfile
import time
import warnings

import keras
import numpy as np
import tensorflow as tf
from common import RESULTS, stamp, write

import keras_omv as omv
from keras_omv import flatbuffer, report_check, verify
from keras_omv.accuracy import measure
from keras_omv.candidates import candidates_of, choose, evaluate
from keras_omv.convert import lower
from keras_omv.evaluation import measure_device
from keras_omv.view import QuantizedView

PATH = RESULTS / "export_time.json"
BOARD = omv.get_board("openmv-h7-plus")
NAMES = [f"class {index}" for index in range(5)]
SIDE, ALPHA = 96, 0.35
CALIBRATION_IMAGES = 100
LIMIT_SECONDS = 60


class Stopwatch:
    """Seconds of named stages, on the wall and of the processor."""

    def __init__(self):
        self.stages = {}

    def __call__(self, name, function):
        wall, processor = time.perf_counter(), processor_seconds()
        result = function()
        self.stages[name] = {
            "wall_seconds": round(time.perf_counter() - wall, 3),
            "cpu_seconds": round(processor_seconds() - processor, 3),
        }
        print(f"{name:40} {self.stages[name]}", flush=True)
        return result


def processor_seconds():
    """Of this process and of those that it started and that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def tensorflow_converter(model, images):
    """Full-integer post-training quantization by TensorFlow's converter."""

    def samples():
        for image in images:
            yield [image[None]]

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    # Dense layers per tensor, as the firmware wants them and benchmarks/file_size.py.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it reports every step on the screen
        return converter.convert()


def our_converter(model, images):
    """The same by ours, from the Keras model to the file's bytes."""
    view = QuantizedView(model)
    view.calibrate(np.split(images, range(32, len(images), 32)))
    return flatbuffer.write(lower(view))


def time_stages(stopwatch, model, images, labels):
    """The stages of an export, one after the other."""
    batches = np.split(images[:CALIBRATION_IMAGES], range(32, CALIBRATION_IMAGES, 32))
    candidates = stopwatch(
        "calibrate, convert, write, rules, cost",
        lambda: candidates_of(
            "model",
            model,
            board=BOARD,
            batches=batches,
            input_range=None,
            compare=False,
        ),
    )
    candidates = stopwatch(
        f"TFLM, {len(images)} images", lambda: evaluate(candidates, images, labels)
    )
    (chosen, _), run = choose(candidates), candidates[0].run
    stopwatch("TFLM, the camera's eyes", lambda: measure_device(run))
    stopwatch(
        "all accuracies, the camera's eyes again",
        lambda: measure(model, chosen.view, images, run),
    )


def make(count):
    """The model, and images and labels to measure on."""
    keras.utils.set_random_seed(0)
    model = omv.MobileNetV2((SIDE, SIDE, 3), len(NAMES), alpha=ALPHA)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, SIDE, SIDE, 3)).astype("float32")
    return model, images, random.integers(0, len(NAMES), count)


def main():
    """Times everything, prints it and writes it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000)
    count = parser.parse_args().images
    model, images, labels = make(count)
    samples = images[:CALIBRATION_IMAGES]
    stopwatch = Stopwatch()
    stopwatch("our converter", lambda: our_converter(model, samples))
    stopwatch("TensorFlow's converter", lambda: tensorflow_converter(model, samples))
    with tempfile.TemporaryDirectory() as folder:
        camera = pathlib.Path(folder, "camera")
        report = stopwatch(
            "omv.export, all of it",
            lambda: omv.export(
                model,
                camera,
                board=BOARD,
                class_names=NAMES,
                representative_data=samples,
                evaluation_data=(images, labels),
            ),
        )
        found = stopwatch("check_folder", lambda: report_check.check_folder(camera))
    time_stages(stopwatch, model, images, labels)
    content = results(stopwatch.stages, count, report, found)
    write(PATH, content)
    print(json.dumps(content, indent=1))


def results(stages, count, report, found):
    """The times with what they were taken on."""
    ours, theirs = stages["our converter"], stages["TensorFlow's converter"]
    return {
        "command": f"python benchmarks/export_time.py --images {count}",
        **stamp(),
        "runtime": report.accuracy.runtime,
        "tflm_is_the_wheel": report.accuracy.runtime == verify.TFLM,
        "images": count,
        "camera_images": report.accuracy.camera.images,
        "limit_seconds": LIMIT_SECONDS,
        "stages": stages,
        "our_conversion_over_tensorflows": {
            "wall": round(ours["wall_seconds"] / theirs["wall_seconds"], 3),
            "cpu": round(ours["cpu_seconds"] / theirs["cpu_seconds"], 3),
        },
        "differences_found_by_check_folder": list(found),
    }


if __name__ == "__main__":
    main()
