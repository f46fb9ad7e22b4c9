"""Writes models as Keras 2 and tensorflow-model-optimization did, into a folder.

Run with TF_USE_LEGACY_KERAS=1, see old_keras.py.
"""

import pathlib
import sys

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from old_keras import CLASSES, SHAPE, images
from tf_keras import layers


class Doubled(layers.Layer):
    def call(self, inputs):
        return inputs * 2


def features():
    image = keras.Input(SHAPE)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(y))
    return keras.Model(image, layers.Add()([x, y]))


def functional():
    body = features()
    x = layers.GlobalAveragePooling2D()(body.output)
    return keras.Model(body.input, layers.Dense(CLASSES, activation="softmax")(x))


def sequential():
    return keras.Sequential(
        [
            layers.Rescaling(2.0, input_shape=SHAPE),
            layers.SeparableConv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Dropout(0.1),
            layers.Flatten(),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def teachable_machine():
    """The form that teachablemachine.withgoogle.com exports."""
    model = keras.Sequential(
        [
            keras.Sequential([features(), layers.GlobalAveragePooling2D()]),
            keras.Sequential(
                [
                    layers.Dense(10, activation="relu", input_shape=(8,)),
                    layers.Dense(CLASSES, use_bias=False, activation="softmax"),
                ]
            ),
        ]
    )
    model.build((None, *SHAPE))
    return model


def preprocessed():
    """TensorFlow's tutorial on transfer learning computes in the model so."""
    image = keras.Input(SHAPE)
    x = features()(keras.applications.mobilenet_v2.preprocess_input(image))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(CLASSES)(x))


def randomize(model):
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if "variance" in weight.name:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
        elif any(part in weight.name for part in ("mean", "beta", "bias")):
            weight.assign(generator.normal(0, 0.1, weight.shape))
    return model


def write(folder, model, name):
    np.save(folder / f"{name}.npy", model.predict(images(), verbose=0))
    is_h5 = name.endswith("h5")
    model.save(folder / name, save_format="h5" if is_h5 else "tf")


def main(folder):
    keras.utils.set_random_seed(0)
    plain = randomize(functional())
    write(folder, plain, "functional.h5")
    write(folder, randomize(sequential()), "sequential.h5")
    write(folder, randomize(teachable_machine()), "teachable_machine.h5")
    write(folder, randomize(preprocessed()), "preprocessed.h5")
    custom = keras.Sequential([Doubled(input_shape=SHAPE), layers.Flatten()])
    write(folder, custom, "custom.h5")
    plain.save_weights(folder / "weights.h5")

    pruned = tfmot.sparsity.keras.prune_low_magnitude(plain)
    pruned.compile("sgd", "mse")
    write(folder, pruned, "pruned")
    write(folder, tfmot.sparsity.keras.strip_pruning(pruned), "stripped.h5")

    trained = tfmot.quantization.keras.quantize_model(plain)
    trained.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    trained.fit(np.stack([np.zeros(SHAPE), np.ones(SHAPE)]), np.zeros(2), verbose=0)
    labels = np.arange(6) % CLASSES
    trained.fit(images(), labels, epochs=60, verbose=0)
    write(folder, trained, "quantized.h5")

    module = tf.Module()
    signature = [tf.TensorSpec((1, *SHAPE))]
    module.run = tf.function(lambda x: x * 2, input_signature=signature)
    tf.saved_model.save(module, str(folder / "functions"), signatures=module.run)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
