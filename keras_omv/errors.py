"""The package's own exceptions.

Each message says what was expected, what came and what to do next. All of them
are `ValueError`s, so code that catches `ValueError` keeps working.
"""


class BudgetError(ValueError):
    """A model needs more flash or RAM than the camera (or the budget) has."""


class UnsupportedModelError(ValueError):
    """A model holds something that cannot run on the camera as int8."""


class ModelFileError(ValueError):
    """A .tflite file cannot be read, or holds what this package does not model."""


class DatasetError(ValueError):
    """An image folder, a label list or a dataset cannot be used as it is."""


class ExportError(ValueError):
    """A camera folder cannot be written, or would not work on the camera."""


class CameraError(ValueError):
    """A camera cannot be reached, or does not take what is copied to it."""


class TrainingDivergedError(ValueError):
    """The loss or the weights are no longer finite numbers."""


class SearchError(ValueError):
    """A search cannot go on, or its folder cannot be used as it is."""
