"""tfmot as qat.py sees it: a process with Keras 2, and its files in TFLM."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_omv import sandbox

BASELINE = pathlib.Path(__file__).with_name("tfmot_baseline.py")
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "InputLayer": ("name",),
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "use_bias"),
    "DepthwiseConv2D": ("kernel_size", "strides", "padding", "use_bias"),
    "BatchNormalization": ("momentum", "epsilon"),
    "ReLU": ("max_value",),
    "Add": (),
    "GlobalAveragePooling2D": (),
    "Dense": ("units", "activation"),
}
"""The layers that can be taken to Keras 2, with the arguments that MobileNetV2 sets."""
CHUNK_IMAGES = 50


class Rival:
    """A process of `tfmot_baseline.py`, and a folder for arrays that it shares.

    Use as a context manager; requests are its methods' names there.
    """

    def __enter__(self) -> "Rival":
        self._stack = contextlib.ExitStack()
        self._folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._said = self._stack.enter_context(open(self.path("said.txt"), "w+"))
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(BASELINE)],
            env={**os.environ, **quiet},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._stack.close()

    def path(self, name: str) -> str:
        """A path in the shared folder."""
        return str(pathlib.Path(self._folder, name))

    def share(self, name: str, array: np.ndarray) -> str:
        """Writes an array for the process; returns its path."""
        np.save(self.path(f"{name}.npy"), array)
        return self.path(f"{name}.npy")

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            RuntimeError: If the process died of it, with its last words.
        """
        print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            said = pathlib.Path(self.path("said.txt")).read_text()[-2000:]
            raise RuntimeError(f"tfmot's process died of {do!r}: {said}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def load(self, model: Any) -> None:
        """Rebuilds a Keras 3 model there, with its weights."""
        weights = self.path("weights.npz")
        save_weights(model, weights)
        self.ask("load", layers=plain_layers(model), weights=weights)

    def scores(self, model: str, images: np.ndarray) -> np.ndarray:
        """What a model there answers to images, `(n, classes)`."""
        path = self.path("scores.npy")
        self.ask("predict", model=model, images=self.share("x", images), scores=path)
        return np.asarray(np.load(path))


def plain_layers(model: Any) -> list[dict[str, Any]]:
    """A model's layers as data: class, name, arguments and the names of its inputs.

    Raises:
        KeyError: For a layer that is not in `ARGUMENTS`.
    """
    found = []
    for layer in model.get_config()["layers"]:
        config, kind = layer["config"], layer["class_name"]
        arguments = {name: config[name] for name in ARGUMENTS[kind]}
        if kind == "InputLayer":
            arguments["shape"] = config["batch_shape"][1:]
        inputs = [*_sources(layer["inbound_nodes"])]
        found.append(
            {
                "class_name": kind,
                "name": layer["name"],
                "arguments": arguments,
                "inputs": inputs,
            }
        )
    return found


def _sources(config: Any) -> Iterator[str]:
    """The layers whose tensors a layer's saved arguments name."""
    if isinstance(config, dict) and "keras_history" in config:
        yield config["keras_history"][0]
        return
    parts = config.values() if isinstance(config, dict) else config
    if isinstance(parts, list | tuple) or isinstance(config, dict):
        for part in parts:
            yield from _sources(part)


def save_weights(model: Any, path: str) -> None:
    """Writes a model's weights by layer and place, to an .npz file."""
    arrays = {
        f"{layer.name}/{place}": array
        for layer in model.layers
        for place, array in enumerate(layer.get_weights())
    }
    np.savez(path, **arrays)


def device_classes(
    file: bytes, images: np.ndarray, *, scale: float, zero_point: int
) -> np.ndarray:
    """The classes that TFLM gives to images, `(n,)`.

    Args:
        file: An int8 .tflite file.
        images: Float values as they enter the model, `(n, height, width, channels)`.
        scale: Of the file's input: nothing keeps tfmot's to what pixels can be, so
            each file gets images rounded to its own grid.
        zero_point: Of the file's input.
    """
    steps = np.round(images / scale) + zero_point
    inputs = np.clip(steps, -128, 127).astype("int8")[:, None]
    starts = range(0, len(inputs), CHUNK_IMAGES)
    jobs = [sandbox.Job(file, (inputs[s : s + CHUNK_IMAGES],)) for s in starts]
    answers = sandbox.run(jobs, runtime="tflm", processes=os.cpu_count() or 1)
    failures = {answer.failure for answer in answers} - {""}
    if failures:
        raise RuntimeError(f"TFLM does not run the file: {failures}")
    scores = np.concatenate([answer.outputs[0][:, 0] for answer in answers])
    return np.asarray(scores.argmax(axis=1))
