"""Runs networks as the camera does, in processes that may die of them."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from keras_omv import flatbuffer, sandbox
from keras_omv.boards import Board, Budget
from keras_omv.errors import ExportError
from keras_omv.frames import as_inputs
from keras_omv.network import Network
from keras_omv.progress import working
from keras_omv.rules import network_violations

TFLM = "tflite_micro"
LITERT = "LiteRT reference kernels"
_CHUNK_IMAGES = 8
"""Few enough for the time limit of a job, which they share."""
RUNTIMES: dict[str, sandbox.Runtime] = {TFLM: "tflm", LITERT: "litert"}
"""What the sandbox calls them."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a network answered.

    Attributes:
        values: Int8 scores of shape `(n, classes)`.
        runtime: What computed them: `TFLM`, which equals the camera bit for bit, or
            `LITERT`, whose dense layers round about 1 % of their outputs one step
            differently.
    """

    values: np.ndarray
    runtime: str

    @property
    def classes(self) -> np.ndarray:
        """The predicted class of each image, as the camera's script chooses it."""
        if self.values.shape[1] == 1:
            return (self.values[:, 0] >= 0).astype("int64")
        return np.asarray(np.argmax(self.values, axis=1))


def check_network(network: Network, *, board: Board | Budget | None = None) -> None:
    """Checks the rules of a camera's firmware.

    Args:
        network: An int8 network.
        board: The camera. Defaults to `None`: any, with firmware 5.0, as for a
            budget.

    Raises:
        ExportError: With every violation and its remedy: operators that the firmware
            lacks, tensors that are not int8, ranges that have collapsed, dense
            layers quantized per channel, an input that is no image.
    """
    if isinstance(board, Board):
        violations = network_violations(
            network, firmware=board.firmware, target=board.target
        )
    else:
        violations = network_violations(network)
    if violations:
        raise ExportError(
            "Expected an int8 network that the camera's firmware runs. Received: "
            + "; ".join(map(str, violations))
        )


def run_network(
    network: Network,
    images: np.ndarray,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Runs a network on camera images, in TFLM where it is installed.

    Args:
        network: An int8 network.
        images: Uint8 pixels of shape `(n, height, width, channels)`.
        progress: Called with the number of images done and of all. Defaults to
            `None`: a bar shows them, see `keras_omv.progress`.

    Returns:
        The int8 scores, and what computed them.

    Raises:
        ExportError: If TFLM refuses or aborts on the network, or hangs.
    """
    if not sandbox.has_tflm():
        return run_reference(network, images, progress=progress)
    return _run(flatbuffer.write(network), images, TFLM, progress)


def run_reference(
    network: Network,
    images: np.ndarray,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Runs a network with LiteRT's reference kernels.

    Args:
        network: An int8 network.
        images: As in `run_network`.
        progress: As there.

    Raises:
        ExportError: If LiteRT refuses or dies of the network.
    """
    return _run(flatbuffer.write(network, desktop=True), images, LITERT, progress)


def _run(
    model: bytes,
    images: np.ndarray,
    runtime: str,
    progress: Callable[[int, int], None] | None,
) -> Scores:
    inputs = as_inputs(images, "int8")[:, None]
    starts = range(0, len(inputs), _CHUNK_IMAGES)
    jobs = [sandbox.Job(model, (inputs[s : s + _CHUNK_IMAGES],)) for s in starts]
    with working(f"Running {len(inputs):,} images in {runtime}") as bar:
        answers = sandbox.run(
            jobs,
            runtime=RUNTIMES[runtime],
            processes=min(os.cpu_count() or 1, -(-len(jobs) // _CHUNK_IMAGES)),
            progress=_in_images(progress or bar, len(inputs)),
            stop_on_failure=True,
        )
    failures = [a.failure for a in answers if a.failure not in ("", sandbox.NOT_RUN)]
    if failures:
        raise ExportError(
            f"Expected {runtime} to run the network. Received: {failures[0]}. The "
            f"camera would reject the model or hang. Next step: keras-omv verify says "
            f"why."
        )
    return Scores(
        np.concatenate([answer.outputs[0][:, 0] for answer in answers]), runtime
    )


def _in_images(
    progress: Callable[[int, int], None], total: int
) -> Callable[[int, int], None]:
    def report(done: int, jobs: int) -> None:
        progress(min(total, done * _CHUNK_IMAGES), total)

    return report
