"""The channels of an int8 network: where each comes from, where it goes, what may go.

This module needs NumPy only.
"""

import collections
import dataclasses
from collections.abc import Callable

import numpy as np

from keras_omv.network import Network, Op, Tensor

# Operations that make a zero of a zero, channel by channel.
_PASSING = frozenset(
    [
        "AVERAGE_POOL_2D",
        "LEAKY_RELU",
        "MAX_POOL_2D",
        "QUANTIZE",
        "RELU",
        "RELU6",
        "TANH",
    ]
)
_RECTIFIERS = ("RELU", "RELU6")
_REDUCING = frozenset({"MEAN", "REDUCE_MAX", "SUM"})


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class WeightedOp:
    """An operation with weights, and the channels it joins.

    Attributes:
        index: Its position in the network.
        inputs: The channel that each input of its weights reads; empty for a
            depthwise convolution, whose outputs are its inputs.
        outputs: The channel that each output of its weights writes.
    """

    index: int
    inputs: np.ndarray
    outputs: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """A network's channels, numbered from 0.

    A depthwise convolution, a pool or a ReLU keeps the number of a channel; a
    convolution or a dense layer makes new ones.

    Attributes:
        of_tensor: The channels of each activation by the tensor's index, in the
            order of its last dimension.
        weighted: The operations with weights, in order.
        removable: For each channel, whether it can go alone. Those of the image, of
            the scores, and of what is added to something else cannot.
        groups: Channels that one operation makes and that can go, for each such
            operation.
        rectified: Those of `groups` that a ReLU follows; the others are bottlenecks
            that the network was given on purpose.
    """

    of_tensor: dict[int, np.ndarray]
    weighted: tuple[WeightedOp, ...]
    removable: np.ndarray
    groups: tuple[np.ndarray, ...]
    rectified: tuple[np.ndarray, ...]


def channels_of(network: Network) -> Channels:
    """Numbers the channels of a network.

    Args:
        network: The network, lowered or read from a file.

    Example:

    >>> from keras_omv.architecture import Levers, network_of_levers
    >>> levers = Levers(alpha=0.35, resolution=64, classes=10)
    >>> found = channels_of(network_of_levers(levers))
    >>> len(found.rectified), len(found.rectified[-1])
    (18, 1280)
    """
    return _Numbering(network).channels()


class _Numbering:
    """Follows the channels from operation to operation."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._of_tensor: dict[int, np.ndarray] = {}
        self._weighted: list[WeightedOp] = []
        self._count = 0
        self._pinned: list[np.ndarray] = []
        self._made: list[tuple[int, np.ndarray]] = []
        self._readers = collections.Counter(i for op in network.ops for i in op.inputs)

    def channels(self) -> Channels:
        for index in self._network.inputs:
            self._pin(self._new(index))
        for index, op in enumerate(self._network.ops):
            follow = _follower(op.kind)
            if not follow(self, index, op):
                self._stop(op)
        for index in self._network.outputs:
            self._pin(self._of_tensor[index])
        removable = np.ones(self._count, bool)
        removable[np.concatenate(self._pinned)] = False
        groups = [(index, made[removable[made]]) for index, made in self._made]
        return Channels(
            self._of_tensor,
            tuple(self._weighted),
            removable,
            tuple(group for _, group in groups if len(group)),
            tuple(
                group
                for index, group in groups
                if len(group) and self._rectifies(index)
            ),
        )

    # Each returns False for an operation that it cannot follow.

    def convolution(self, index: int, op: Op) -> bool:
        source = self._source(op)
        weights = self._own_weights(op)
        if source is None or weights is None or weights.shape[-1] != len(source):
            return False
        outputs = self._new(op.outputs[0])
        if weights.shape[0] != len(outputs):
            return False
        self._made.append((index, outputs))
        self._weighted.append(WeightedOp(index, source, outputs))
        return True

    def dense(self, index: int, op: Op) -> bool:
        weights = self._own_weights(op)
        source = self._source(op)
        if source is None or weights is None:
            return False
        if len(self._tensor(op.outputs[0]).shape) != 2:
            return False
        times = weights.shape[1] // len(source)
        if times * len(source) != weights.shape[1]:
            return False
        outputs = self._new(op.outputs[0])
        self._made.append((index, outputs))
        self._weighted.append(WeightedOp(index, np.tile(source, times), outputs))
        return True

    def depthwise(self, index: int, op: Op) -> bool:
        source = self._source(op)
        weights = self._own_weights(op)
        if source is None or weights is None:
            return False
        outputs = np.repeat(source, weights.shape[3] // len(source))
        if len(outputs) != weights.shape[3]:
            return False
        self._of_tensor[op.outputs[0]] = outputs
        self._weighted.append(WeightedOp(index, outputs[:0], outputs))
        return True

    def passing(self, index: int, op: Op) -> bool:
        source = self._source(op)
        if source is None or self._tensor(op.outputs[0]).shape[-1] != len(source):
            return False
        self._of_tensor[op.outputs[0]] = source
        return True

    def reducing(self, index: int, op: Op) -> bool:
        axes = self._tensor(op.inputs[1]).data
        spatial = axes is not None and set(axes.reshape(-1).tolist()) == {1, 2}
        return spatial and self.passing(index, op)

    def reshape(self, index: int, op: Op) -> bool:
        source = self._source(op)
        shape = self._tensor(op.outputs[0]).shape
        if source is None or not shape:
            return False
        if len(shape) == 2 and shape[0] == 1 and shape[1] % len(source) == 0:
            self._of_tensor[op.outputs[0]] = np.tile(source, shape[1] // len(source))
            return True
        return shape[-1] == len(source) and self.passing(index, op)

    def concatenation(self, index: int, op: Op) -> bool:
        sources = [self._of_tensor.get(i) for i in op.inputs]
        rank = len(self._tensor(op.outputs[0]).shape)
        known = [source for source in sources if source is not None]
        if len(known) < len(sources) or op.options["axis"] not in (-1, rank - 1):
            return False
        self._of_tensor[op.outputs[0]] = np.concatenate(known)
        return True

    def _rectifies(self, index: int) -> bool:
        """Whether an operation has a ReLU, or one alone reads it."""
        op = self._network.ops[index]
        if op.options["activation"] in _RECTIFIERS:
            return True
        readers = [r for r in self._network.ops if op.outputs[0] in r.inputs]
        return [reader.kind for reader in readers] in (["RELU"], ["RELU6"])

    def _stop(self, op: Op) -> None:
        """Keeps all channels that an operation reads or writes."""
        for index in op.inputs:
            if index in self._of_tensor:
                self._pin(self._of_tensor[index])
        for index in op.outputs:
            self._pin(self._new(index))

    def _new(self, index: int) -> np.ndarray:
        shape = self._tensor(index).shape
        size = shape[-1] if shape else 1
        self._of_tensor[index] = np.arange(self._count, self._count + size)
        self._count += size
        return self._of_tensor[index]

    def _pin(self, numbers: np.ndarray) -> None:
        self._pinned.append(numbers)

    def _source(self, op: Op) -> np.ndarray | None:
        return self._of_tensor.get(op.inputs[0])

    def _own_weights(self, op: Op) -> Tensor | None:
        """The constant weights of an operation, if it shares no constant."""
        constants = [index for index in op.inputs[1:] if index >= 0]
        alone = all(self._readers[index] == 1 for index in constants)
        constant = all(self._tensor(index).is_constant for index in constants)
        return self._tensor(constants[0]) if alone and constant else None

    def _tensor(self, index: int) -> Tensor:
        return self._network.tensors[index]


_FOLLOWERS: dict[str, Callable[[_Numbering, int, Op], bool]] = {
    "CONCATENATION": _Numbering.concatenation,
    "CONV_2D": _Numbering.convolution,
    "DEPTHWISE_CONV_2D": _Numbering.depthwise,
    "FULLY_CONNECTED": _Numbering.dense,
    "PAD": _Numbering.passing,
    "RESHAPE": _Numbering.reshape,
    **dict.fromkeys(_PASSING, _Numbering.passing),
    **dict.fromkeys(_REDUCING, _Numbering.reducing),
}


def _follower(kind: str) -> Callable[[_Numbering, int, Op], bool]:
    return _FOLLOWERS.get(kind, lambda numbering, index, op: False)
