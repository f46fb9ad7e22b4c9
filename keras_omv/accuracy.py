"""Accuracy of a model and of the int8 network made from it, on the same images."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from keras_omv import trained, verify
from keras_omv.convert import lower
from keras_omv.errors import DatasetError
from keras_omv.graph import Graph
from keras_omv.view import QuantizedView, batches_of


@dataclasses.dataclass(frozen=True, slots=True)
class Accuracy:
    """Top-1 accuracy of three computations on the same images, as shares.

    Attributes:
        images: How many images were measured.
        float32: Of the Keras model.
        fake_quantized: Of the quantized view, which training computes.
        int8: Of the exported file.
        agreement: Share of images to which view and file give the same class.
        runtime: What ran the file.
    """

    images: int
    float32: float
    fake_quantized: float
    int8: float
    agreement: float
    runtime: str


def int8_accuracy(model: Any, data: Any, *, limit: int = 500) -> float:
    """Accuracy of the int8 network that a model would be exported as now.

    Args:
        model: A model, in training or not; without trained ranges they are taken
            from the images.
        data: Images and labels: a pair of arrays or a dataset of batches.
        limit: The number of images after which to stop.
    """
    images, labels = _gather(data, limit)
    view = trained.in_training(model)
    if view is None or not view.has_ranges:
        view = QuantizedView(model)
        view.calibrate(batches_of(images))
    scores = verify.run_reference(lower(view), to_pixels(images, view))
    return float(np.mean(scores.classes == labels))


def to_pixels(images: np.ndarray, view: QuantizedView) -> np.ndarray:
    """Images as they enter a model, turned back into camera pixels.

    Args:
        images: Shape `(n, height, width, channels)`.
        view: Knows what pixels 0 and 255 are.

    Returns:
        Uint8 array of the same shape.
    """
    low, high = view.pixels.range or (0.0, 255.0)
    pixels = np.rint((np.asarray(images, "float32") - low) / (high - low) * 255)
    return np.clip(pixels, 0, 255).astype("uint8")


def measure(model: Any, view: QuantizedView, data: Any) -> Accuracy:
    """Accuracy of a model, its view and its network.

    Args:
        model: The model of the view.
        view: With trained or calibrated ranges.
        data: Images and labels: a pair of arrays or a dataset of batches.
    """
    images, labels = _gather(data, None)
    _check_labels(labels, view.graph)
    device = verify.run_network(lower(view), to_pixels(images, view))
    # The class's own `call`: the model may still compute through its view.
    plain = _compiled(lambda x: type(model).call(model, x, training=False))
    float32 = _classes(_predict(plain, images), view.graph)
    fake = _classes(_predict(_compiled(view), images), view.graph)
    return Accuracy(
        images=len(images),
        float32=float(np.mean(float32 == labels)),
        fake_quantized=float(np.mean(fake == labels)),
        int8=float(np.mean(device.classes == labels)),
        agreement=float(np.mean(fake == device.classes)),
        runtime=device.runtime,
    )


def _compiled(function: Any) -> Any:
    return tf.function(function, autograph=False, reduce_retracing=True)


def _predict(function: Any, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
    batches = (
        images[start : start + batch_size].astype("float32")
        for start in range(0, len(images), batch_size)
    )
    return np.concatenate([function(batch).numpy() for batch in batches])


def _classes(scores: np.ndarray, graph: Graph) -> np.ndarray:
    if scores.shape[1] > 1:
        return np.asarray(np.argmax(scores, axis=1))
    threshold = 0.5 if graph.output_kind == "sigmoid" else 0.0
    return (scores[:, 0] >= threshold).astype("int64")


def _gather(data: Any, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Images and class numbers from a pair of arrays or a dataset of batches."""
    if isinstance(data, tf.data.Dataset):
        data = _take(data, limit)
    if not isinstance(data, tuple | list) or len(data) < 2:
        raise DatasetError(
            "Expected images and labels to measure accuracy on. Received: "
            f"{type(data).__name__}. Pass (images, labels) or a dataset of batches of "
            "both."
        )
    images, labels = np.asarray(data[0])[:limit], np.asarray(data[1])[:limit]
    if len(images) != len(labels) or not len(images):
        raise DatasetError(
            "Expected as many labels as images, at least one. Received: "
            f"{len(images)} images and {len(labels)} labels. Check the data."
        )
    if labels.ndim > 1 and labels.shape[-1] > 1:
        labels = np.argmax(labels, axis=-1)
    return images, labels.reshape(-1).astype("int64")


def _take(dataset: tf.data.Dataset, limit: int | None) -> tuple[np.ndarray, ...]:
    """The parts of a dataset's batches, up to a number of images."""
    if limit is None and int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise DatasetError(
            "Expected a dataset that ends. Received: one that repeats for ever. "
            "Measure on it before .repeat(), or use .take(batches)."
        )
    batches: list[tuple[np.ndarray, ...]] = []
    for batch in dataset.as_numpy_iterator():
        batches.append(batch)
        if limit is not None and sum(len(taken[0]) for taken in batches) >= limit:
            break
    return tuple(np.concatenate(part) for part in zip(*batches, strict=True))


def _check_labels(labels: np.ndarray, graph: Graph) -> None:
    classes = max(2, graph.output_units)
    if labels.min() < 0 or labels.max() >= classes:
        raise DatasetError(
            f"Expected labels 0 to {classes - 1}. Received: {labels.min()} to "
            f"{labels.max()}. Count classes from 0, in the order of the class names."
        )
