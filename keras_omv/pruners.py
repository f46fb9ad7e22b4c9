"""Pruning, as callbacks of `model.fit`: of single weights, and of whole channels."""

import logging
import warnings
from typing import Any

import numpy as np

from keras_omv import channel_masks, fits, planned
from keras_omv.boards import Board, Budget, as_board
from keras_omv.channel_masks import ChannelMasks
from keras_omv.fusion import build_graph
from keras_omv.planned import PlannedZeros
from keras_omv.pruning import (
    Masks,
    Schedule,
    largest,
    prunable_kernels,
    sparsity_of,
)
from keras_omv.routing import unroute
from keras_omv.scheduled import ScheduledCallback
from keras_omv.shrinking import order_for_budget, order_for_share
from keras_omv.sparsity import saves_nothing
from keras_omv.units import format_bytes

_LOGGER = logging.getLogger(__name__)

# What default schedules end with; of a target, any share would do.
_PACE = 0.5
BOARD_NOTE = "board"
"""Under which callbacks that know the camera note it for the others (fits.py)."""


class Pruning(ScheduledCallback):
    """Makes the smallest weights zero during `fit`, on a schedule.

    Convolutions and dense layers that are trained are pruned, each to the
    schedule's sparsity; depthwise kernels are left alone. After the last step each
    has exactly the share of zeros that the schedule ends with, rounded to whole
    weights. A weight of zero is a zero int8 after quantization. Where
    `ChannelPruning` removes channels in the same fit, the sparsity is that of the
    weights that are left.

    Zeros make neither the file nor the arena smaller, nor the camera faster, but
    where an NPU's compiler compresses weights. Where another callback of the fit
    names a camera that does not, a warning says so.

    Args:
        schedule: `PolynomialDecay` or `ConstantSparsity`, ours or those of
            `tfmot.sparsity.keras`; steps are the optimizer's. Defaults to `None`:
            from 0 to 50 % over the first three quarters of the fit.

    Raises:
        ValueError: If there is no schedule and the number of steps is unknown.
        UnsupportedModelError: If no layer of the model can be pruned.

    Example:

    ```python
    model.fit(images, labels, epochs=30, callbacks=[
        omv.Pruning(omv.PolynomialDecay(
            initial_sparsity=0.0, final_sparsity=0.5, begin_step=0, end_step=1000)),
    ])
    ```
    """

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.schedule = schedule

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        unroute(self.model)
        self._kernels = prunable_kernels(build_graph(self.model))
        # Zeros that an earlier fit left stay zero from the start.
        self._masks = Masks(self._kernels)
        self._masks.assign(np.asarray(kernel) != 0 for kernel in self._kernels)
        self.begin(sparsity=sparsity_of(self._kernels))
        final = _share_at_end(self.schedule) if self.schedule else _PACE
        self._planned = PlannedZeros(self._kernels, final)
        planned.begin(self.model, self._planned)
        self._channels_gone = 0
        self._has_pruned = self._has_warned = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        # Not earlier: who names the camera may stand behind this callback.
        board = fits.noted(self.model, BOARD_NOTE)
        if self._has_warned or not isinstance(board, Board):
            return
        self._has_warned = True
        if saves_nothing(board):
            warnings.warn(_no_gain(board), stacklevel=2)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["omv_sparsity"] = sparsity_of(self._kernels)

    def default_schedule(self) -> Schedule:
        return self.decay(_PACE, begin=0, end=0.75, updates=50)

    def prune(self, sparsity: float) -> None:
        channels = channel_masks.in_training(self.model)
        self._channels_gone = _count_gone(channels)
        self._has_pruned = True
        self._masks.assign(_mask(k, sparsity, channels) for k in self._kernels)
        self._masks.apply()
        if self._planned.done_epoch is None and sparsity >= self._planned.share:
            self._planned.done_epoch = self._epoch

    def apply(self) -> None:
        channels = channel_masks.in_training(self.model)
        if self._has_pruned and _count_gone(channels) != self._channels_gone:
            # The share is of what is left, and less is left now.
            self.prune(self._sparsity)
        self._masks.apply()

    def holds(self) -> bool:
        return self._masks.hold()


def _no_gain(board: Board) -> str:
    """Says that zeros are no gain on a camera, and what is."""
    return (
        f"Zeros among the weights save nothing on {board.title}: its CPU stores and "
        "multiplies them like any other weight. Expected an NPU whose compiler "
        "compresses weights (openmv-ae3). Next step: omv.ChannelPruning, which removes "
        "whole channels: less flash, less RAM, less time."
    )


def _count_gone(channels: ChannelMasks | None) -> int:
    return 0 if channels is None else int(np.count_nonzero(channels.gone))


def _mask(kernel: Any, sparsity: float, channels: ChannelMasks | None) -> np.ndarray:
    """The largest weights, among those that no removed channel owns."""
    weights = np.asarray(kernel)
    survivors = None if channels is None else channels.survivors(kernel)
    if survivors is None:
        return largest(weights, sparsity)
    mask = np.zeros(weights.shape, weights.dtype)
    mask[survivors] = largest(weights[survivors], sparsity)
    return mask


class ChannelPruning(ScheduledCallback):
    """Removes whole channels during `fit`: the exported network is smaller and faster.

    Taken are the channels of convolutions that a ReLU follows and whose output is
    added to nothing: in a MobileNetV2 the expansions of its blocks, the stem and the
    last convolution. The least important go first, by the spread that batch
    normalization gives a channel and the weights that read it. In the model in
    training they become zero and stay zero; the exported network is without them:
    less flash, less RAM, fewer multiplications. A later fit needs a `ChannelPruning`
    too, of the same target, or an optimizer's momentum brings the channels back.

    Args:
        target: The share of each convolution's channels to remove, in (0, 1); or a
            `Board`, its name, or a `Budget`: then as many go as it takes to fit,
            those first that free most of what is short. Defaults to `None`: the
            share that the schedule ends with.
        schedule: `PolynomialDecay` or `ConstantSparsity`, ours or those of
            `tfmot.sparsity.keras`; steps are the optimizer's. With a target it only
            says when: the target is reached when the schedule reaches its end.
            Defaults to `None`: from a tenth to half of the fit, in ten steps.

    Raises:
        ValueError: If there is neither a target nor a schedule, the share is not in
            (0, 1), or there is no schedule and the number of steps is unknown.
        BudgetError: If the model does not fit with a tenth of the channels left.
        UnsupportedModelError: If the model has no channels that can go.

    References:
        Li et al. 2016, "Pruning Filters for Efficient ConvNets", arXiv:1608.08710;
        Liu et al. 2017, "Network Slimming", arXiv:1708.06519.

    Example:

    ```python
    model.fit(images, labels, epochs=30, callbacks=[
        omv.ChannelPruning("openmv-h7"),
        omv.QuantizationAwareTraining(start_epoch=22),
        omv.OpenMVExport("camera", board="openmv-h7", class_names=names),
    ])
    ```
    """

    def __init__(
        self,
        target: float | Board | Budget | str | None = None,
        *,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        _check_target(target, schedule)
        self.target = target
        self.schedule = schedule

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        unroute(self.model)
        # With a target only the schedule's pace counts, not what it ends with.
        self._final = _final_sparsity(self.schedule) if self.schedule else _PACE
        self._board, self._share = None, self._final
        if isinstance(self.target, int | float):
            self._share = self.target
        elif self.target is not None:
            self._board = as_board(self.target)
        self._channels = ChannelMasks(self.model)
        self.begin(sparsity=self._channels.sparsity)
        self._removed = 0
        self._announce()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["omv_channel_sparsity"] = self._channels.sparsity

    def _announce(self) -> None:
        """Tells the other callbacks what the model will cost."""
        channels = self._channels
        self._plan(self._order())
        channel_masks.begin(self.model, channels)
        cost = channels.planned_cost(self._board)
        _LOGGER.info(
            "Channel pruning will leave %s of flash and %s of RAM.",
            format_bytes(cost.flash_bytes),
            format_bytes(cost.ram_bytes),
        )

    def default_schedule(self) -> Schedule:
        return self.decay(_PACE, begin=0.1, end=0.5, updates=10)

    def prune(self, sparsity: float) -> None:
        order = self._order()
        self._plan(order)
        progress = sparsity / self._final
        due = round(progress * (self._removed + len(order))) - self._removed
        chosen = order[: max(0, due)]
        self._removed += len(chosen)
        self._channels.remove(chosen)
        if self._channels.done_epoch is None and len(chosen) == len(order):
            self._channels.done_epoch = self._epoch

    def apply(self) -> None:
        self._channels.apply()

    def holds(self) -> bool:
        return self._channels.hold()

    def _plan(self, order: np.ndarray) -> None:
        """Notes what will be gone in the end, which changes with what is important."""
        self._channels.planned = self._channels.gone.copy()
        self._channels.planned[order] = True

    def _order(self) -> np.ndarray:
        """What has still to go to reach the target, in this order."""
        channels = self._channels
        state = (channels.channels, channels.importance(), channels.gone)
        if self._board is None:
            return order_for_share(*state, self._share)
        return order_for_budget(channels.network, *state, self._board)


def _check_target(target: Any, schedule: Schedule | None) -> None:
    if target is None and schedule is None:
        raise ValueError(
            "Expected a target or a schedule. Received: neither. Next step: "
            "omv.ChannelPruning(0.4), or a camera's name in place of the share."
        )
    if isinstance(target, int | float) and not 0 < target < 1:
        raise ValueError(
            "Invalid value received for argument `target`. Expected a share in (0, 1), "
            f"a board, its name or a budget. Received: target={target!r}"
        )


def _share_at_end(schedule: Schedule) -> float:
    return float(schedule(2**31 - 1)[1])


def _final_sparsity(schedule: Schedule) -> float:
    """What a schedule ends with."""
    final = _share_at_end(schedule)
    if not 0 < final < 1:
        raise ValueError(
            "Expected a schedule that ends with a sparsity in (0, 1). Received: one "
            f"that ends with {final}."
        )
    return final
