"""Size of the camera's file and time of the conversion, against TensorFlow's own.

    python benchmarks/file_size.py [--table]

For each width, one MobileNetV2 of 96 px with seeded random weights is converted to
int8 twice in one run, with the same calibration images: by TensorFlow's converter,
dense layers per tensor as the firmware wants them, and by keras_omv, which writes both
its files, for the camera and for the desktop. TFLM has to give the same scores for
these two, byte for byte.

The reference files of tests/data, which TensorFlow converted, are rewritten by our
writer, weights and ranges as they are; TFLM has to give the same scores before and
after.

Images are seeded random patches of colour. Writes benchmarks/results/file_size.json.
Sizes are exact. Seconds are the processor's, on all cores, so that other work on the
machine does not count; the wall clock's stand beside them. Only ratios travel.
"""

import argparse
import contextlib
import io
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from common import RESULTS, markdown, run_or_show, stamp, write

import keras_omv as omv
from keras_omv import flatbuffer
from keras_omv.batches import batches_of
from keras_omv.convert import lower
from keras_omv.view import QuantizedView

PATH = RESULTS / "file_size.json"
REFERENCES = pathlib.Path(__file__).parents[1] / "tests" / "data" / "device-ram"
ALPHAS = (0.05, 0.1, 0.2, 0.35, 0.5, 1.0)
RESOLUTION = 96
CLASSES = 5
CALIBRATION_IMAGES = 64
TEST_IMAGES = 16
WARM_UPS = 30  # Batches of all images, for statistics of momentum 0.9.
PATCHES = 4  # Of a side of an image.
SEED = 7


def make_images(count, height, width, channels):
    """Random patches of colour, of shape `(count, height, width, channels)`."""
    generator = np.random.default_rng(SEED)
    patches = generator.integers(0, 256, (count, PATCHES, PATCHES, channels), "uint8")
    rows, columns = (np.arange(size) * PATCHES // size for size in (height, width))
    return patches[:, rows][:, :, columns]


def make_model(alpha, images):
    """A MobileNetV2 whose batch statistics fit the images."""
    keras.utils.set_random_seed(SEED)
    model = omv.MobileNetV2(images.shape[1:], classes=CLASSES, alpha=alpha)
    generator = np.random.default_rng(SEED)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(generator.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(generator.normal(0, 0.5, layer.beta.shape))
    for _ in range(WARM_UPS):
        model(images, training=True)
    return model


def convert_by_tensorflow(model, images):
    """The int8 file of TensorFlow's converter, as its guide makes it."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    with contextlib.redirect_stdout(io.StringIO()):
        return converter.convert()


def convert_by_us(model, images):
    """The camera's file and its desktop twin."""
    view = QuantizedView(model)
    view.calibrate(batches_of(images))
    network = lower(view)
    return flatbuffer.write(network), flatbuffer.write(network, desktop=True)


def timed(convert, *arguments):
    """What a conversion returns, and its seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    result = convert(*arguments)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return result, {"cpu": round(processor, 2), "wall": round(wall, 2)}


def tflm_scores(file):
    """Int8 scores of TFLM, of shape `(images, classes)`."""
    # Not on every system, and not needed for the table.
    from tflite_micro import runtime

    images = make_images(TEST_IMAGES, *flatbuffer.read(file).input.shape[1:])
    interpreter = runtime.Interpreter.from_bytes(file)
    scores = []
    for image in (images.astype("int16") - 128).astype("int8"):
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        scores.append(interpreter.get_output(0)[0].copy())
    return np.stack(scores)


def saving_percent(theirs, ours):
    """How much smaller ours is."""
    return 100 * (1 - ours / theirs)


def measure_width(alpha):
    """Both conversions of one model."""
    images = make_images(CALIBRATION_IMAGES, RESOLUTION, RESOLUTION, 3)
    images = images.astype("float32")
    model = make_model(alpha, images)
    (camera, desktop), our_seconds = timed(convert_by_us, model, images)
    theirs, their_seconds = timed(convert_by_tensorflow, model, images)
    Interpreter(model_content=desktop).allocate_tensors()
    scores = tflm_scores(camera)
    return {
        "alpha": alpha,
        "tensorflow_bytes": len(theirs),
        "camera_bytes": len(camera),
        "desktop_bytes": len(desktop),
        "saving_percent": round(saving_percent(len(theirs), len(camera)), 2),
        "tensorflow_seconds": their_seconds,
        "our_seconds": our_seconds,
        "times_as_fast": round(their_seconds["cpu"] / our_seconds["cpu"], 2),
        "different_scores": len(np.unique(scores, axis=0)),
        "scores_equal": np.array_equal(scores, tflm_scores(desktop)),
    }


def measure_reference(path):
    """A file of TensorFlow's converter, rewritten."""
    theirs = path.read_bytes()
    network = flatbuffer.read(theirs)
    if not {op.kind for op in network.ops} <= flatbuffer.WRITABLE:
        return None
    ours = flatbuffer.write(network)
    scores = tflm_scores(theirs)
    return {
        "file": path.name,
        "tensorflow_bytes": len(theirs),
        "camera_bytes": len(ours),
        "saving_percent": round(saving_percent(len(theirs), len(ours)), 2),
        "different_scores": len(np.unique(scores, axis=0)),
        "scores_equal": np.array_equal(scores, tflm_scores(ours)),
    }


def run(options):
    """Measures both conversions of every width, and the reference files."""
    references = map(measure_reference, sorted(REFERENCES.glob("*.tflite")))
    content = {
        "command": "python benchmarks/file_size.py",
        **stamp(),
        "resolution": RESOLUTION,
        "classes": CLASSES,
        "calibration_images": CALIBRATION_IMAGES,
        "test_images": TEST_IMAGES,
        "seed": SEED,
        "widths": [measure_width(alpha) for alpha in ALPHAS],
        "reference_files": [row for row in references if row],
    }
    write(options.results, content)
    print(json.dumps(content, indent=1))


def table(content):
    """One line for each width, in bytes."""
    head = ("alpha", "TensorFlow's file", "ours", "smaller by")
    return markdown(head, map(_line, content["widths"]))


def _line(row):
    theirs, ours = row["tensorflow_bytes"], row["camera_bytes"]
    smaller = f"{saving_percent(theirs, ours):.1f} %"
    return f"{row['alpha']:g}", f"{theirs:,}", f"{ours:,}", smaller


def main():
    """Measures, writes and prints, or prints the table of what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    run_or_show(parser, PATH, run, table)


if __name__ == "__main__":
    main()
