"""A stand-in for the tf module, src/omv/modules/py_tf.c, 4.0.0 to 4.5.5.

4.5.6 and later have another module by this name, without `load` (py_ml.c:383).
"""

import stub


def _load(path, *, load_to_fb=False):
    with open(path, "rb") as file:
        file.read(1)
    stub.raise_from("load_error")
    if not load_to_fb:
        stub.raise_from("heap_error")
    stub.EVENTS.append(["Model", path, {"load_to_fb": True} if load_to_fb else {}])
    return _Model41() if stub.firmware() < (4, 2) else _Model42()


class _Classification:
    def __init__(self, output):
        self._output = output

    def output(self):
        return self._output


def _scores():
    """Return the outputs as the release computes them, bugs included."""
    release = stub.firmware()
    if release < (4, 2):  # py_tf.c:380 at 4.0.0
        return [((step & 255) ^ 128) / 255 for step in stub.steps()]
    if release < (4, 2, 3):  # py_tf.c:371 at 4.2.0
        return [((step & 255) + 128) / 256 for step in stub.steps()]
    return [(step + 128) / 256 for step in stub.steps()]  # py_tf.c:396 at 4.2.3


class _Model41:
    """What a model was up to 4.1.4 (py_tf.c:557-565 at 4.0.0)."""

    def height(self):
        return stub.SETTINGS["input_shape"][1]

    def width(self):
        return stub.SETTINGS["input_shape"][2]

    def channels(self):
        return stub.SETTINGS["input_shape"][3]

    def classify(self, image):
        stub.check_picture(image, stub.SETTINGS["input_shape"][3])
        return [_Classification(_scores())]


class _Model42:
    """What a model is from 4.2.0 on (py_tf.c:744-761 at 4.2.0)."""

    classify = _Model41.classify
    input_height = _Model41.height
    input_width = _Model41.width
    input_channels = _Model41.channels

    def ram(self):
        return 106608

    def output_scale(self):
        return 1 / 256

    def output_zero_point(self):
        return -128


if stub.firmware() < (4, 5, 6):
    load = _load
