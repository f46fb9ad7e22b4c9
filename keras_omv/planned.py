"""What pruning planned in a fit, and whether the weights of now have it.

Weights that are put back at the end of a fit, by EarlyStopping or from a
ModelCheckpoint, may be of an epoch before pruning ended, or the fit ended before its
schedule did: then a larger or denser network ships than was asked for. Of a model that
was loaded from a file nothing is known: it is another one than that of the fit.
"""

import dataclasses
import math
import warnings
from typing import Any

import numpy as np

from keras_omv import channel_masks, fits
from keras_omv.boards import Board, Budget
from keras_omv.channel_masks import ChannelMasks
from keras_omv.compaction import zero_channels
from keras_omv.convert import lower
from keras_omv.cost import Cost
from keras_omv.pruning import sparsity_of
from keras_omv.shrinking import cost_without
from keras_omv.units import format_bytes
from keras_omv.view import QuantizedView

_NOTE = "planned zeros"


@dataclasses.dataclass(slots=True)
class PlannedZeros:
    """What `Pruning` is to end with.

    Attributes:
        kernels: What it prunes.
        share: The share of zeros that each will have.
        done_epoch: The epoch in which they had it first, `None` if not yet.
    """

    kernels: list[Any]
    share: float
    done_epoch: int | None = None

    def count(self) -> int:
        """How many zeros that makes, as `pruning.largest` rounds."""
        return sum(round(self.share * math.prod(k.shape)) for k in self.kernels)


def begin(model: Any, zeros: PlannedZeros) -> None:
    """Makes known what `Pruning` plans in a fit that begins."""
    fits.note(model, _NOTE, zeros)


def warn_if_denser(model: Any, board: Board | Budget) -> None:
    """Warns where the weights have fewer zeros than pruning planned in the last fit.

    Args:
        model: What is about to be exported.
        board: The camera that it is exported for.
    """
    channels = channel_masks.in_training(model)
    if channels is not None:
        _warn_of_channels(model, channels, board)
    zeros: PlannedZeros | None = fits.noted(model, _NOTE)
    if zeros is not None:
        _warn_of_zeros(zeros)


def _warn_of_channels(
    model: Any, channels: ChannelMasks, board: Board | Budget
) -> None:
    network = lower(QuantizedView(model), compacted=False)
    zero = zero_channels(network, channels.channels)
    can_go = np.concatenate(channels.channels.rectified)
    planned, left = (int(which[can_go].sum()) for which in (channels.planned, zero))
    if left >= planned:
        return
    cost = cost_without(network, channels.channels, zero, board)
    warnings.warn(
        f"The network is larger than ChannelPruning planned. Expected {planned} of "
        f"{len(can_go)} channels gone, for {_sizes(channels.planned_cost(board))}. "
        f"Received: weights with {left} gone, for {_sizes(cost)}. "
        f"{_advice(channels.done_epoch)}",
        stacklevel=4,
    )


def _warn_of_zeros(zeros: PlannedZeros) -> None:
    weights = [np.asarray(kernel) for kernel in zeros.kernels]
    if sum(int(np.sum(kernel == 0)) for kernel in weights) >= zeros.count():
        return
    share = sparsity_of(weights)
    warnings.warn(
        f"The weights are denser than Pruning planned. Expected {zeros.share:.1%} of "
        f"zeros. Received: weights with {share:.1%}. {_advice(zeros.done_epoch)}",
        stacklevel=4,
    )


def _sizes(cost: Cost) -> str:
    return (
        f"{format_bytes(cost.flash_bytes)} of flash and "
        f"{format_bytes(cost.ram_bytes)} of RAM"
    )


def _advice(done_epoch: int | None) -> str:
    if done_epoch is None:
        return (
            "Pruning had not ended by then. Next step: export once it has; where the "
            "fit is over, train for more epochs or end the schedule earlier; where "
            "EarlyStopping stopped it, give that a start_from_epoch behind the "
            "schedule's end."
        )
    return (
        "They are of an epoch before pruning ended (restored by EarlyStopping or from "
        f"a ModelCheckpoint, perhaps). Next step: EarlyStopping(..., start_from_epoch="
        f"{done_epoch}), or a checkpoint from that epoch on."
    )
