"""Accuracy of a model in training, measured on the same images each time."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_omv.accuracy import classes_of, int8_accuracy
from keras_omv.evaluation_data import gather
from keras_omv.view import QuantizedView

_BATCH_SIZE = 64
_CALIBRATION_IMAGES = 128
"""More take as long as measuring does, and move the ranges of MobileNetV2 little."""


class EpochAccuracy:
    """Accuracy as the camera and as Keras computes it; traced once for a whole fit.

    Args:
        model: A built Keras 3 model.
        data: Images and labels: a pair of arrays or a dataset of batches.
        limit: How many images are taken at most, as by `gather`. Defaults to `500`.

    Raises:
        DatasetError: If that is not what `data` is.
        UnsupportedModelError: If the model cannot run on the camera.
    """

    def __init__(self, model: Any, data: Any, *, limit: int = 500) -> None:
        self._model = model
        self._images, self._labels = gather(data, limit=limit)
        self._view = QuantizedView(model)
        # The class's own `call`: the model may compute through a quantized view.
        self._call = tf.function(
            lambda images: type(model).call(model, images, training=False),
            autograph=False,
            input_signature=[tf.TensorSpec((None, *self._images.shape[1:]))],
        )

    def int8(self) -> float:
        """Of the int8 network that the model would be exported as now."""
        return int8_accuracy(
            self._model,
            (self._images, self._labels),
            view=self._view,
            calibration_images=_CALIBRATION_IMAGES,
        )

    def float32(self) -> float:
        """Of the model's own `call`, whether training rounds to int8 or not."""
        starts = range(0, len(self._images), _BATCH_SIZE)
        batches = (self._images[start : start + _BATCH_SIZE] for start in starts)
        scores = [self._call(tf.constant(b, tf.float32)).numpy() for b in batches]
        classes = classes_of(np.concatenate(scores), self._view.graph)
        return float(np.mean(classes == self._labels))
