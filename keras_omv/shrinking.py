"""Which channels a network gives up: a share of all, or as many as a camera asks for.

Each convolution's importance is taken as a whole that its channels share. For a
budget, the next channel to go is the one that costs the least of what its convolution
has left, for the most of what is short: the early expansions hold the peak of the
RAM, the last convolution holds much of the flash. This module imports no TensorFlow.
"""

import dataclasses
import math

import numpy as np

from keras_omv import flatbuffer
from keras_omv.arena import lifetimes
from keras_omv.boards import Board, Budget
from keras_omv.channels import Channels
from keras_omv.compaction import without
from keras_omv.cost import Cost, cost_of
from keras_omv.errors import BudgetError
from keras_omv.fit import Fit
from keras_omv.network import Network
from keras_omv.units import format_bytes

LEAST_KEPT = 0.1
"""The share of each convolution's channels that a budget leaves at least."""
_STEP_SHARE = 1 / 32
"""The share of a convolution's channels that go before costs are computed anew."""
# A scale and a bias for each output (flatbuffer), a multiplier and a shift (arena).
_FLASH_BYTES_PER_OUTPUT = 8
_RAM_BYTES_PER_OUTPUT = 8
_KIB = 1024


def order_for_share(
    channels: Channels, importance: np.ndarray, gone: np.ndarray, share: float
) -> np.ndarray:
    """The channels to remove for a share of each convolution's, in their order.

    Args:
        channels: Of the network.
        importance: Of each channel.
        gone: Whether each channel is gone already.
        share: Of the removable channels of each convolution, in [0, 1). At least one
            is kept.

    Returns:
        Numbers of channels that are not gone yet; wherever the list is cut off, the
        convolutions have given up about equal shares.
    """
    chosen = []
    for group in channels.rectified:
        count = min(round(share * len(group)), len(group) - 1)
        chosen.append(group[np.lexsort((importance[group], ~gone[group]))][:count])
    numbers = _side_by_side(*chosen)
    left: np.ndarray = numbers[~gone[numbers]]
    return left


def order_for_budget(
    network: Network,
    channels: Channels,
    importance: np.ndarray,
    gone: np.ndarray,
    board: Board | Budget,
) -> np.ndarray:
    """The channels to remove until a network fits a camera, in their order.

    Args:
        network: The network with all of its channels.
        channels: Of the network.
        importance: Of each channel.
        gone: Whether each channel is gone already.
        board: What it has to fit.

    Returns:
        Numbers of channels that are not gone yet; empty if it fits.

    Raises:
        BudgetError: If it does not fit with what may go gone.
    """
    return _Shrinking(network, channels, importance, gone, board).order()


def cost_without(
    network: Network,
    channels: Channels,
    gone: np.ndarray,
    board: Board | Budget | None = None,
) -> Cost:
    """What a network costs without some of its channels, as it would be exported.

    Args:
        network: The network with all of its channels.
        channels: Of the network.
        gone: Whether each channel is left out.
        board: As in `cost_of`.
    """
    cut = without(network, channels, gone)
    return cost_of(cut, flash_bytes=len(flatbuffer.write(cut)), board=board)


class _Shrinking:
    """Removes channels, some at a time, until the network fits."""

    def __init__(
        self,
        network: Network,
        channels: Channels,
        importance: np.ndarray,
        gone: np.ndarray,
        board: Board | Budget,
    ) -> None:
        self._network = network
        self._channels = channels
        self._importance = importance
        self._gone = gone.copy()
        self._board = board
        written_bytes = len(flatbuffer.write(network))
        self._structure_bytes = written_bytes - _constant_bytes(network)

    def order(self) -> np.ndarray:
        # Flash first, alone: what goes for it frees RAM too, for each channel of any
        # convolution some. Together, the early expansions would give more than asked.
        for_flash = self._remove(only_flash=True)
        rest = self._remove()
        return _side_by_side(self._give_back(for_flash), rest)

    def _remove(self, *, only_flash: bool = False) -> np.ndarray:
        """Takes channels out until the network fits, or until its flash does."""
        removed = [np.zeros(0, int)]
        while not (fit := self._fit()).fits:
            if only_flash and not fit.flash_over_bytes:
                break
            chosen = self._cheapest(self._relief(fit, only_flash=only_flash))
            if not len(chosen):
                raise BudgetError(self._message(fit))
            self._gone[chosen] = True
            removed.append(chosen)
        return np.concatenate(removed)

    def _give_back(self, numbers: np.ndarray) -> np.ndarray:
        """Puts the last of them back that need not go; returns the others."""
        least, most = 0, len(numbers)
        while least < most:
            kept = (least + most) // 2
            self._gone[numbers] = np.arange(len(numbers)) < kept
            least, most = (least, kept) if self._fit().fits else (kept + 1, most)
        self._gone[numbers] = np.arange(len(numbers)) < least
        return numbers[:least]

    def _fit(self) -> Fit:
        """Whether what is left fits; its file is only written where it may."""
        self._cut = without(self._network, self._channels, self._gone)
        flash_bytes = self._structure_bytes + _constant_bytes(self._cut)
        self._cost = cost_of(self._cut, flash_bytes=flash_bytes, board=self._board)
        fit = self._board.fit(self._cost)
        if not fit.fits:
            return fit
        flash_bytes = len(flatbuffer.write(self._cut))
        self._cost = cost_of(self._cut, flash_bytes=flash_bytes, board=self._board)
        return self._board.fit(self._cost)

    def _cheapest(self, relief: np.ndarray) -> np.ndarray:
        """The next channels to go, at most a few of each convolution."""
        price = np.full(len(relief), np.inf)
        for group in self._channels.rectified:
            left = group[~self._gone[group]]
            spare = len(left) - max(1, math.ceil(LEAST_KEPT * len(group)))
            if spare <= 0:
                continue
            total = self._importance[left].sum() or 1.0
            step = min(spare, math.ceil(_STEP_SHARE * len(left)))
            cheap = left[np.argsort(self._importance[left], kind="stable")[:step]]
            cheap = cheap[relief[cheap] > 0]
            price[cheap] = self._importance[cheap] / total / relief[cheap]
        order = np.argsort(price, kind="stable")
        order = order[np.isfinite(price[order])]
        enough = int(np.searchsorted(np.cumsum(relief[order]), 1.0)) + 1
        few: np.ndarray = order[: min(enough, max(1, len(order) // 8))]
        return few

    def _relief(self, fit: Fit, *, only_flash: bool) -> np.ndarray:
        """Which share of what is short each channel would free."""
        relief = np.zeros(len(self._gone))
        if fit.flash_over_bytes:
            relief += self._flash_bytes() / fit.flash_over_bytes
        if fit.ram_over_bytes and not only_flash:
            file_bytes = self._share_of_file_in_ram(fit) * self._flash_bytes()
            relief += (self._ram_bytes() + file_bytes) / fit.ram_over_bytes
        return relief

    def _share_of_file_in_ram(self, fit: Fit) -> float:
        """How much of each byte of the file is missing beside the arena: 0 or 1."""
        smaller = dataclasses.replace(
            self._cost, flash_bytes=self._cost.flash_bytes - _KIB
        )
        freed = fit.ram_over_bytes - self._board.fit(smaller).ram_over_bytes
        return min(max(freed / _KIB, 0.0), 1.0)

    def _flash_bytes(self) -> np.ndarray:
        freed = np.zeros(len(self._gone))
        for op in self._channels.weighted:
            shape = self._cut.tensors[self._cut.ops[op.index].inputs[1]].shape
            size = math.prod(shape)
            outputs = shape[3] if not len(op.inputs) else shape[0]
            np.add.at(freed, op.outputs, size / outputs + _FLASH_BYTES_PER_OUTPUT)
            if len(op.inputs):
                np.add.at(freed, op.inputs, size / shape[-1])
        return freed

    def _ram_bytes(self) -> np.ndarray:
        """Of what is alive at the arena's peak, and of what stays for each channel."""
        freed = np.zeros(len(self._gone))
        arena = self._cost.arena
        peak_op = -1 if arena is None else arena.peak_op
        for index, (first, last) in lifetimes(self._cut).items():
            if first <= peak_op <= last:
                shape = self._cut.tensors[index].shape
                values = math.prod(shape[1:-1])
                np.add.at(freed, self._channels.of_tensor[index], values)
        for op in self._channels.weighted:
            np.add.at(freed, op.outputs, _RAM_BYTES_PER_OUTPUT)
        return freed

    def _message(self, fit: Fit) -> str:
        return (
            f"Expected a model that fits {self._board.name} once channels are removed. "
            f"Received: one that still takes {format_bytes(self._cost.flash_bytes)} of "
            f"flash and {format_bytes(self._cost.ram_bytes)} of RAM with a tenth of "
            f"each convolution's channels left. {' '.join(fit.over)} Next step: a "
            "smaller resolution or alpha, or another camera."
        )


def _side_by_side(*lists: np.ndarray) -> np.ndarray:
    """One list; wherever it is cut off, it has about equal shares of each."""
    numbers = np.concatenate((np.zeros(0, int), *lists))
    places = [(np.arange(len(one)) + 1) / len(one) for one in lists if len(one)]
    order = np.argsort(np.concatenate((np.zeros(0), *places)), kind="stable")
    mixed: np.ndarray = numbers[order]
    return mixed


def _constant_bytes(network: Network) -> int:
    """The bytes of all constants and their scales."""
    return sum(
        tensor.data.nbytes + tensor.scales.nbytes
        for tensor in network.tensors
        if tensor.data is not None
    )
