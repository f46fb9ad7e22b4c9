"""The quantized view: a model's steps computed with int8 rounding.

A view shares every variable with the user's model and adds only activation
ranges. Training with fake quantization, calibration, evaluation and export all
go through it, so what is trained is what is shipped. Training rounds in float32,
which has gradients; inference computes what the camera computes (inference.py).
"""

import dataclasses
import functools
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_omv.averaging import MovingAverage, ViewRange
from keras_omv.errors import DatasetError
from keras_omv.fusion import build_graph
from keras_omv.graph import FIXED, PASSING, WEIGHTED, Graph, Step
from keras_omv.inference import FIXED_QUANTIZATIONS, IntegerInference, apply_kernel
from keras_omv.normalization import (
    BatchStatistics,
    StatisticsStep,
    can_normalize,
)
from keras_omv.quantization import PixelQuantize
from keras_omv.scales import Quantization, fake_quantize_kernel, kernel_axes

_FINAL = {
    "softmax": keras.ops.softmax,
    "sigmoid": keras.ops.sigmoid,
    "tanh": keras.ops.tanh,
}
_ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
}
_LIMITS = {"relu": float("inf"), "relu6": 6.0}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Training:
    """What a training step moves; a calibrating one has none.

    Attributes:
        keep: The share of the old ranges that stays.
        statistics: Of batch normalizations.
    """

    keep: Any
    statistics: StatisticsStep


class QuantizedView:
    """Computes what a model computes, with weights and activations rounded.

    Args:
        model: A built Functional or Sequential Keras 3 model.
        input_range: The values `(low, high)` that pixels 0 and 255 have where
            they enter the model. Defaults to `None`: (0, 255) where the model
            rescales its input itself, else taken from the first batch.
        momentum: Of the activation ranges, see `FakeQuantize`, and of batch
            statistics while they are estimated.

    Raises:
        UnsupportedModelError: If the model cannot run on the camera.

    Example:

    ```python
    view = QuantizedView(model, input_range=(0, 255))
    view.calibrate([images])
    scores = view(images)
    ```
    """

    def __init__(
        self,
        model: Any,
        *,
        input_range: tuple[float, float] | None = None,
        momentum: float = 0.99,
    ) -> None:
        self.graph: Graph = build_graph(model)
        self.owners = self.graph.range_owners()
        self.quantizers = self._make_quantizers()
        self.averaging = MovingAverage(momentum)
        self.statistics = BatchStatistics(momentum)
        rescales = (self.graph.input_scale, self.graph.input_offset) != (1.0, 0.0)
        if input_range is None and rescales:
            input_range = (0, 255)
        self.pixels = PixelQuantize(
            input_range=input_range,
            scale=self.graph.input_scale,
            offset=self.graph.input_offset,
        )
        self.pixels.build(None)
        _ = self.pixels.quantization  # Raises where int8 cannot hold it.

    def __call__(self, inputs: Any, training: bool | None = None) -> Any:
        """The model's output for a batch.

        Args:
            inputs: Shape `(batch, height, width, channels)`, as for the model.
            training: Whether ranges and batch statistics follow the batch. Without,
                the result is the camera's, and has no gradient.

        Returns:
            Shape `(batch, classes)`.
        """
        return self.train(self.preprocess(inputs)) if training else self._infer(inputs)

    def predict(self, images: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
        """The camera's output for many images, quicker from the second time on.

        Args:
            images: Shape `(n, height, width, channels)`, as for the model.
            batch_size: How many are computed at once. Defaults to `64`.

        Returns:
            Shape `(n, classes)`.
        """
        starts = range(0, len(images), batch_size)
        batches = (images[start : start + batch_size] for start in starts)
        return np.concatenate(
            [self._inferring(tf.constant(b, tf.float32)).numpy() for b in batches]
        )

    def calibrate(self, batches: Iterable[Any]) -> int:
        """Sets the ranges to the extremes over some batches, without training.

        Args:
            batches: Batches of shape `(batch, height, width, channels)`, as for
                the model.

        Returns:
            The number of images seen.
        """
        self.reset_ranges()
        images, brightest = 0, 0.0
        for batch in batches:
            batch = tf.cast(batch, tf.float32)
            self._check_images(batch)
            self._calibrating(batch)
            images += int(batch.shape[0])
            brightest = max(brightest, float(tf.reduce_max(batch)))
        if images and self.pixels.input_range == (0, 255) and brightest <= 1:
            raise DatasetError(
                "Expected images with pixels in [0, 255]. Received: no pixel above "
                f"{brightest:g}. Pass the images as they enter the model: one that "
                "rescales takes them unscaled."
            )
        return images

    # Traced once, as weights and ranges are variables. Concrete functions: TensorFlow
    # warns of retracing where a process has one view after the other.
    @functools.cached_property
    def _inferring(self) -> Any:
        return self._traced(self._infer)

    @functools.cached_property
    def _calibrating(self) -> Any:
        return self._traced(self._calibrate)

    def _traced(self, function: Any) -> Any:
        batch = tf.TensorSpec((None, *self.graph.input_shape), tf.float32)
        return tf.function(function, autograph=False).get_concrete_function(batch)

    def _check_images(self, batch: Any) -> None:
        expected = self.graph.input_shape
        if batch.shape.rank != 4 or tuple(batch.shape[1:]) != expected:
            raise DatasetError(
                f"Expected batches of images of shape (n, *{expected}). Received: "
                f"{tuple(batch.shape)}. Resize the images to the model's input; batch "
                "a dataset with .batch(32)."
            )

    @property
    def has_ranges(self) -> bool:
        """Whether any batch was observed yet."""
        return any(
            q.maximum.numpy() > q.minimum.numpy() for q in self.quantizers.values()
        )

    def reset_ranges(self) -> None:
        """Forgets the ranges, as before the first observation."""
        self.averaging.restart()
        self.averaging.frozen.assign(False)
        self.set_ranges(dict.fromkeys(self.quantizers, (0.0, 0.0)))

    def freeze(self, frozen: bool = True) -> None:
        """Keeps ranges and batch statistics during training, or lets them move."""
        self.statistics.freeze(frozen)
        self.averaging.frozen.assign(frozen)

    def get_ranges(self) -> dict[int, tuple[float, float]]:
        """The ranges as they are used, by the number of the value."""
        return {value: q.range for value, q in self.quantizers.items()}

    def set_ranges(self, ranges: dict[int, tuple[float, float]]) -> None:
        """Puts back what `get_ranges` gave."""
        for value, (low, high) in ranges.items():
            self.quantizers[value].minimum.assign(low)
            self.quantizers[value].maximum.assign(high)

    def quantizations(self) -> dict[int, Quantization]:
        """Scale and zero point of every value by its number, for use in a graph."""
        found = {q: self.quantizers[q].quantization_tensors() for q in self.quantizers}
        found[self.graph.input_value] = self.pixels.quantization_tensors()
        for step in self.graph.steps:
            if step.kind in FIXED:
                found[step.output] = FIXED_QUANTIZATIONS[step.kind]
        return {value: found[owner] for value, owner in self.owners.items()}

    def _make_quantizers(self) -> dict[int, ViewRange]:
        fixed = {step.output for step in self.graph.steps if step.kind in FIXED}
        fixed.add(self.graph.input_value)
        values = sorted(set(self.owners.values()) - fixed)
        return {value: ViewRange() for value in values}

    def _infer(self, inputs: Any) -> Any:
        run = IntegerInference(self.graph, self.quantizations())
        return run(self.pixels.steps(self._preprocessed(inputs, training=False)))

    def preprocess(self, inputs: Any) -> Any:
        """Images as they enter the network in training: augmented and rescaled.

        Args:
            inputs: Shape `(batch, height, width, channels)`, as for the model.
        """
        return self._preprocessed(inputs, training=True)

    def images_of(self, x: Any) -> Any:
        """The images, augmented as they are, that a model rescales to `x`."""
        return (x - self.graph.input_offset) / self.graph.input_scale

    def train(self, x: Any) -> Any:
        """The model's output in a training step; ranges and statistics follow.

        Args:
            x: What `preprocess` gave.

        Returns:
            Shape `(batch, classes)`.
        """
        step = _Training(self.averaging.next_batch(), self.statistics.begin_step())
        return self._run(x, step)

    def _calibrate(self, inputs: Any) -> None:
        self._run(self._preprocessed(inputs, training=False), None)

    def _run(self, x: Any, training: _Training | None) -> Any:
        values = {self.graph.input_value: self.pixels(x, training=True)}
        for step in self.graph.steps:
            sources = [values[value] for value in step.inputs]
            result = self._compute(step, sources, training)
            values[step.output] = self._finish(step, result, training)
        return values[self.graph.output]

    def _preprocessed(self, inputs: Any, *, training: bool) -> Any:
        # Keras takes the image of a model by itself, in a list or in a dictionary.
        x = tf.cast(tf.nest.flatten(inputs)[0], tf.float32)
        for layer in self.graph.preprocessing:
            x = _call(layer, x, training=training)
        return x

    def _compute(
        self, step: Step, sources: list[Any], training: _Training | None
    ) -> Any:
        if step.kind in WEIGHTED:
            x = self._weighted(step, sources[0], training)
        elif step.kind == "add":
            x = sources[0] + sources[1]
        elif step.kind == "concat":
            x = tf.concat(sources, axis=-1)
        elif step.kind in _FINAL:
            x = _FINAL[step.kind](sources[0])
        elif step.layer is not None:
            x = self._call(step.layer, sources[0], training)
        else:
            x = sources[0]
        return x

    def _call(self, layer: Any, x: Any, training: _Training | None) -> Any:
        if training and can_normalize(layer, x):
            return training.statistics.normalize(layer, x)
        return _call(layer, x, training=training is not None)

    def _weighted(self, step: Step, x: Any, training: _Training | None) -> Any:
        kernel = tf.convert_to_tensor(step.kernel)
        if training:
            axes = kernel_axes(step.kind, per_channel=step.per_channel)
            kernel = fake_quantize_kernel(kernel, axes)
        x = apply_kernel(step, x, kernel)
        if step.bias is not None:
            x = x + step.bias
        if step.batch_norm is not None:
            x = self._call(step.batch_norm, x, training)
        return x

    def _finish(self, step: Step, x: Any, training: _Training | None) -> Any:
        """Activation and rounding of a step's output."""
        own = self.quantizers.get(step.output)
        if training and own is not None and step.activation in _LIMITS:
            return own.rectify(x, _LIMITS[step.activation], training.keep)
        return self._quantize(step, _ACTIVATIONS[step.activation](x), training)

    def _quantize(self, step: Step, x: Any, training: _Training | None) -> Any:
        owner = self.owners[step.output]
        quantizer = self.quantizers.get(owner)
        if quantizer is None:
            return x
        if step.kind in PASSING:
            # An average is rounded to the grid of its input; the others are on it.
            rounds = training and step.kind == "average_pool"
            return quantizer.round_average(x) if rounds else x
        if owner != step.output:
            return x  # A concatenation further on rounds all of its inputs.
        if training is None:
            quantizer.widen(x)
            return x
        quantizer.follow(x, training.keep)
        return quantizer.round(x)


def _call(layer: Any, x: Any, *, training: bool) -> Any:
    """Calls one of the user's layers.

    As in Keras' own `fit`, all layers train: there a `training=False` that was fixed
    in a call does not count (keras-team/keras#20285), `trainable=False` does.
    """
    return layer(x, training=training) if _takes_training(layer) else layer(x)


def _takes_training(layer: Any) -> bool:
    function = layer.call if isinstance(layer, keras.Layer) else layer
    return "training" in inspect.signature(function).parameters


def batches_of(data: Any, *, batch_size: int = 32, limit: int = 512) -> Iterator[Any]:
    """Batches of images from whatever `model.fit` takes.

    Args:
        data: Images of shape `(n, height, width, channels)`, a pair of images and
            labels, or a dataset (tf.data, PyDataset, generator) of batches of either.
        batch_size: Of arrays.
        limit: The number of images after which to stop.

    Yields:
        Arrays or tensors of shape `(batch, height, width, channels)`.
    """
    seen = 0
    for batch in _batches(data, batch_size):
        images = batch[0] if isinstance(batch, tuple | list) else batch
        yield images[: limit - seen]
        seen += int(images.shape[0])
        if seen >= limit:
            return


def _batches(data: Any, batch_size: int) -> Iterator[Any]:
    if isinstance(data, keras.utils.PyDataset):
        return (data[index] for index in range(len(data)))
    if isinstance(data, tf.data.Dataset | Iterator):
        return iter(data)
    is_pair = isinstance(data, tuple | list) and np.ndim(data[0]) != 3
    images = np.asarray(data[0] if is_pair else data)
    starts = range(0, len(images), batch_size)
    return (images[start : start + batch_size] for start in starts)
