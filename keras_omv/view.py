"""The quantized view: a model's steps computed with int8 rounding.

A view shares every variable with the user's model and adds only activation
ranges. Training with fake quantization, calibration, evaluation and export all
go through it, so what is trained is what is shipped. Training rounds in float32,
which has gradients; inference computes what the camera computes (inference.py).
"""

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_omv.averaging import MovingAverage, ViewRange
from keras_omv.errors import DatasetError
from keras_omv.fusion import build_graph
from keras_omv.graph import FIXED, Graph
from keras_omv.inference import FIXED_QUANTIZATIONS, IntegerInference
from keras_omv.normalization import BatchStatistics
from keras_omv.quantization import PixelQuantize
from keras_omv.rounding import RoundedSteps, TrainingStep, call_layer
from keras_omv.scales import Quantization


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
    from keras_omv.view import QuantizedView

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
        """Keeps the ranges as they are during training, or lets them move."""
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
        step = TrainingStep(self.averaging.next_batch(), self.statistics.begin_step())
        return self._run(x, step)

    def _calibrate(self, inputs: Any) -> None:
        self._run(self._preprocessed(inputs, training=False), None)

    def _run(self, x: Any, training: TrainingStep | None) -> Any:
        run = RoundedSteps(self.graph, self.owners, self.quantizers)
        return run(self.pixels(x, training=True), training)

    def _preprocessed(self, inputs: Any, *, training: bool) -> Any:
        # Keras takes the image of a model by itself, in a list or in a dictionary.
        x = tf.cast(tf.nest.flatten(inputs)[0], tf.float32)
        for layer in self.graph.preprocessing:
            x = call_layer(layer, x, training=training)
        return x
