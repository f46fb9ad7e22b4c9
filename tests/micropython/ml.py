"""A stand-in for the ml module: py_ml.c and ml/model.py, 4.5.6 and later."""

import stub

if stub.firmware() < (4, 5, 6):
    raise ImportError("no module named 'ml'")


class _Array:
    """As much of ulab's ndarray as a script meets."""

    def __init__(self, values, shape):
        self._values = values
        self.shape = shape

    def flatten(self):
        return _Array(self._values, (len(self._values),))

    def tolist(self):
        if len(self.shape) > 1:
            return [self._values]
        return list(self._values)


class Model:
    """`len`, `output_scale` and the like are there too, for a script to leave alone."""

    def __init__(self, path, **keywords):
        if stub.firmware() >= (5,) and "load_to_fb" in keywords:
            raise TypeError("5.0.0 ignores load_to_fb: a script that has it is wrong")
        with open(path, "rb") as file:
            file.read(1)
        stub.raise_from("load_error")
        if not keywords.get("load_to_fb"):
            stub.raise_from("heap_error")
        stub.EVENTS.append(["Model", path, keywords])
        if stub.firmware() >= (4, 7):
            self.labels = None  # there is no model.txt
        self.ram = 106608
        self.input_shape = (tuple(stub.SETTINGS["input_shape"]),)
        self.output_shape = ((1, len(stub.SETTINGS["frames"][0])),)

    def predict(self, inputs):
        if not isinstance(inputs, list):
            raise ValueError("Unsupported input type. Expected a list")
        stub.check_picture(inputs[0], self.input_shape[0][3])
        scores = [(step + 128) / 256 for step in stub.steps()]
        return [_Array(scores, self.output_shape[0])]
