"""What a model in training costs on a camera, epoch by epoch, computed when it changes.

Only whole outputs that become zero change it: the exported network is without them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_omv import channel_masks
from keras_omv.boards import Board, Budget
from keras_omv.channel_masks import ChannelMasks
from keras_omv.convert import lower
from keras_omv.cost import Cost
from keras_omv.estimation import estimate
from keras_omv.pruning import sparsity_of
from keras_omv.view import QuantizedView


class EpochCost:
    """The cost of a model as it would be exported now.

    Args:
        model: A built Keras 3 model.
        board: The camera.

    Raises:
        UnsupportedModelError: If the model cannot run on the camera.
    """

    def __init__(self, model: Any, board: Board | Budget) -> None:
        self._model = model
        self._board = board
        self._view = QuantizedView(model)
        self._kernels = [step.kernel for step in self._view.graph.weighted_steps]
        self._live_outputs = _live_outputs(self._kernels)
        self._cost = estimate(lower(self._view), board=board)

    @property
    def sparsity(self) -> float:
        """The share of weights that are zero."""
        return sparsity_of(self._kernels)

    def now(self) -> Cost:
        """The cost with the weights of this moment."""
        live_outputs = _live_outputs(self._kernels)
        if live_outputs != self._live_outputs:
            self._live_outputs = live_outputs
            self._cost = self._computed()
        return self._cost

    def _computed(self) -> Cost:
        channels = channel_masks.in_training(self._model)
        if channels is None or self._live_outputs != _survivors(
            self._kernels, channels
        ):
            return estimate(lower(self._view), board=self._board)
        # The same, without rounding all weights: sizes do not depend on them.
        return channels.cost_now(self._board)


def _live_outputs(kernels: Sequence[Any]) -> tuple[int, ...]:
    """How many outputs of each kernel are not always zero."""
    return tuple(
        int(np.count_nonzero(np.asarray(k).reshape(-1, k.shape[-1]).any(axis=0)))
        for k in kernels
    )


def _survivors(kernels: Sequence[Any], channels: ChannelMasks) -> tuple[int, ...]:
    """How many outputs of each kernel no removed channel owns."""
    masks = [channels.survivors(kernel) for kernel in kernels]
    return _live_outputs(
        [
            np.ones(kernel.shape) if mask is None else mask
            for kernel, mask in zip(kernels, masks, strict=True)
        ]
    )
