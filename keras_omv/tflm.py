"""Runs a .tflite file in TFLM, in a process of its own: TFLM aborts on some models.

Command: `python -m keras_omv.tflm MODEL IMAGES.npy SCORES.npy`, with int8 images of
shape `(n, height, width, channels)`; writes int8 scores of shape `(n, classes)`.
Needs the `tflite-micro` package, which equals the camera bit for bit.
"""

import sys

import numpy as np


def main(model_path: str, images_path: str, scores_path: str) -> None:
    """Runs every image through the model and saves the scores."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(model_path)
    scores = []
    for image in np.load(images_path):
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        scores.append(interpreter.get_output(0)[0].copy())
    np.save(scores_path, np.stack(scores))


if __name__ == "__main__":
    main(*sys.argv[1:4])
