"""Zeros among the weights of a network: how many, and what they are worth.

This module imports no TensorFlow.
"""

from collections.abc import Iterator

import numpy as np

from keras_omv.boards import NEEDS_COMPILER, Board, Budget
from keras_omv.network import Network

MOSTLY_PRUNED = 0.2
"""The share of zeros, beyond those of rounding, from which on a network was pruned."""


def zero_share(network: Network) -> float:
    """Return the share of zeros among the int8 weights, 0 where there are none."""
    values = list(_weights(network))
    count = sum(value.size for value in values)
    zeros = sum(int(np.sum(value == 0)) for value in values)
    return zeros / count if count else 0.0


def pruned_share(network: Network) -> float:
    """Return the share of zeros among the weights that rounding alone does not make.

    Where weights are dense around 0, as those that training leaves, about as many
    round to 0 as to 1 and to -1: their mean is what rounding makes.
    """
    values = list(_weights(network))
    count = sum(value.size for value in values)
    counts = [sum(int(np.sum(value == n)) for value in values) for n in (-1, 0, 1)]
    rounded = (counts[0] + counts[2]) / 2
    return max(0.0, counts[1] - rounded) / count if count else 0.0


def saves_nothing(board: Board | Budget) -> bool:
    """Whether zeros are no gain on a camera; of the N6, only its compiler knows."""
    return not board.compresses_weights and board.name != NEEDS_COMPILER


def pruning_notes(network: Network, board: Board | Budget) -> tuple[str, ...]:
    """Return a sentence where weights were pruned and the camera gains nothing by it.

    Args:
        network: The int8 network.
        board: The camera. Of the N6, only its compiler knows.
    """
    if not saves_nothing(board) or pruned_share(network) < MOSTLY_PRUNED:
        return ()
    return (
        f"{zero_share(network):.0%} of the weights are zeros, which saves nothing on "
        f"{board.label}: a zero takes its byte and its multiplication like any other. "
        f"omv.ChannelPruning removes whole channels, and with them flash, RAM and "
        f"time.",
    )


def _weights(network: Network) -> Iterator[np.ndarray]:
    for tensor in network.tensors:
        if tensor.data is not None and tensor.dtype == "int8":
            yield tensor.data
