"""Magnitude pruning: schedules, and masks that keep zeros zero.

The smallest weights of a kernel become zero (Zhu and Gupta 2017,
arXiv:1710.01878) and stay zero through quantization: a weight of 0.0 is the int8
value 0. Zeros save nothing on a camera's CPU; they do where an NPU compiler
compresses weights.
"""

import dataclasses
import functools
import os
import warnings
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from keras_omv.errors import UnsupportedModelError
from keras_omv.graph import Graph


class Schedule(Protocol):
    """What `tfmot.sparsity.keras` schedules and those below have in common."""

    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Whether to prune at a step, and the sparsity that holds there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolynomialDecay:
    """Sparsity that rises fast at first and slowly in the end.

    Between `begin_step` and `end_step` the sparsity is `final_sparsity +
    (initial_sparsity - final_sparsity) * (1 - progress) ** power`. The schedule of
    `tfmot.sparsity.keras` of the same name computes it.

    Args:
        initial_sparsity: Share of zeros at `begin_step`, in [0, 1).
        final_sparsity: Share of zeros from `end_step` on, in [0, 1).
        begin_step: The training step to begin at.
        end_step: The training step to end at.
        power: Exponent. Defaults to `3`.
        frequency: Prune every so many steps. Defaults to `100`.
    """

    initial_sparsity: float
    final_sparsity: float
    begin_step: int
    end_step: int
    power: float = 3
    frequency: int = 100

    def __post_init__(self) -> None:
        _delegate("PolynomialDecay", **dataclasses.asdict(self))

    def __call__(self, step: Any) -> tuple[Any, Any]:
        return _delegate("PolynomialDecay", **dataclasses.asdict(self))(step)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstantSparsity:
    """One sparsity from `begin_step` on, see `tfmot.sparsity.keras`.

    Args:
        target_sparsity: Share of zeros, in [0, 1).
        begin_step: The training step to begin at.
        end_step: The last step at which zeros are chosen anew; -1 for no end.
            Defaults to `-1`.
        frequency: Choose anew every so many steps. Defaults to `100`.
    """

    target_sparsity: float
    begin_step: int
    end_step: int = -1
    frequency: int = 100

    def __post_init__(self) -> None:
        _delegate("ConstantSparsity", **dataclasses.asdict(self))

    def __call__(self, step: Any) -> tuple[Any, Any]:
        return _delegate("ConstantSparsity", **dataclasses.asdict(self))(step)


@functools.lru_cache
def _delegate(name: str, **arguments: Any) -> Schedule:
    schedule: Schedule = getattr(_tfmot().sparsity.keras, name)(**arguments)
    return schedule


@functools.cache
def _tfmot() -> Any:
    """Imports tfmot without the change it makes to the whole process.

    Its import sets TF_USE_LEGACY_KERAS, and with it `tf.keras` becomes Keras 2
    for everybody, unless `tf.keras` was looked at before.
    """
    _ = tf.keras
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        with warnings.catch_warnings():
            # It asks distutils for TensorFlow's version.
            warnings.simplefilter("ignore", DeprecationWarning)
            import tensorflow_model_optimization
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return tensorflow_model_optimization


def prunable_kernels(graph: Graph) -> list[Any]:
    """The kernels that magnitude pruning takes, each once.

    Those of convolutions and dense layers that are trained; depthwise kernels
    have nine weights a channel and none to spare.
    """
    kernels = {
        id(step.kernel): step.kernel
        for step in graph.weighted_steps
        if step.kind != "depthwise" and step.kernel.trainable
    }
    if not kernels:
        raise UnsupportedModelError(
            "Expected at least one trainable Conv2D or Dense layer to prune. "
            "Received: a model without one. Set layer.trainable = True."
        )
    return list(kernels.values())


def sparsity_of(kernels: Iterable[Any]) -> float:
    """The share of zeros among the weights of some kernels."""
    values = [np.asarray(kernel) for kernel in kernels]
    zeros = sum(value.size - np.count_nonzero(value) for value in values)
    return float(zeros / sum(value.size for value in values))


class Masks:
    """Which values of some variables stay, kept in variables and applied in one call.

    Args:
        variables: What is masked; all of it stays at first.
    """

    def __init__(self, variables: list[Any]) -> None:
        self._variables = variables
        self._masks = [tf.Variable(tf.ones(v.shape, v.dtype)) for v in variables]
        self._apply = tf.function(self._multiply, autograph=False)

    def assign(self, masks: Iterable[np.ndarray]) -> None:
        """Sets the masks: true, or 1, for each value that stays."""
        for variable, mask in zip(self._masks, masks, strict=True):
            variable.assign(tf.cast(mask, variable.dtype))

    def apply(self) -> None:
        """Puts zeros back where an optimizer's step moved them."""
        self._apply()

    def hold(self) -> bool:
        """Whether all that is masked is zero."""
        pairs = zip(self._variables, self._masks, strict=True)
        return not any(np.any(np.asarray(v)[np.asarray(m) == 0]) for v, m in pairs)

    def _multiply(self) -> None:
        for variable, mask in zip(self._variables, self._masks, strict=True):
            variable.assign(variable * mask)


def largest(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """1 for the weights that stay, 0 for exactly `sparsity` of them, the smallest."""
    zeros = round(sparsity * weights.size)
    mask = np.ones(weights.size, weights.dtype)
    if zeros:
        mask[np.argpartition(np.abs(weights).reshape(-1), zeros - 1)[:zeros]] = 0
    return mask.reshape(weights.shape)
