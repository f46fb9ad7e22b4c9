"""Batch normalization in training through the view.

The same numbers as `keras.layers.BatchNormalization`, from TensorFlow's fused
kernels: Keras computes moments and result one operation after the other. What a
training step does with the statistics is kept in variables, so that it can change
during `fit` without a retrace.
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_omv.averaging import MovingAverage

_EXPECTED_AXES = {2: (-1, 1), 4: (-1, 3)}


def can_normalize(layer: Any, x: Any) -> bool:
    """Whether `BatchStatistics` computes what a layer computes.

    Args:
        layer: A built layer.
        x: Its input.

    Returns:
        `False` for other layers, subclasses, `renorm=True`, `synchronized=True`, an
        activity regularizer, mixed precision and axes other than the last.
    """
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.axis in _EXPECTED_AXES.get(x.shape.rank, ())
        # Keras had no renorm before 3.14.
        and not (getattr(layer, "renorm", False) or layer.synchronized)
        and layer.activity_regularizer is None
        and layer.compute_dtype == "float32"
    )


class BatchStatistics:
    """What training does with the statistics of a model's batch normalizations.

    At first what Keras does: training normalizes with the statistics of the batch,
    and the moving ones follow with the layer's own momentum. After `estimate` they
    are the mean over the batches since, then an exponential moving average. After
    `freeze` they stand still, and training normalizes with them, as inference does.

    Args:
        momentum: Share of the old estimate that a step keeps once
            1 / (1 - momentum) steps have been averaged.
    """

    def __init__(self, momentum: float) -> None:
        self._average = MovingAverage(momentum)
        self._estimating = tf.Variable(False, trainable=False)

    def estimate(self) -> None:
        """Starts an estimate with the next batch."""
        self._average.restart()
        self._estimating.assign(True)

    def freeze(self, frozen: bool) -> None:
        """Keeps the statistics as they are, or lets them move."""
        self._average.frozen.assign(frozen)

    def begin_step(self) -> "StatisticsStep":
        """Begins a training step, in which every layer sees one batch."""
        frozen = tf.identity(self._average.frozen)
        by_layer = tf.logical_not(tf.logical_or(frozen, self._estimating))
        return StatisticsStep(frozen, by_layer, self._average.next_batch())


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StatisticsStep:
    """What a training step does with statistics, as tensors.

    Attributes:
        frozen: Whether they stand still.
        by_layer: Whether they follow with the momentum of the layer.
        keep: Else, the share of the old statistics that stays.
    """

    frozen: Any
    by_layer: Any
    keep: Any

    def normalize(self, layer: Any, x: Any) -> Any:
        """What a layer makes of a training batch; its statistics follow.

        Args:
            layer: A layer that `can_normalize`.
            x: Shape `(batch, height, width, channels)` or `(batch, channels)`.

        Returns:
            A tensor of the shape of `x`.
        """
        images = x if x.shape.rank == 4 else x[:, tf.newaxis, tf.newaxis, :]
        frozen = self.frozen if layer.trainable else tf.constant(True)
        y, mean, variance = _fused(layer, images, frozen)
        if layer.trainable:
            self._follow(layer, mean, variance)
        return y if x.shape.rank == 4 else tf.squeeze(y, (1, 2))

    def _follow(self, layer: Any, mean: Any, variance: Any) -> None:
        keep = tf.where(self.by_layer, layer.momentum, self.keep)
        moved = 1.0 - keep
        layer.moving_mean.assign(keep * layer.moving_mean + moved * mean)
        layer.moving_variance.assign(keep * layer.moving_variance + moved * variance)


def _fused(layer: Any, x: Any, frozen: Any) -> tuple[Any, Any, Any]:
    """Result, mean and variance; with the moving statistics where `frozen`."""
    moving = tuple(map(tf.identity, (layer.moving_mean, layer.moving_variance)))
    gamma = tf.ones_like(moving[0]) if layer.gamma is None else layer.gamma
    beta = tf.zeros_like(moving[0]) if layer.beta is None else layer.beta

    def normalize(x: Any, gamma: Any, beta: Any) -> Any:
        kernel = _Kernel(x, gamma, layer.epsilon)
        y, mean, variance, *saved = tf.cond(
            frozen,
            lambda: kernel.forward_still(beta, *moving),
            lambda: kernel.forward_moving(beta),
        )

        def gradients(upstream: Any, *_: Any) -> Any:
            return tf.cond(
                frozen,
                lambda: kernel.backward(upstream, saved, is_training=False),
                lambda: kernel.backward(upstream, saved, is_training=True),
            )

        return (y, mean, variance), gradients

    outputs: tuple[Any, Any, Any] = tf.custom_gradient(normalize)(
        x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta)
    )
    return outputs


class _Kernel:
    """TensorFlow's fused batch normalization of a batch, and its gradient."""

    def __init__(self, x: Any, gamma: Any, epsilon: float) -> None:
        self._x = x
        self._gamma = gamma
        self._epsilon = epsilon

    def forward_moving(self, beta: Any) -> tuple[Any, ...]:
        """With the batch's statistics: result, mean, variance, what is saved."""
        unused = tf.zeros((0,))
        made = self._forward(beta, unused, unused, is_training=True)
        # The kernel gives the variance of the population, Keras keeps the batch's.
        count = tf.cast(tf.size(self._x) / tf.size(beta), tf.float32)
        biased = made.batch_variance * ((count - 1.0) / count)
        saved = made.reserve_space_1, made.reserve_space_2, made.reserve_space_3
        return made.y, made.batch_mean, biased, *saved

    def forward_still(self, beta: Any, mean: Any, variance: Any) -> tuple[Any, ...]:
        """The same with statistics that are known."""
        made = self._forward(beta, mean, variance, is_training=False)
        return made.y, mean, variance, mean, variance, made.reserve_space_3

    def _forward(
        self, beta: Any, mean: Any, variance: Any, *, is_training: bool
    ) -> Any:
        return tf.raw_ops.FusedBatchNormV3(
            x=self._x,
            scale=self._gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=self._epsilon,
            is_training=is_training,
        )

    def backward(
        self, upstream: Any, saved: list[Any], *, is_training: bool
    ) -> tuple[Any, Any, Any]:
        """Gradients with respect to the batch, gamma and beta."""
        mean, variance, reserved = saved
        made = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=upstream,
            x=self._x,
            scale=self._gamma,
            reserve_space_1=mean,
            reserve_space_2=variance,
            reserve_space_3=reserved,
            epsilon=self._epsilon,
            is_training=is_training,
        )
        return made.x_backprop, made.scale_backprop, made.offset_backprop
