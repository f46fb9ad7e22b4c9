"""
Title: Transfer learning from ImageNet
Description: Put a classifier of your own classes on a `keras.applications.MobileNetV2`,
    fine-tune it with int8 rounding, and write the camera folder.

Run it with `python examples/transfer.py`; it takes some minutes. Keras downloads the
weights of ImageNet once; `WEIGHTS=none` starts from random ones, without a download.
"""

import os
import pathlib
import tempfile

import keras

import keras_omv as omv
from keras_omv.images import load_digits

keras.utils.set_random_seed(0)
EPOCHS = int(os.environ.get("EPOCHS", "12"))
BATCH_SIZE = 32
RESOLUTION = int(os.environ.get("RESOLUTION", "96"))
WEIGHTS = os.environ.get("WEIGHTS", "imagenet")

"""
## Images

RGB pixels in [0, 255]. Keras has weights for 96, 128, 160, 192 and 224 pixels; for
other sides it takes those of 224.
"""

data = load_digits(resolution=RESOLUTION, channels=3)
test = (data.test_images, data.test_labels)

"""
## Model

The first blocks of the published network and a classifier on top of them. Digits need
no more; for photographs take all of it: `trunk = keras.applications.MobileNetV2(...,
pooling="avg")`. Its batch normalizations forget slowly, for the million images of
ImageNet: for some thousands a momentum of 0.9 is right.
"""

published = keras.applications.MobileNetV2(
    (RESOLUTION, RESOLUTION, 3),
    alpha=0.35,
    include_top=False,
    weights=None if WEIGHTS == "none" else WEIGHTS,
)
trunk = keras.Model(published.input, published.get_layer("block_3_expand_relu").output)
for layer in trunk.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = 0.9
image = keras.Input((RESOLUTION, RESOLUTION, 3))
x = trunk(keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image))
features = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
scores = keras.layers.Dense(10, activation="softmax")
model = keras.Model(image, scores(features.output))

"""
## First the classifier

The trunk stays as it is, so what it makes of the images is computed once.
"""

classifier = keras.Sequential([scores])
classifier.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
classifier.fit(
    features.predict(data.train_images, verbose=0),
    data.train_labels,
    epochs=EPOCHS,
    verbose=2,
)

"""
## Then everything, with int8 rounding

A trained network needs no epochs without rounding. The learning rate falls to nothing,
so that the last epochs settle.
"""

board = omv.get_board("openmv-h7-plus")
steps = EPOCHS * -(-len(data.train_labels) // BATCH_SIZE)
model.compile(
    keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.005, steps)),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
    jit_compile=False,
)
with tempfile.TemporaryDirectory() as folder:
    export = omv.OpenMVExport(
        pathlib.Path(folder, "camera"),
        board=board,
        class_names=data.class_names,
        evaluation_data=test,
    )
    model.fit(
        data.train_images,
        data.train_labels,
        validation_data=test,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        verbose=2,
        callbacks=[
            omv.QuantizationAwareTraining(),
            omv.BudgetMonitor(board),
            export,
        ],
    )

"""
## What came out

The zeros that `keras.applications` pads before its strided convolutions are gone: on
the camera they are those of "same" padding.
"""

report = export.report
print(f"float {report.accuracy.float32:.1%}, int8 {report.accuracy.int8:.1%}")
print(report.cost)
assert report.fits
assert report.accuracy.int8 > 0.6
assert abs(report.accuracy.int8 - report.accuracy.float32) <= 0.05
