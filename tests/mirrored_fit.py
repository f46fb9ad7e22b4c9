"""A quantized fit with a teacher, on one device and on two that share each batch.

    python tests/mirrored_fit.py

Prints the losses of both fits and their weights, as JSON. A process of its own, as
TensorFlow takes the number of devices only at its start.
"""

import contextlib
import json
import sys

import keras
import models
import numpy as np
import tensorflow as tf

import keras_omv as omv

SHAPE = (12, 12, 3)
IMAGES = models.pixels(48, SHAPE)
LABELS = np.arange(48) % 3


def make_model() -> keras.Model:
    image = models.image()
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu")(models.rescaled(image))
    return keras.Model(image, models.scores(x, classes=3))


def fit(scope: contextlib.AbstractContextManager[None]) -> dict[str, list[float]]:
    keras.utils.set_random_seed(0)
    with scope:
        model, teacher = make_model(), make_model()
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    teacher.layers[-1].bias.assign([4.0, -4.0, 0.0])
    callback = omv.QuantizationAwareTraining(teacher=teacher, distillation_weight=9.0)
    options = {"epochs": 3, "batch_size": 48, "shuffle": False, "verbose": 0}
    history = model.fit(IMAGES, LABELS, callbacks=[callback], **options).history
    bias = np.asarray(model.layers[-1].bias)
    return {"loss": history["loss"], "bias": bias.tolist()}


def main() -> None:
    devices = [tf.config.LogicalDeviceConfiguration()] * 2
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, devices)
    one = fit(contextlib.nullcontext())
    two = fit(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope())
    sys.stdout.write(json.dumps({"one": one, "two": two}) + "\n")


if __name__ == "__main__":
    main()
