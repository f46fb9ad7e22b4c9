"""Loads .h5 models that Keras 2 wrote.

Keras 3 reads their format but stumbles over settings that Keras 2 wrote along and
Keras 3 does not know. The settings are taken out of a copy of the file; they had no
effect, or have the same effect under another spelling.
"""

import json
import pathlib
import shutil
import tempfile
from typing import Any

import h5py
import keras

# Written by Keras 2 for every layer of the class, always with these layers' only
# possible value; unknown to Keras 3.
_UNKNOWN = {
    "DepthwiseConv2D": ("groups",),
    "SeparableConv2D": (
        "groups",
        "kernel_initializer",
        "kernel_regularizer",
        "kernel_constraint",
    ),
}


def load_h5(path: pathlib.Path) -> Any:
    """Loads an .h5 model for inference, whichever Keras wrote it.

    Args:
        path: The file.
    """
    with h5py.File(path) as file:
        is_legacy = not str(file.attrs.get("keras_version", "3")).startswith("3")
    if not is_legacy:
        return keras.models.load_model(path, compile=False)
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(shutil.copy(path, folder))
        with h5py.File(copy, "r+") as file:
            config = _mend(json.loads(file.attrs["model_config"]))
            file.attrs["model_config"] = json.dumps(config).encode()
        return keras.models.load_model(copy, compile=False)


def _mend(node: Any) -> Any:
    """A model's configuration as Keras 3 would have written it."""
    if isinstance(node, list):
        return [_mend(part) for part in node]
    if not isinstance(node, dict):
        return node
    node = {key: _mend(part) for key, part in node.items()}
    config = node.get("config")
    if str(node.get("module", "")).startswith("tf_keras"):
        del node["module"]
        node.pop("registered_name", None)
    if isinstance(config, dict):
        for key in _UNKNOWN.get(node.get("class_name", ""), ()):
            config.pop(key, None)
        if node.get("class_name") == "BatchNormalization":
            config["axis"] = _single(config.get("axis", -1))
    return node


def _single(axis: Any) -> Any:
    return axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
