"""Accuracy of a model, of its quantized view and of the network made from both."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from keras_omv import trained
from keras_omv.batches import CALIBRATION_IMAGES, batches_of
from keras_omv.evaluation import Accuracy, DeviceRun, measure_device
from keras_omv.evaluation_data import gather
from keras_omv.graph import Graph
from keras_omv.view import QuantizedView

WHOLE_RANGE = (0.0, 255.0)


def int8_accuracy(
    model: Any,
    data: Any,
    *,
    view: QuantizedView | None = None,
    limit: int = 500,
    calibration_images: int = CALIBRATION_IMAGES,
) -> float:
    """Accuracy of the int8 network that a model would be exported as now.

    Args:
        model: A model, in training or not; without trained ranges they are taken
            from the images.
        data: Images and labels: a pair of arrays or a dataset of batches.
        view: Of the model, to use where it has no trained ranges; a second
            measurement with it is quicker. Defaults to `None`, a new one.
        limit: How many images are taken at most, as by `gather`.
        calibration_images: How many of these to take ranges from, at most; from all
            over them.
    """
    images, labels = gather(data, limit=limit)
    trained_view = trained.in_training(model)
    if trained_view is not None and trained_view.has_ranges:
        view = trained_view
    else:
        view = view or QuantizedView(model)
        view.calibrate(batches_of(images, limit=calibration_images))
    return float(np.mean(device_classes(view, images) == labels))


def device_classes(view: QuantizedView, images: np.ndarray) -> np.ndarray:
    """The class that the camera gives each image, computed through the view.

    Args:
        view: With trained or calibrated ranges.
        images: As they enter the model, `(n, height, width, channels)`.
    """
    return classes_of(view.predict(images), view.graph)


def range_of(view: QuantizedView) -> tuple[float, float]:
    """The values that pixels 0 and 255 have where they enter a view's model."""
    return view.pixels.range or WHOLE_RANGE


def measure(
    model: Any, view: QuantizedView, images: np.ndarray, run: DeviceRun
) -> Accuracy:
    """Accuracy of a model, its view and its network, on the same images.

    Args:
        model: The model of the view.
        view: With trained or calibrated ranges.
        images: As they enter the model, `(n, height, width, channels)`.
        run: The network's answers to these images.
    """
    # The class's own `call`: the model may still compute through its view.
    scores = _predict(lambda x: type(model).call(model, x, training=False), images)
    float32 = classes_of(scores, view.graph)
    fake = device_classes(view, images)
    device = measure_device(run)
    fields = dataclasses.fields(device)
    return Accuracy(
        **{field.name: getattr(device, field.name) for field in fields},
        float32=float(np.mean(float32 == run.labels)),
        fake_quantized=float(np.mean(fake == run.labels)),
        agreement=float(np.mean(fake == run.scores.classes)),
    )


def _predict(function: Any, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Scores of all images, traced once: the last batch may be smaller."""
    signature = [tf.TensorSpec((None, *images.shape[1:]), tf.float32)]
    compiled = tf.function(function, autograph=False, input_signature=signature)
    starts = range(0, len(images), batch_size)
    batches = (images[start : start + batch_size] for start in starts)
    return np.concatenate([compiled(b.astype("float32")).numpy() for b in batches])


def classes_of(scores: np.ndarray, graph: Graph) -> np.ndarray:
    """The class that scores `(n, classes)`, or `(n, 1)`, stand for."""
    if scores.shape[1] > 1:
        return np.asarray(np.argmax(scores, axis=1))
    threshold = 0.5 if graph.output_kind == "sigmoid" else 0.0
    return (scores[:, 0] >= threshold).astype("int64")
