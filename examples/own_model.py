"""
Title: Your own Keras model on an OpenMV camera
Description: Train a small network of stock layers on real digits, with pruning and
    int8 rounding switched on inside one `fit`, and write the camera folder.

Run it with `python examples/own_model.py`; it takes about a minute.
"""

import os
import pathlib
import tempfile

import keras

import keras_omv as omv
from keras_omv.images import load_digits

keras.utils.set_random_seed(0)
EPOCHS = int(os.environ.get("EPOCHS", "16"))

"""
## Images

Scikit-learn's 1,797 handwritten digits, enlarged to 24 x 24 grey pixels in [0, 255].
Your own folder of images: `keras_omv.images.load_image_folder`.
"""

data = load_digits(resolution=24)
test = (data.test_images, data.test_labels)

"""
## Model

Any Functional or Sequential model will do. The rescaling is part of it: the export
turns it into the quantization of the input, which costs the camera nothing.
"""

layers = keras.layers
model = keras.Sequential(
    [
        keras.Input((24, 24, 1)),
        layers.Rescaling(1 / 255),
        layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(6.0),
        layers.SeparableConv2D(32, 3, strides=2, padding="same", activation="relu"),
        layers.SeparableConv2D(64, 3, padding="same", activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.1),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile(
    keras.optimizers.Adam(0.005),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
    jit_compile=False,
)

"""
## What it will cost, before training
"""

board = omv.get_board("openmv-h7")
print(omv.estimate(model, board=board))

"""
## One fit

Half of the weights become zero by two thirds of the steps; the last quarter of the
epochs is trained with int8 rounding. Then the folder is written.
"""

steps = -(-len(data.train_labels) // 32) * EPOCHS
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
        epochs=EPOCHS,
        verbose=2,
        callbacks=[
            omv.Pruning(
                omv.PolynomialDecay(
                    initial_sparsity=0.0,
                    final_sparsity=0.5,
                    begin_step=steps // 6,
                    end_step=steps * 2 // 3,
                    frequency=20,
                )
            ),
            omv.QuantizationAwareTraining(start_epoch=EPOCHS - max(1, EPOCHS // 4)),
            omv.BudgetMonitor(board),
            export,
        ],
    )
    print(*sorted(path.name for path in pathlib.Path(folder, "camera").iterdir()))

"""
## What came out

The int8 accuracy is that of the exported file on images that were not trained on.
"""

accuracy = export.report.accuracy
print(f"float {accuracy.float32:.1%}, int8 {accuracy.int8:.1%} by {accuracy.runtime}")
assert accuracy.int8 > 0.8
assert abs(accuracy.int8 - accuracy.float32) <= 0.02
assert export.report.fits
