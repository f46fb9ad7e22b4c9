"""How often a network is right on the camera's own arithmetic, and where it is not.

The network runs in TFLM (`keras_omv.verify`) on held-out images: as they are, and
with the colours that the camera's firmware keeps (`keras_omv.camera`). This module
imports no TensorFlow, so that a report can be checked without it.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from keras_omv import camera, verify
from keras_omv.errors import DatasetError
from keras_omv.evaluation_data import check_labels
from keras_omv.network import Network
from keras_omv.sampling import spread_places
from keras_omv.verify import Scores

CAMERA_IMAGES = 500
"""How many images are also measured as the camera sees them: each one more takes TFLM
about 30 ms at alpha 0.35 and 96 px. They are drawn from all of the data."""
WANTED_AGREEMENT = 0.99
WANTED_GAP = 0.003
"""What the quantized view promises: the share of images to which view and device give
the same class, and the accuracy that may lie between them."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CameraAccuracy:
    """Top-1 accuracy of images as the firmware stores them.

    The images have the network's resolution already, so that only RGB565 is modelled;
    cutting and scaling are those of whoever loaded them. Grey images stay as they are.

    Attributes:
        images: How many images were measured, drawn from all of the data.
        int8: Share that the network gets right as the camera sees them.
        int8_clean: Share of the same images that it gets right as they are.
    """

    images: int
    int8: float
    int8_clean: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAccuracy:
    """Top-1 accuracy of the exported network on the device's arithmetic.

    Attributes:
        images: How many images were measured.
        int8: Share that the network gets right.
        runtime: What ran it: `verify.TFLM` equals the camera bit for bit.
        confusion: A row for each true class, a column for each predicted one: the
            number of images.
        camera: The same as the camera sees the images.
        scores_sha256: Of the int8 scores, row by row.
        data_sha256: Of the uint8 pixels, then of the int64 labels, little-endian.
    """

    images: int
    int8: float
    runtime: str
    confusion: tuple[tuple[int, ...], ...]
    camera: CameraAccuracy
    scores_sha256: str
    data_sha256: str

    @property
    def recall(self) -> tuple[float | None, ...]:
        """The share of each class that is found; `None` for one without images."""
        return tuple(
            row[index] / sum(row) if sum(row) else None
            for index, row in enumerate(self.confusion)
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy(DeviceAccuracy):
    """Top-1 accuracy of three computations on the same images, as shares.

    Attributes:
        float32: Of the Keras model.
        fake_quantized: Of the quantized view: the camera's integers, computed in
            TensorFlow.
        agreement: Share of images to which view and device give the same class.
    """

    float32: float
    fake_quantized: float
    agreement: float

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for what is not as it should be; empty where all is well."""
        gap = abs(self.int8 - self.fake_quantized)
        found = []
        if self.agreement < WANTED_AGREEMENT:
            found.append(
                f"View and device agree on {self.agreement:.1%} of the images; at "
                f"least {WANTED_AGREEMENT:.0%} is expected."
            )
        if gap > WANTED_GAP:
            found.append(
                f"The accuracies of view and device are {100 * gap:.1f} points apart; "
                f"at most {100 * WANTED_GAP:.1f} are expected."
            )
        if self.runtime != verify.TFLM:
            found.append(
                f"Measured with {self.runtime}, which may differ from the camera by a "
                "step: install the tflite-micro wheel (Linux, x86-64)."
            )
        return tuple(found)


@dataclasses.dataclass(frozen=True, slots=True)
class Mistake:
    """One image that the network takes for something else.

    Attributes:
        index: Its position in the evaluation data.
        label: The true class.
        predicted: What the network says.
        confidence: The probability that the network gives for it.
        pixels: The image, `(height, width, channels)` uint8.
    """

    index: int
    label: int
    predicted: int
    confidence: float
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class DeviceRun:
    """A network's answers to labelled images.

    Attributes:
        network: The network.
        pixels: Images as the camera has them, `(n, height, width, channels)` uint8.
        labels: Class numbers, `(n,)` int64.
        scores: The int8 scores and what computed them.
    """

    network: Network
    pixels: np.ndarray
    labels: np.ndarray
    scores: Scores

    @property
    def is_right(self) -> np.ndarray:
        """Whether each image's class was found, `(n,)` bool."""
        return np.asarray(self.scores.classes == self.labels)

    @property
    def accuracy(self) -> float:
        """The share of images whose class was found."""
        return float(np.mean(self.is_right))

    def worst_mistakes(self, limit: int) -> tuple[Mistake, ...]:
        """The wrong answers that the network is most sure of, the surest first."""
        predicted, confidence = self.scores.classes, _confidences(self.scores.values)
        wrong = np.flatnonzero(~self.is_right)
        order = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
        return tuple(
            Mistake(
                int(index),
                int(self.labels[index]),
                int(predicted[index]),
                float(confidence[index]),
                self.pixels[index],
            )
            for index in order
        )


def run_device(network: Network, pixels: np.ndarray, labels: np.ndarray) -> DeviceRun:
    """Runs labelled images through a network, in TFLM where it is installed.

    Args:
        network: The int8 network.
        pixels: Uint8 images of shape `(n, height, width, channels)`.
        labels: Class numbers of shape `(n,)`.

    Raises:
        DatasetError: If the images or the labels do not fit the network.
        ExportError: If TFLM refuses or aborts on the network.
    """
    if pixels.shape[1:] != network.input.shape[1:]:
        raise DatasetError(
            f"Expected images of shape (n, {_dims(network.input.shape[1:])}). "
            f"Received: ({_dims(pixels.shape)}). Resize them to the model's input."
        )
    check_labels(labels, class_count(network))
    return DeviceRun(network, pixels, labels, verify.run_network(network, pixels))


def measure_device(run: DeviceRun) -> DeviceAccuracy:
    """What a run says about a network, with a second run through the camera's eyes.

    Args:
        run: From `run_device`.
    """
    values = run.scores.values
    return DeviceAccuracy(
        images=len(run.labels),
        int8=run.accuracy,
        runtime=run.scores.runtime,
        confusion=_confusion(run),
        camera=_measure_camera(run),
        scores_sha256=hashlib.sha256(values.astype("int8").tobytes()).hexdigest(),
        data_sha256=_data_sha256(run.pixels, run.labels),
    )


def class_count(network: Network) -> int:
    """How many classes a network tells apart; one sigmoid stands for two."""
    return max(2, int(network.output.shape[-1]))


def _confusion(run: DeviceRun) -> tuple[tuple[int, ...], ...]:
    classes = class_count(run.network)
    counts = np.zeros((classes, classes), "int64")
    np.add.at(counts, (run.labels, run.scores.classes), 1)
    return tuple(tuple(row) for row in counts.tolist())


def _measure_camera(run: DeviceRun) -> CameraAccuracy:
    chosen = spread_places(len(run.labels), CAMERA_IMAGES)
    count = len(chosen)
    height, width = run.pixels.shape[1:3]
    seen = camera.see(run.pixels[chosen], (height, width))
    clean = float(np.mean(run.is_right[chosen]))
    if np.array_equal(seen, run.pixels[chosen]):  # as all grey images
        return CameraAccuracy(images=count, int8=clean, int8_clean=clean)
    scores = verify.run_network(run.network, seen)
    right = float(np.mean(scores.classes == run.labels[chosen]))
    return CameraAccuracy(images=count, int8=right, int8_clean=clean)


def _confidences(values: np.ndarray) -> np.ndarray:
    """The probability of the predicted class; scores are (p - 128) / 256 in int8."""
    shares = (values.astype("float64") + 128) / 256
    if shares.shape[1] == 1:
        return np.asarray(np.maximum(shares[:, 0], 1 - shares[:, 0]))
    return np.asarray(shares.max(axis=1))


def _data_sha256(pixels: np.ndarray, labels: np.ndarray) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes())
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _dims(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
