"""A stand-in for firmware 5.0's ml module (modules/py_ml.c, ml/model.py)."""

import csi
import stub


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
    def __init__(self, path):
        with open(path, "rb") as file:
            file.read(1)
        stub.raise_from("load_error")
        stub.EVENTS.append(["Model", path])
        self.labels = None  # there is no model.txt
        self.ram = 106608
        self.input_shape = (tuple(stub.SETTINGS["input_shape"]),)
        self.output_shape = ((1, len(stub.SETTINGS["outputs"])),)

    def predict(self, inputs):
        if not isinstance(inputs, list):
            raise ValueError("Unsupported input type. Expected a list")
        image = inputs[0]
        colour = self.input_shape[0][3] == 3
        if image.pixformat != (csi.RGB565 if colour else csi.GRAYSCALE):
            raise ValueError("the picture's format is not the model's")
        stub.EVENTS.append(["predict", list(image.size)])
        return [_Array(stub.SETTINGS["outputs"], self.output_shape[0])]
