"""Starts a MobileNetV2 from the weights of a wider or deeper one.

A layer that is narrower keeps its most important channels (`keras_omv.importance`).
What the others passed on to the next convolution leaves its batch normalization's
mean and variance too, so that the normalized values stay what they were.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_omv.architecture import Block
from keras_omv.importance import Moments, TrainedChannels, Widths, widths_of


@dataclasses.dataclass(frozen=True, slots=True)
class Carried:
    """What `narrow` did with each layer of the target that has weights.

    Attributes:
        whole: Names of the layers that were copied as they are.
        sliced: Names of those that were copied in part, or for other colours.
        initialised: Names of those that were left as they were.
    """

    whole: tuple[str, ...]
    sliced: tuple[str, ...]
    initialised: tuple[str, ...]


def can_narrow(source: Any, target: Any) -> bool:
    """Whether `narrow` can start the target from the source.

    Args:
        source: `Levers` or an `omv.MobileNetV2`.
        target: `Levers` or an `omv.MobileNetV2`.

    Returns:
        Whether the target has no more blocks than the source, and no more channels
        in any layer. Resolution, colours and classes do not matter.

    Raises:
        ValueError: If one is neither.

    Example:

    >>> from keras_omv import Levers
    >>> wide = Levers(alpha=0.5, resolution=96, classes=5)
    >>> can_narrow(wide, Levers(alpha=0.35, resolution=128, channels=1, classes=2))
    True
    """
    return widths_of(source).covers(widths_of(target))


def narrow(source: Any, target: Any) -> Carried:
    """Gives a MobileNetV2 the most important weights of a wider or deeper one.

    The blocks of the target are the first blocks of the source. The resolutions may
    differ, and the colours: one grey channel takes the sum of the stem's three
    kernels, which answers as the source does to the grey image in all three channels;
    three channels take a third of a grey kernel each.

    Left as they were are the last convolution, if the target ends in another stage
    than the source, whose last convolution reads channels that the target lacks; and
    the classifier with it, or for another number of classes, or if the source's is
    all zeros (it has none). Where a block of the target adds its input to its output
    and that of the source does not, or the other way round, the weights are carried
    but the function is another.

    Args:
        source: A trained `omv.MobileNetV2`.
        target: An `omv.MobileNetV2` to change in place. If it has the widths, depth,
            colours and classes of the source, it gets its weights as they are.

    Returns:
        What was carried.

    Raises:
        ValueError: If one is not an `omv.MobileNetV2`, or the source lacks blocks or
            channels of the target. The target is unchanged then.

    Example:

    >>> import keras_omv as omv
    >>> wide = omv.MobileNetV2((96, 96, 3), classes=5, alpha=0.5)
    >>> thin = omv.MobileNetV2((64, 64, 3), classes=2, alpha=0.35)
    >>> narrow(wide, thin).initialised
    ('scores',)
    """
    wide, thin = widths_of(source), widths_of(target)
    if not wide.covers(thin):
        raise ValueError(
            "Expected a source with all blocks and channels of the target. Received: "
            f"source {source.name!r} of {wide}, target {target.name!r} of {thin}. "
            "Take a wider source; `can_narrow` says beforehand."
        )
    return _Carrier(source, target, wide, thin).carry()


class _Carrier:
    """Copies layer by layer and notes what it copied."""

    def __init__(self, source: Any, target: Any, wide: Widths, thin: Widths) -> None:
        self._source, self._target = source, target
        self._wide, self._thin = wide, thin
        self._channels = TrainedChannels(source, wide)
        self._whole: list[str] = []
        self._sliced: list[str] = []

    def carry(self) -> Carried:
        stream = self._stem()
        for index, block in enumerate(self._thin.blocks):
            stream = self._block(index, block, stream)
        streams, depth = self._wide.streams, len(self._thin.blocks)
        if streams[depth] == streams[-1]:
            self._head(stream)
        done = {*self._whole, *self._sliced}
        left = [x.name for x in self._target.layers if x.weights and x.name not in done]
        return Carried(tuple(self._whole), tuple(self._sliced), tuple(left))

    def _stem(self) -> np.ndarray:
        outputs = _kept(self._channels.stream_order(0), self._thin.stem)
        (kernel,) = self._weights("stem")
        kernel = _recolour(kernel, self._target.input_shape[-1])
        self._put("stem", kernel[..., outputs])
        self._norm("stem", outputs)
        return outputs

    def _block(self, index: int, block: Block, inputs: np.ndarray) -> np.ndarray:
        name, channels = f"block_{index}", self._channels
        expanded = inputs
        if index:
            expanded = _kept(channels.expanded_order(index), block.expanded)
            moments = channels.stream_moments(index)
            self._pointwise(f"{name}_expand", inputs, expanded, moments)
        (kernel,) = self._weights(f"{name}_depthwise")
        self._put(f"{name}_depthwise", kernel[:, :, expanded])
        self._norm(f"{name}_depthwise", expanded)
        outputs = _kept(channels.stream_order(index + 1), block.outputs)
        moments = channels.rectified_moments(f"{name}_depthwise")
        self._pointwise(f"{name}_project", expanded, outputs, moments)
        return outputs

    def _head(self, inputs: np.ndarray) -> None:
        outputs = _kept(self._channels.head_order(), self._thin.head)
        moments = self._channels.stream_moments(len(self._thin.blocks))
        self._pointwise("head", inputs, outputs, moments)
        kernel, bias = self._weights("scores")
        if kernel.any() and bias.size == self._target.output_shape[-1]:
            mean = self._channels.rectified_moments("head").mean
            self._put("scores", kernel[outputs], bias + _lost(mean, outputs, kernel))

    def _pointwise(
        self, name: str, inputs: np.ndarray, outputs: np.ndarray, moments: Moments
    ) -> None:
        (kernel,) = self._weights(name)
        self._put(name, kernel[:, :, inputs][..., outputs])
        weights = kernel[0, 0]
        lost = _lost(moments.mean, inputs, weights)
        share = _share(moments.variance, inputs, weights)
        self._norm(name, outputs, lost, share)

    def _norm(
        self, name: str, channels: np.ndarray, lost: Any = 0.0, share: Any = 1.0
    ) -> None:
        gamma, beta, mean, variance = self._weights(f"{name}_bn")
        weights = gamma, beta, mean - lost, variance * share
        self._put(f"{name}_bn", *(w[channels] for w in weights))

    def _put(self, name: str, *weights: np.ndarray) -> None:
        self._target.get_layer(name).set_weights(list(weights))
        is_whole = weights[0].shape == self._weights(name)[0].shape
        (self._whole if is_whole else self._sliced).append(name)

    def _weights(self, name: str) -> list[np.ndarray]:
        weights: list[np.ndarray] = self._source.get_layer(name).get_weights()
        return weights


def _kept(order: np.ndarray, count: int) -> np.ndarray:
    """The first so many, in the order in which the layer has them."""
    return np.sort(order[:count])


def _lost(mean: np.ndarray, kept: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What the inputs that go added to the mean of each output."""
    gone = np.setdiff1d(np.arange(len(mean)), kept)
    lost: np.ndarray = mean[gone] @ weights[gone]
    return lost


def _share(variance: np.ndarray, kept: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Which part of each output's variance the inputs that stay make.

    Of inputs that are taken as independent. 1 where nothing varies.
    """
    if len(kept) == len(variance):
        return np.ones(weights.shape[1])
    part, total = variance[kept] @ weights[kept] ** 2, variance @ weights**2
    share: np.ndarray = np.divide(part, total, out=np.ones_like(part), where=total > 0)
    return share


def _recolour(kernel: np.ndarray, colours: int) -> np.ndarray:
    """A stem's kernel `(height, width, colours, filters)` for other colours."""
    if kernel.shape[2] == colours:
        return kernel
    if colours == 1:
        grey: np.ndarray = kernel.sum(axis=2, keepdims=True)
        return grey
    return np.repeat(kernel / colours, colours, axis=2)
