"""Turns what only Keras 2 can load into an .h5 file, in a process with tf_keras.

Keras 3 reads no SavedModel folders and does not know the wrappers of
tensorflow-model-optimization. tf_keras, which that package brings, does; but it and
Keras 3 cannot share `tf.keras` in one process. The child process takes the wrappers
off, keeps the trained weights and notes the activation ranges that quantization-aware
training found. This module imports no TensorFlow by itself.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from keras_omv.errors import ExportError, UnsupportedModelError

NamedRanges = dict[str, tuple[float, float]]
"""Activation ranges `(low, high)` by the names of the layers that put them out."""
INPUT = ""
"""The name that stands for the model's input."""
LIMIT_SECONDS = 600.0
"""For the import of TensorFlow and the loading; both take some seconds."""
_NO_LAYERS = 3
"""Exit code of the child where the folder holds functions and no layers."""
_WORDS = 500
"""How much of the child's last error goes into ours."""
_RANGES = (
    ("post_activation_min", "post_activation_max"),
    ("pre_activation_min", "pre_activation_max"),
    ("output_min", "output_max"),
)
"""Variables of tensorflow-model-optimization's QuantizeWrapperV2 (0.8.1,
quantization/keras/quantize_wrapper.py) that hold the range of what a layer puts out."""


def is_saved_model(path: pathlib.Path) -> bool:
    """Whether a path is a folder in TensorFlow's SavedModel format."""
    return (path / "saved_model.pb").is_file()


def to_h5(path: pathlib.Path, target: pathlib.Path) -> NamedRanges:
    """Writes an .h5 file of Keras 2 without wrappers.

    Args:
        path: A SavedModel folder or an .h5 file that Keras 2 wrote.
        target: The .h5 file to write.

    Returns:
        The activation ranges of quantization-aware training; empty where there was
        none.

    Raises:
        UnsupportedModelError: If a SavedModel holds no Keras layers.
        ExportError: If tf_keras cannot load or save the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        noted = pathlib.Path(folder) / "ranges.json"
        done = _run_child(path, target, noted)
        if done.returncode == _NO_LAYERS:
            raise UnsupportedModelError(_without_layers(path))
        if done.returncode:
            raise ExportError(
                f"Expected a model that Keras 2 can load. Received: {str(path)!r}, of "
                f"which tf_keras says: {_last_lines(done.stderr)} Next step: load it "
                "in the environment that made it, take custom layers out and save it "
                "with model.save('model.h5')."
            )
        ranges = json.loads(noted.read_text(encoding="utf-8"))
    return {name: (low, high) for name, (low, high) in ranges.items()}


def _run_child(
    path: pathlib.Path, target: pathlib.Path, noted: pathlib.Path
) -> "subprocess.CompletedProcess[str]":
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = (sys.executable, "-m", __spec__.name, path, target, noted)
    try:
        return subprocess.run(
            [str(part) for part in command],
            env={**os.environ, **quiet, "TF_USE_LEGACY_KERAS": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"Expected tf_keras to load {str(path)!r} within {LIMIT_SECONDS:.0f} "
            "seconds. Received: no answer. Next step: save it as .h5 in the "
            "environment that made it."
        ) from error


def _without_layers(path: pathlib.Path) -> str:
    return (
        "Expected a SavedModel that Keras wrote. Received: "
        f"{str(path)!r}, which holds functions of TensorFlow and no layers, so that "
        "its activation ranges cannot be pinned to the camera's pixels. Next step: "
        f"save the Keras model that it was made from; or convert it with "
        f"tf.lite.TFLiteConverter.from_saved_model({str(path)!r}).convert(), write "
        "the bytes to model.tflite and pass that file."
    )


def _last_lines(text: str) -> str:
    """The error at the end of a traceback."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if "Error:" in line.split(" ")[0]]
    start = errors[-1] if errors else -1
    return " ".join(lines[start:])[:_WORDS]


def _main(path: str, target: str, noted: str) -> int:
    """What the child process does."""
    model = _load(path)
    if not hasattr(model, "layers"):
        return _NO_LAYERS
    ranges = _trained_ranges(model)
    _unwrapped(model).save(target, save_format="h5", include_optimizer=False)
    pathlib.Path(noted).write_text(json.dumps(ranges), encoding="utf-8")
    return 0


def _load(path: str) -> Any:
    import tensorflow_model_optimization as tfmot
    import tf_keras

    with tfmot.quantization.keras.quantize_scope(), tfmot.sparsity.keras.prune_scope():
        return tf_keras.models.load_model(path, compile=False)


def _trained_ranges(model: Any) -> NamedRanges:
    """Ranges by the layers' names as they are without their wrappers."""
    ranges: NamedRanges = {}
    for layer in model.layers:
        values = {_last_name(weight): weight for weight in layer.weights}
        for low, high in (*_RANGES, (f"{layer.name}_min", f"{layer.name}_max")):
            if low in values and values[low].shape.rank == 0:
                name = layer.layer.name if hasattr(layer, "layer") else INPUT
                ranges[name] = (float(values[low]), float(values[high]))
    return ranges


def _unwrapped(model: Any) -> Any:
    import tensorflow_model_optimization as tfmot
    import tf_keras

    if not any(_is_quantizer(layer) for layer in model.layers):
        return tfmot.sparsity.keras.strip_pruning(model)
    plain = tf_keras.models.clone_model(model, clone_function=_plain_layer)
    for layer, copy in zip(model.layers, plain.layers, strict=True):
        values = {_last_name(weight): weight.numpy() for weight in layer.weights}
        copy.set_weights([values[_last_name(weight)] for weight in copy.weights])
    return plain


def _plain_layer(layer: Any) -> Any:
    import tf_keras

    if type(layer).__name__ == "QuantizeLayer":
        # One that changes nothing, and joins a rescaling behind it.
        return tf_keras.layers.Rescaling(1.0, name=layer.name)
    if not hasattr(layer, "quantize_config"):
        return type(layer).from_config(layer.get_config())
    config = layer.layer.get_config()
    while isinstance(activation := config.get("activation"), dict):
        config["activation"] = activation["config"].get("activation", "linear")
    return type(layer.layer).from_config(config)


def _is_quantizer(layer: Any) -> bool:
    return hasattr(layer, "quantize_config") or type(layer).__name__ == "QuantizeLayer"


def _last_name(weight: Any) -> str:
    return str(weight.name).rsplit("/", 1)[-1].removesuffix(":0")


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
