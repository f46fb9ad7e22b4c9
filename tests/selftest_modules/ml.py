"""As much of the ml module as a selftest meets (py_ml.c:55-170 at 4.5.6)."""

import selftest_answers


class _Array:
    def __init__(self, values):
        self._values = values

    def flatten(self):
        return self

    def tolist(self):
        return self._values


class Model:
    ram = 106608

    def __init__(self, path, load_to_fb=False):
        with open(path, "rb") as file:
            file.read(1)
        error = selftest_answers.SETTINGS.get("load_error")
        if error:
            raise ValueError(error)
        self.input_shape = (tuple(selftest_answers.SETTINGS["input_shape"]),)

    def predict(self, inputs):
        (fill,) = inputs
        if not callable(fill):  # a picture, for main.py
            return [_Array([0.1] * selftest_answers.SETTINGS["outputs"])]
        _, height, width, channels = self.input_shape[0]
        tensor = bytearray(height * width * channels)
        fill(tensor, self.input_shape[0], ord("b"))
        scale = selftest_answers.SETTINGS["scale"]
        zero = selftest_answers.SETTINGS["zero_point"]
        scores = [(step - zero) * scale for step in selftest_answers.steps(tensor)]
        return [_Array(scores)]
