"""Which channels of a trained MobileNetV2 matter, and what the others pass on.

Batch normalization gives a channel the mean `beta` and the standard deviation
`|gamma|`; taken as a normal distribution through ReLU6, they say what a channel passes
on without an image (Nagel et al. 2019, "Data-Free Quantization Through Weight
Equalization and Bias Correction", arXiv:1906.04721). A channel's importance is that
standard deviation times the L1 norm of the weights that read it: the size of `gamma`
(Liu et al. 2017, "Network Slimming", arXiv:1708.06519) and of kernels (Li et al. 2016,
"Pruning Filters for Efficient ConvNets", arXiv:1608.08710), as the camera computes
with them.
"""

import dataclasses
import statistics
from typing import Any, NamedTuple

import numpy as np

from keras_omv.architecture import Block, Levers

_MARKS = {"stem", "block_0_depthwise", "block_0_project", "head", "scores"}

# Equally likely values of a normal distribution, enough for two digits.
_STEPS = 64
_NORMAL = np.array(
    [statistics.NormalDist().inv_cdf((k + 0.5) / _STEPS) for k in range(_STEPS)]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Widths:
    """The channels of a MobileNetV2.

    Attributes:
        stem: Channels of the first convolution.
        blocks: Its inverted residuals.
        head: Channels of the last convolution.
    """

    stem: int
    blocks: tuple[Block, ...]
    head: int

    def covers(self, other: "Widths") -> bool:
        """Whether another has no more blocks, and no more channels anywhere."""
        return (
            self.stem >= other.stem
            and self.head >= other.head
            and len(self.blocks) >= len(other.blocks)
            and all(
                mine.expanded >= its.expanded and mine.outputs >= its.outputs
                for mine, its in zip(self.blocks, other.blocks, strict=False)
            )
        )

    @property
    def streams(self) -> tuple[int, ...]:
        """The stream of the stem's output and of each block's, counted from 0.

        Outputs that are added to each other are one stream.
        """
        streams = [0]
        for block in self.blocks:
            streams.append(streams[-1] + (not block.is_residual))
        return tuple(streams)


def widths_of(network: Any) -> Widths:
    """The channels of a MobileNetV2.

    Args:
        network: `Levers` or an `omv.MobileNetV2`.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(network, Levers):
        return Widths(network.stem, network.blocks, network.head)
    layers = {layer.name: layer for layer in getattr(network, "layers", ())}
    if not layers.keys() >= _MARKS:
        raise ValueError(
            "Expected a model that omv.MobileNetV2 made, or Levers. Received: "
            f"{getattr(network, 'name', network)!r}. A model of "
            "keras.applications.MobileNetV2 is converted by `source_of`."
        )
    blocks: list[Block] = []
    channels = layers["stem"].filters
    while f"block_{len(blocks)}_project" in layers:
        depthwise = layers[f"block_{len(blocks)}_depthwise"]
        outputs = layers[f"block_{len(blocks)}_project"].filters
        expanded, stride = depthwise.kernel.shape[2], depthwise.strides[0]
        blocks.append(Block(channels, expanded, outputs, stride))
        channels = outputs
    return Widths(layers["stem"].filters, tuple(blocks), layers["head"].filters)


class Moments(NamedTuple):
    """What channels pass on over all images, each of shape `(channels,)`."""

    mean: np.ndarray
    variance: np.ndarray


def clipped(moments: Moments, low: float, high: float) -> Moments:
    """What normally distributed values pass on through a clip, such as ReLU6's."""
    deviation = np.sqrt(moments.variance)
    values = np.clip(np.outer(_NORMAL, deviation) + moments.mean, low, high)
    return Moments(values.mean(axis=0), values.var(axis=0))


def normalized_moments(norm: Any) -> Moments:
    """What a `BatchNormalization` puts out."""
    size = norm.moving_mean.shape[0]
    beta = np.zeros(size) if norm.beta is None else np.asarray(norm.beta)
    gamma = np.ones(size) if norm.gamma is None else np.asarray(norm.gamma)
    return Moments(beta, gamma**2)


def gain_of(norm: Any) -> np.ndarray:
    """By how much a `BatchNormalization` multiplies each channel, without its sign."""
    deviation = np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    gamma = np.float32(1.0) if norm.gamma is None else np.abs(np.asarray(norm.gamma))
    gain: np.ndarray = gamma / deviation
    return gain


class TrainedChannels:
    """The channels of a trained `omv.MobileNetV2`.

    Args:
        model: The model.
        widths: Its channels.
    """

    def __init__(self, model: Any, widths: Widths) -> None:
        self._model = model
        self._streams = widths.streams
        self._writers = ["stem"] + [
            f"block_{index}_project" for index in range(len(widths.blocks))
        ]

    def stream_order(self, point: int) -> np.ndarray:
        """Channels of an output, the most important of its stream first.

        Args:
            point: 0 for the stem's output, `i + 1` for that of block `i`.
        """
        points = [p for p, s in enumerate(self._streams) if s == self._streams[point]]
        reads = np.sum([self._reads_of_point(p) for p in points], axis=0)
        return _descending(self.stream_moments(points[-1]), reads)

    def expanded_order(self, index: int) -> np.ndarray:
        """Channels of a block's depthwise convolution, the most important first."""
        name = f"block_{index}"
        reads = self._reads(f"{name}_project")
        return _descending(self.rectified_moments(f"{name}_depthwise"), reads)

    def head_order(self) -> np.ndarray:
        """Channels of the last convolution, the most important first."""
        classifier = np.abs(self._kernel("scores"))
        reads = classifier.sum(axis=1) if classifier.any() else np.ones(len(classifier))
        return _descending(self.rectified_moments("head"), reads)

    def stream_moments(self, point: int) -> Moments:
        """Of an output, see `stream_order`: summands are taken as independent."""
        parts = [
            self._linear_moments(writer) if p else self.rectified_moments(writer)
            for p, writer in enumerate(self._writers[: point + 1])
            if self._streams[p] == self._streams[point]
        ]
        means, variances = zip(*parts, strict=True)
        return Moments(np.sum(means, axis=0), np.sum(variances, axis=0))

    def rectified_moments(self, name: str) -> Moments:
        """After the ReLU6 of a convolution."""
        return clipped(self._linear_moments(name), 0.0, 6.0)

    def _linear_moments(self, name: str) -> Moments:
        return normalized_moments(self._model.get_layer(f"{name}_bn"))

    def _reads_of_point(self, point: int) -> np.ndarray:
        if point == len(self._streams) - 1:
            return self._reads("head")
        if point:
            return self._reads(f"block_{point}_expand")
        # The first block does not expand.
        first, second = "block_0_depthwise", "block_0_project"
        reads: np.ndarray = self._reads(first) * self._reads(second)
        return reads

    def _reads(self, name: str) -> np.ndarray:
        """The L1 norm of what a convolution does with each of its inputs."""
        gain = gain_of(self._model.get_layer(f"{name}_bn"))
        kernel = np.abs(self._kernel(name))
        if name.endswith("_depthwise"):
            gain = gain[:, None]
        reads: np.ndarray = (kernel * gain).sum(axis=(0, 1, 3))
        return reads

    def _kernel(self, name: str) -> np.ndarray:
        return np.asarray(self._model.get_layer(name).kernel)


def _descending(moments: Moments, reads: np.ndarray) -> np.ndarray:
    importance = np.sqrt(moments.variance) * reads
    return np.argsort(-importance, kind="stable")
