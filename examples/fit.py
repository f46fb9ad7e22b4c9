"""
Title: Fit one MobileNetV2 for an OpenMV camera
Description: Say what a MobileNetV2 costs before it is trained, train it with int8
    rounding switched on inside the running `fit`, and write the camera folder.

Run it with `python examples/fit.py`; it takes about two minutes.
"""

import os
import pathlib
import tempfile

import keras

import keras_omv as omv
from keras_omv.images import load_digits

keras.utils.set_random_seed(0)
EPOCHS = int(os.environ.get("EPOCHS", "20"))
BATCH_SIZE = 32

"""
## Images

Scikit-learn's handwritten digits, enlarged to 32 x 32 grey pixels in [0, 255]. Your own
folder of images: `keras_omv.images.load_image_folder("flowers", resolution=96)`.
"""

data = load_digits(resolution=32)
test = (data.test_images, data.test_labels)

"""
## What it will cost, before there is a model

`estimate` knows it to the byte, without TensorFlow. Digits are easy, so a few blocks
will do; for photographs leave head and depth out. `feasible_points(board, classes=10)`
lists all that fit.
"""

levers = {"alpha": 0.35, "depth": 3, "head_channels": 160}
board = omv.get_board("openmv-h7")
cost = omv.estimate(resolution=32, channels=1, classes=10, **levers, board=board)
board.check(cost)
print(cost)

"""
## Model

A plain Keras model of stock layers. It rescales the pixels itself: the export turns
that into the quantization of the input, which costs the camera nothing. The learning
rate falls to nothing: the last epochs settle.
"""

model = omv.MobileNetV2((32, 32, 1), classes=10, dropout=0.1, **levers)
steps = EPOCHS * -(-len(data.train_labels) // BATCH_SIZE)
model.compile(
    keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, steps)),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
    jit_compile=False,
)

"""
## One fit

The last quarter of the epochs rounds to int8, as the camera does; weights and optimizer
carry on. `BudgetMonitor` adds flash, RAM, MACs and time to the logs: before a
`keras.callbacks.TensorBoard` they become charts. The export comes last.
"""

with tempfile.TemporaryDirectory() as folder:
    export = omv.OpenMVExport(
        pathlib.Path(folder, "camera"),
        board=board,
        class_names=data.class_names,
        evaluation_data=test,
    )
    history = model.fit(
        data.train_images,
        data.train_labels,
        validation_data=test,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        verbose=2,
        callbacks=[
            omv.QuantizationAwareTraining(start_epoch=EPOCHS - max(1, EPOCHS // 4)),
            omv.BudgetMonitor(board),
            export,
        ],
    )
    print(*sorted(path.name for path in pathlib.Path(folder, "camera").iterdir()))

"""
## What came out

The file costs what was said before a model existed, and it is as accurate on the
camera's integers as the model is in Keras.
"""

report = export.report
print(f"float {report.accuracy.float32:.1%}, int8 {report.accuracy.int8:.1%}")
assert report.fits
assert report.cost.flash_bytes == cost.flash_bytes
assert report.cost.ram_bytes == cost.ram_bytes
assert history.history["omv_ram_bytes"][-1] == report.cost.ram_bytes
assert report.accuracy.int8 > 0.8
assert abs(report.accuracy.int8 - report.accuracy.float32) <= 0.03
