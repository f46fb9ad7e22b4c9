"""As much of the tf module as a selftest meets (py_tf.c, 4.0.0 to 4.5.5)."""

import selftest_answers

RELEASE = tuple(map(int, selftest_answers.SETTINGS["firmware"].split(".")))


class _Classification:
    def __init__(self, output):
        self._output = output

    def output(self):
        return self._output


class _Model:
    def height(self):
        return selftest_answers.SETTINGS["input_shape"][1]

    def width(self):
        return selftest_answers.SETTINGS["input_shape"][2]

    def channels(self):
        return selftest_answers.SETTINGS["input_shape"][3]

    input_height, input_width, input_channels = height, width, channels

    def output_scale(self):
        return selftest_answers.SETTINGS["scale"]

    def output_zero_point(self):
        return selftest_answers.SETTINGS["zero_point"]

    def classify(self, picture):
        steps = selftest_answers.steps(picture.tensor())
        return [_Classification([self._score(step) for step in steps])]

    def _score(self, step):
        if RELEASE < (4, 2):  # py_tf.c:380 at 4.0.0
            return ((step & 255) ^ 128) / 255
        if RELEASE < (4, 2, 3):  # py_tf.c:371 at 4.2.0: negative outputs are misread
            return ((step & 255) - self.output_zero_point()) * self.output_scale()
        return (step - self.output_zero_point()) * self.output_scale()


def load(path, load_to_fb=False):
    with open(path, "rb") as file:
        file.read(1)
    return _Model()
