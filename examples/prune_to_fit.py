"""
Title: Prune a network until it fits the camera
Description: Train a MobileNetV2 that is too large for the smallest OpenMV camera, let
    whole channels go inside the same `fit` until it fits, and write the camera folder.

Run it with `python examples/prune_to_fit.py`; it takes about two minutes.
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

Scikit-learn's handwritten digits, enlarged to 32 x 32 grey pixels in [0, 255].
"""

data = load_digits(resolution=32)
test = (data.test_images, data.test_labels)

"""
## A model that does not fit

The OpenMV Cam M7 leaves a model 25 KB of RAM. `board.fit` says what is over.
"""

board = omv.get_board("openmv-m7")
model = omv.MobileNetV2(
    (32, 32, 1), classes=10, alpha=0.75, depth=3, head_channels=160, dropout=0.1
)
steps = EPOCHS * -(-len(data.train_labels) // BATCH_SIZE)
model.compile(
    keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, steps)),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
    jit_compile=False,
)
before = omv.estimate(model, board=board)
print(*board.fit(before).over)
assert not board.fit(before).fits

"""
## One fit

From a tenth to half of the steps the least important channels become zero, those first
that free most of what is short, until what is left fits. The rest of the epochs repairs
the accuracy, the last quarter of them with int8 rounding. The target may be a
`omv.Budget(flash_bytes=..., ram_bytes=...)` too, or a share of the channels.
"""

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
            omv.ChannelPruning(board),
            omv.QuantizationAwareTraining(start_epoch=EPOCHS - max(1, EPOCHS // 4)),
            omv.BudgetMonitor(board),
            export,
        ],
    )

"""
## What came out

The exported network has lost those channels: less flash, less RAM, less to multiply.
"""

report, after = export.report, export.report.cost
print(f"flash {before.flash_bytes:,} -> {after.flash_bytes:,} bytes")
print(f"RAM {before.ram_bytes:,} -> {after.ram_bytes:,} bytes")
print(f"MACs {before.macs:,} -> {after.macs:,}")
print(f"float {report.accuracy.float32:.1%}, int8 {report.accuracy.int8:.1%}")
assert report.fits
assert after.ram_bytes <= board.fit(after).ram_limit_bytes < before.ram_bytes
assert after.flash_bytes < before.flash_bytes
assert after.macs < before.macs
assert report.accuracy.int8 > 0.8
