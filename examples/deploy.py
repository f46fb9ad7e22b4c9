"""
Title: From a trained model to the camera
Description: Export a Keras model, let `keras-omv verify` prove the folder, and copy it:
    to the camera's drive, and where there is one into its ROMFS.

Run it with `python examples/deploy.py`; it takes about a minute and needs no camera. A
folder stands in for the camera's USB drive; name yours with `DRIVE=/media/me/OPENMV`.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import keras

import keras_omv as omv
from keras_omv.images import load_digits

keras.utils.set_random_seed(0)
EPOCHS = int(os.environ.get("EPOCHS", "8"))


def keras_omv(*words):
    """Runs a `keras-omv` command and shows what it prints."""
    print("\n$ keras-omv", *words)
    command = [sys.executable, "-m", "keras_omv", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="")
    return done


"""
## A trained model

Any Keras model. This one has 10 classes and takes grey images of 24 x 24 pixels.
"""

data = load_digits(resolution=24)
model = keras.Sequential(
    [
        keras.Input((24, 24, 1)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.Conv2D(32, 3, strides=2, activation="relu"),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
model.compile(
    keras.optimizers.Adam(0.01),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
    jit_compile=False,
)
model.fit(data.train_images, data.train_labels, epochs=EPOCHS, verbose=2)

with tempfile.TemporaryDirectory() as root:
    """
    ## The folder

    The model was trained without rounding, so some training images give the ranges of
    its activations.
    """

    folder = pathlib.Path(root, "digits-camera")
    report = omv.export(
        model,
        folder,
        board="openmv-rt1062",
        class_names=data.class_names,
        representative_data=data.train_images,
        evaluation_data=(data.test_images, data.test_labels),
    )
    print(f"float {report.accuracy.float32:.1%}, int8 {report.accuracy.int8:.1%}")
    print(*sorted(path.name for path in folder.iterdir()))

    """
    ## Is it what it says?

    `verify` computes the folder's report again, runs the model and names every
    difference. It exits with 0 where there is none.
    """

    verified = keras_omv("verify", folder)
    assert verified.returncode == 0

    """
    ## To the camera's drive

    `keras-omv deploy FOLDER` finds a connected camera by itself, copies what differs,
    reads it back and starts main.py. With `--drive` it takes the USB drive that the
    camera shows.
    """

    drive = pathlib.Path(os.environ.get("DRIVE") or tempfile.mkdtemp(dir=root))
    copied = keras_omv("deploy", folder, "--drive", drive)
    assert copied.returncode == 0
    for name in ("model.tflite", "labels.txt", "main.py"):
        assert (drive / name).read_bytes() == (folder / name).read_bytes()

    """
    ## Into ROMFS

    There the weights take no RAM. romfs.img is written over the camera's serial port,
    `keras-omv deploy FOLDER --romfs`; where there is none the command says how to do
    it by hand.
    """

    refused = keras_omv("deploy", folder, "--romfs", "--drive", drive)
    assert refused.returncode != 0
    assert "romfs.img" in refused.stdout + refused.stderr

    """
    ## A changed folder is not copied
    """

    labels = folder / "labels.txt"
    labels.write_text(labels.read_text().replace("7", "seven"))
    assert keras_omv("verify", folder).returncode == 1
    assert keras_omv("deploy", folder, "--drive", drive).returncode != 0

figures = json.loads(report.to_json())
assert report.fits
assert figures["storage"] == "romfs"
assert report.accuracy.int8 > 0.6
