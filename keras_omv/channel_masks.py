"""Channels that a model in training has lost: which, how important they were, zeros.

A channel is gone when the convolution that makes it, its bias and its batch
normalization put out zero, whatever the image; what reads it is zero too, so that it
takes no part in the scales of weights. The model keeps its shape during `fit`; the
exported network is without them (channels.py).
"""

import collections
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_omv import fits
from keras_omv.boards import Board, Budget
from keras_omv.channels import Channels, WeightedOp, channels_of
from keras_omv.compaction import zero_channels
from keras_omv.convert import lower
from keras_omv.cost import Cost
from keras_omv.errors import UnsupportedModelError
from keras_omv.graph import WEIGHTED, Step
from keras_omv.importance import clipped, gain_of, normalized_moments
from keras_omv.network import WEIGHTED_OPS, Network
from keras_omv.pruning import Masks
from keras_omv.shrinking import cost_without
from keras_omv.view import QuantizedView

_CLIPS = {"linear": (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
_NOTE = "channel masks"


class ChannelMasks:
    """Which channels of a model are gone, kept zero by masks.

    Attributes:
        network: What the model is lowered to, with all of its channels.
        channels: Of the network; only what can be pruned is in `rectified`.
        gone: Whether each channel is gone.
        planned: Whether each channel will be gone once pruning has ended.
        done_epoch: The epoch in which all that was planned was gone, `None` if not yet.

    Args:
        model: A built Keras 3 model.

    Raises:
        UnsupportedModelError: If no channel of the model can go.
    """

    def __init__(self, model: Any) -> None:
        view = QuantizedView(model)
        self.network = lower(view, compacted=False)
        self._steps = _steps_by_op(view, self.network)
        self.channels = _changeable(channels_of(self.network), self._steps)
        self.gone = zero_channels(self.network, self.channels)
        self.planned = self.gone
        self.done_epoch: int | None = None
        self._ops = _touched_ops(self.channels)
        steps = [self._steps[op.index] for op in self._ops]
        self._masks = Masks([v for step in steps for v in _variables(step)])
        self.remove(np.flatnonzero(self.gone))

    @property
    def sparsity(self) -> float:
        """The share of the channels that can go which is gone."""
        return float(np.mean(self.gone[np.concatenate(self.channels.rectified)]))

    def importance(self) -> np.ndarray:
        """What each channel passes on, times how strongly it is read.

        The spread of a channel's values over images, as its batch normalization has
        it, times the L1 norm of the weights that read it (see importance.py).
        """
        spread = np.ones(len(self.gone))
        reads = np.zeros(len(self.gone))
        for op in self.channels.weighted:
            step = self._steps[op.index]
            spread[op.outputs] = _spread(step)
            if len(op.inputs):
                np.add.at(reads, op.inputs, _reads(step))
        return spread * reads

    def planned_cost(self, board: Board | Budget | None = None) -> Cost:
        """What the network costs once pruning has ended, as it will be exported.

        Args:
            board: As in `cost_of`. Defaults to `None`, a Cortex-M7.
        """
        return cost_without(self.network, self.channels, self.planned, board)

    def cost_now(self, board: Board | Budget | None = None) -> Cost:
        """What the network costs without the channels that are gone already.

        Args:
            board: As in `planned_cost`.
        """
        return cost_without(self.network, self.channels, self.gone, board)

    def remove(self, numbers: np.ndarray) -> None:
        """Makes channels zero, for good."""
        self.gone[numbers] = True
        self._masks.assign(
            mask
            for op in self._ops
            for mask in _masks_of(self._steps[op.index], op, self.gone)
        )
        self.apply()

    def apply(self) -> None:
        """Puts zeros back where an optimizer's step moved them."""
        self._masks.apply()

    def hold(self) -> bool:
        """Whether all that removed channels own is zero."""
        return self._masks.hold()

    def survivors(self, kernel: Any) -> np.ndarray | None:
        """For each weight of a kernel, whether no removed channel owns it.

        `None` for a kernel that no channel can be taken from.
        """
        for op in self._ops:
            if self._steps[op.index].kernel is kernel:
                return _kernel_mask(self._steps[op.index], op, self.gone)
        return None


def begin(model: Any, masks: ChannelMasks) -> None:
    """Makes masks known to the other callbacks of a fit that begins."""
    fits.note(model, _NOTE, masks)


def in_training(model: Any) -> ChannelMasks | None:
    """The masks of the fit that goes on, or went last, if any."""
    masks: ChannelMasks | None = fits.noted(model, _NOTE)
    return masks


def _steps_by_op(view: QuantizedView, network: Network) -> dict[int, Step]:
    """The step that each operation with weights was lowered from."""
    steps = [s for s in view.graph.steps if s.kind in WEIGHTED or s.kind == "affine"]
    ops = [i for i, op in enumerate(network.ops) if op.kind in WEIGHTED_OPS]
    return dict(zip(ops, steps, strict=True))


def _changeable(channels: Channels, steps: dict[int, Step]) -> Channels:
    """Leaves out what frozen or shared layers read or write."""
    uses = collections.Counter(id(v) for s in steps.values() for v in _variables(s))
    stays = np.zeros(len(channels.removable), bool)
    for op in channels.weighted:
        variables = _variables(steps[op.index])
        shared = any(uses[id(variable)] > 1 for variable in variables)
        if shared or not variables or not _is_trained(steps[op.index]):
            stays[op.inputs] = stays[op.outputs] = True
    groups = (group[~stays[group]] for group in channels.rectified)
    rectified = tuple(group for group in groups if len(group) > 1)
    if not rectified:
        raise UnsupportedModelError(
            "Expected a trainable convolution with a ReLU whose output is not added "
            "to another, to take channels from. Received: a model without one. Set "
            "layer.trainable = True, or prune another model."
        )
    return dataclasses.replace(channels, rectified=rectified)


def _is_trained(step: Step) -> bool:
    return step.kernel is None or bool(step.kernel.trainable)


def _touched_ops(channels: Channels) -> list[WeightedOp]:
    """The operations that read or write a channel which can go."""
    can_go = np.zeros(len(channels.removable), bool)
    can_go[np.concatenate(channels.rectified)] = True
    return [
        op
        for op in channels.weighted
        if can_go[op.inputs].any() or can_go[op.outputs].any()
    ]


def _normalization(step: Step) -> Any:
    if step.kind != "affine":
        return step.batch_norm
    is_norm = isinstance(step.layer, keras.layers.BatchNormalization)
    return step.layer if is_norm else None


def _variables(step: Step) -> list[Any]:
    """The kernel, if there is one, and what adds to its outputs."""
    norm = _normalization(step)
    added = [] if norm is None else [norm.beta, norm.moving_mean]
    return [v for v in (step.kernel, step.bias, *added) if v is not None]


def _masks_of(step: Step, op: WeightedOp, gone: np.ndarray) -> Iterator[np.ndarray]:
    """What stays of each of a step's variables."""
    for variable in _variables(step):
        is_kernel = variable is step.kernel
        yield _kernel_mask(step, op, gone) if is_kernel else ~gone[op.outputs]


def _kernel_mask(step: Step, op: WeightedOp, gone: np.ndarray) -> np.ndarray:
    """1 for the weights that stay, in the kernel's shape."""
    kept = ~gone[op.outputs]
    if step.kind == "depthwise":
        mask = kept.reshape(step.kernel.shape[2:])
    else:
        mask = ~gone[op.inputs][:, None] & kept
    return np.broadcast_to(mask, step.kernel.shape)


def _spread(step: Step) -> np.ndarray:
    """The standard deviation of a step's outputs over images."""
    norm = _normalization(step)
    if norm is None and step.kernel is None:
        return np.ones(step.shape[-1])
    if norm is None:
        kernel = np.asarray(step.kernel)
        axes = (0, 1) if step.kind == "depthwise" else tuple(range(kernel.ndim - 1))
        spread: np.ndarray = np.sqrt((kernel**2).sum(axis=axes)).reshape(-1)
        return spread
    passed = clipped(normalized_moments(norm), *_CLIPS[step.activation])
    deviation: np.ndarray = np.sqrt(passed.variance)
    return deviation


def _reads(step: Step) -> np.ndarray:
    """The L1 norm of what a step does with each of its inputs."""
    kernel = np.abs(np.asarray(step.kernel))
    if step.batch_norm is not None:
        kernel = kernel * gain_of(step.batch_norm)
    reads: np.ndarray = kernel.sum(axis=(*range(kernel.ndim - 2), kernel.ndim - 1))
    return reads
