"""Proves a network: the firmware's rules, and its answers on real images."""

import dataclasses
import importlib.util
import logging
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from keras_omv import flatbuffer
from keras_omv.errors import ExportError
from keras_omv.firmware import firmware_problems
from keras_omv.network import Network, Tensor

_LOGGER = logging.getLogger(__name__)
TFLM = "tflite_micro"
LITERT = "LiteRT reference kernels"


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


def check_network(network: Network) -> None:
    """Checks the rules that every firmware release from 4.5.6 on has.

    Raises:
        ExportError: With every violation: operators that the firmware lacks, tensors
            that are not int8, dense layers quantized per channel, an input that
            camera pixels do not fit.
    """
    problems = [*firmware_problems(network)]
    problems += [problem for t in network.tensors for problem in _tensor_problems(t)]
    if network.input.shape[-1] not in (1, 3) or len(network.input.shape) != 4:
        problems.append(f"input of shape {network.input.shape}, not (1, h, w, 1 or 3)")
    if problems:
        raise ExportError(
            "Expected an int8 network that the camera's firmware loads. Received: "
            + "; ".join(problems)
            + ". Export the Keras model again with omv.export."
        )


def run_network(network: Network, images: np.ndarray) -> Scores:
    """Runs a network on camera images, in TFLM where it is installed.

    Args:
        network: An int8 network.
        images: Uint8 pixels of shape `(n, height, width, channels)`.

    Returns:
        The int8 scores, and what computed them.

    Raises:
        ExportError: If TFLM refuses or aborts on the network.
    """
    inputs = (images.astype("int16") - 128).astype("int8")
    if importlib.util.find_spec("tflite_micro") is not None:
        return Scores(_run_tflm(flatbuffer.write(network), inputs), TFLM)
    return run_reference(network, images)


def run_reference(network: Network, images: np.ndarray) -> Scores:
    """Runs a network with LiteRT's reference kernels, in this process.

    Args:
        network: An int8 network.
        images: Uint8 pixels of shape `(n, height, width, channels)`.
    """
    from ai_edge_litert import interpreter as litert

    interpreter = litert.Interpreter(
        model_content=flatbuffer.write(network, desktop=True),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    scores: list[Any] = []
    for image in (images.astype("int16") - 128).astype("int8"):
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        scores.append(interpreter.get_tensor(target)[0].copy())
    return Scores(np.stack(scores), LITERT)


def _run_tflm(model: bytes, inputs: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder, name) for name in ("m", "in.npy", "out.npy")]
        paths[0].write_bytes(model)
        np.save(paths[1], inputs)
        command = [sys.executable, "-m", "keras_omv.tflm", *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ExportError(
                "Expected TFLM to run the network. Received: it stopped with exit "
                f"code {done.returncode}: {_last_words(done.stderr)} The camera "
                "would reject the model or hang."
            )
        return np.asarray(np.load(paths[2]))


def _last_words(text: str) -> str:
    return text.strip()[-500:] or "it aborted without a message."


def _tensor_problems(tensor: Tensor) -> list[str]:
    if tensor.dtype == "int32" and tensor.is_constant:
        return []
    if tensor.dtype != "int8":
        return [f"tensor {tensor.name!r} of {tensor.dtype}"]
    if not tensor.scales.size or not np.all(tensor.scales > 0):
        return [f"tensor {tensor.name!r} without a positive scale"]
    return []
