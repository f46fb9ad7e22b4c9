"""The steps of a graph with int8 rounding in float32, which has gradients.

What a training step computes, and what calibration looks at. What the camera
computes, to the bit, is in inference.py.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_omv.averaging import ViewRange
from keras_omv.graph import PASSING, WEIGHTED, Graph, Step
from keras_omv.inference import apply_kernel
from keras_omv.normalization import StatisticsStep, can_normalize
from keras_omv.scales import fake_quantize_kernel, kernel_axes

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
class TrainingStep:
    """What a training step moves; a calibrating one has none.

    Attributes:
        keep: The share of the old ranges that stays.
        statistics: Of batch normalizations.
    """

    keep: Any
    statistics: StatisticsStep


class RoundedSteps:
    """Runs a graph's steps, with weights and activations rounded.

    Args:
        graph: The steps.
        owners: Of each value, the value whose range it shares.
        ranges: The range of each owner that has one.
    """

    def __init__(
        self, graph: Graph, owners: Mapping[int, int], ranges: Mapping[int, ViewRange]
    ) -> None:
        self._graph = graph
        self._owners = owners
        self._ranges = ranges

    def __call__(self, image: Any, training: TrainingStep | None) -> Any:
        """The model's output.

        Args:
            image: Pixels, rounded, of shape `(batch, height, width, channels)`.
            training: What the step moves; `None` calibrates: ranges take in what they
                see, and nothing is rounded.

        Returns:
            Shape `(batch, classes)`.
        """
        values = {self._graph.input_value: image}
        for step in self._graph.steps:
            sources = [values[value] for value in step.inputs]
            result = self._compute(step, sources, training)
            values[step.output] = self._finish(step, result, training)
        return values[self._graph.output]

    def _compute(
        self, step: Step, sources: list[Any], training: TrainingStep | None
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

    def _call(self, layer: Any, x: Any, training: TrainingStep | None) -> Any:
        if training and can_normalize(layer, x):
            return training.statistics.normalize(layer, x)
        return call_layer(layer, x, training=training is not None)

    def _weighted(self, step: Step, x: Any, training: TrainingStep | None) -> Any:
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

    def _finish(self, step: Step, x: Any, training: TrainingStep | None) -> Any:
        """Activation and rounding of a step's output."""
        own = self._ranges.get(step.output)
        if training and own is not None and step.activation in _LIMITS:
            return own.rectify(x, _LIMITS[step.activation], training.keep)
        return self._quantize(step, _ACTIVATIONS[step.activation](x), training)

    def _quantize(self, step: Step, x: Any, training: TrainingStep | None) -> Any:
        owner = self._owners[step.output]
        quantizer = self._ranges.get(owner)
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


def call_layer(layer: Any, x: Any, *, training: bool) -> Any:
    """Calls one of the user's layers.

    As in Keras' own `fit`, all layers train: there a `training=False` that was fixed
    in a call does not count (keras-team/keras#20285), `trainable=False` does.
    """
    return layer(x, training=training) if _takes_training(layer) else layer(x)


def _takes_training(layer: Any) -> bool:
    function = layer.call if isinstance(layer, keras.Layer) else layer
    return "training" in inspect.signature(function).parameters
