"""Loads models that Keras 2 wrote: .h5 files and SavedModel folders.

Keras 3 reads the .h5 format but stumbles over settings that Keras 2 wrote along and
Keras 3 does not know, or spells otherwise. They are mended in a copy of the file:
what is taken out had no effect, or has the same effect under another spelling. What
Keras 3 cannot read at all, tf_keras makes such a file of (keras_omv.saved_model).
"""

import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import h5py
import keras

from keras_omv.errors import ExportError, UnsupportedModelError
from keras_omv.saved_model import NamedRanges, is_saved_model, to_h5

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
# Written by the last versions of Keras 2 in nested models; without them a file reads
# as one of the earlier versions.
_LATE_KEYS = ("module", "registered_name", "build_config")
_WRAPPERS = frozenset({"QuantizeLayer", "QuantizeWrapperV2", "PruneLowMagnitude"})
"""Layers of tensorflow-model-optimization."""
_MODELS = frozenset({"Functional", "Model", "Sequential"})
# Scale and offset of TensorFlow's functions with a number y, by their names in models.
_ARITHMETIC: dict[str, Callable[[float], tuple[float, float]]] = {
    "math.truediv": lambda y: (1.0 / y, 0.0),
    "math.multiply": lambda y: (y, 0.0),
    "math.add": lambda y: (1.0, y),
    "__operators__.add": lambda y: (1.0, y),
    "math.subtract": lambda y: (1.0, -y),
}


def load_h5(path: pathlib.Path) -> Any:
    """Loads an .h5 model for inference, whichever Keras wrote it.

    Args:
        path: The file.

    Raises:
        UnsupportedModelError: If it needs code that the file does not hold.
        ExportError: If it holds no model.
    """
    return load_with_ranges(path)[0]


def load_with_ranges(path: pathlib.Path) -> tuple[Any, NamedRanges]:
    """Loads an .h5 file or a SavedModel folder, whichever Keras wrote it.

    Args:
        path: The file or the folder.

    Returns:
        The model, and the activation ranges that tensorflow-model-optimization
        trained, empty where it did not.

    Raises:
        UnsupportedModelError: If it needs code that the file does not hold.
        ExportError: If it holds no model.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "model.h5"
        ranges: NamedRanges = {}
        if is_saved_model(path) or _has_wrappers(path):
            ranges = to_h5(path, copy)
        elif _is_legacy(path):
            shutil.copyfile(path, copy)
        else:
            return keras.models.load_model(path, compile=False), {}
        _mend_file(copy)
        return keras.models.load_model(copy, compile=False), ranges


def _is_legacy(path: pathlib.Path) -> bool:
    with h5py.File(path) as file:
        return not str(file.attrs.get("keras_version", "2")).startswith("3")


def _has_wrappers(path: pathlib.Path) -> bool:
    return not _WRAPPERS.isdisjoint(_layer_classes(_read_config(path)))


def _read_config(path: pathlib.Path) -> Any:
    with h5py.File(path) as file:
        if "model_config" not in file.attrs:
            raise ExportError(
                f"Expected a model. Received: {path.name}, which holds weights alone. "
                "Next step: build the model in code, load them with "
                "model.load_weights and save it with model.save."
            )
        return json.loads(file.attrs["model_config"])


def _layer_classes(node: Any) -> Iterator[str]:
    """The class names of a configuration's layers, those of nested models too."""
    for layer in _layers_of(node):
        yield str(layer.get("class_name"))
        yield from _layer_classes(layer)


def _layers_of(node: Mapping[str, Any]) -> list[Any]:
    config = node.get("config")
    if isinstance(config, list):  # Of a Sequential, before Keras 2.2.3.
        return config
    if node.get("class_name") in _MODELS and isinstance(config, dict):
        return list(config.get("layers", []))
    return []


def _mend_file(path: pathlib.Path) -> None:
    config = _mend(_read_config(path))
    _check_known(config)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(config).encode()


def _check_known(config: Any) -> None:
    """Raises where a layer's code is not in Keras, and so not in the file."""
    names = sorted(set(_layer_classes(config)) - _MODELS)
    unknown = [name for name in names if not _is_known(name)]
    if unknown:
        raise UnsupportedModelError(
            f"Expected Keras' own layers. Received: {', '.join(unknown)}, of which a "
            "file holds the name and no code. Next step: replace these layers; or "
            "register them with keras.saving.register_keras_serializable before the "
            "file is loaded."
        )


def _is_known(name: str) -> bool:
    return hasattr(keras.layers, name) or keras.saving.get_registered_object(name)


def _mend(node: Any) -> Any:
    """A model's configuration as Keras 3 can read it."""
    if isinstance(node, list):
        return [_mend(part) for part in node]
    if not isinstance(node, dict):
        return node
    node = {key: _mend(part) for key, part in node.items()}
    if "class_name" not in node or "config" not in node:
        return node
    for key in _LATE_KEYS:
        node.pop(key, None)
    if node["class_name"] in _MODELS:
        return _mend_model(node)
    return _mend_layer(node) if isinstance(node["config"], dict) else node


def _mend_layer(node: dict[str, Any]) -> dict[str, Any]:
    name, config = node["class_name"], node["config"]
    for key in _UNKNOWN.get(name, ()):
        config.pop(key, None)
    if name == "BatchNormalization":
        config["axis"] = _single(config.get("axis", -1))
    if name == "TFOpLambda":
        return _mend_arithmetic(node)
    return node


def _mend_model(node: dict[str, Any]) -> dict[str, Any]:
    config = node["config"]
    if node["class_name"] == "Sequential":
        if isinstance(config, list):
            config = {"name": node.get("name"), "layers": config}
        shape = _input_shape(config["layers"])
        if shape and config["layers"][0]["class_name"] != "InputLayer":
            source = {"class_name": "InputLayer", "config": {"batch_shape": shape}}
            config["layers"].insert(0, source)
        for layer in config["layers"][1:]:
            _forget_shape(layer)
        return {**node, "config": config}
    _renumber_calls(config)
    # Keras 3 takes a list of one for an output of its own kind, which the next layer
    # of a Sequential does not expect.
    for key in ("input_layers", "output_layers"):
        config[key] = _single(config[key])
    return {**node, "class_name": "Functional"}


def _renumber_calls(config: dict[str, Any]) -> None:
    """Counts the calls of nested models from 0.

    Keras 2 counted them from 1, the making of the model being the first. Keras 3
    knows that of the outputs of Functional models alone.
    """
    layers = config["layers"]
    kinds = {layer["name"]: layer["class_name"] for layer in layers}
    calls = [call for layer in layers for call in _calls(layer["inbound_nodes"])]
    for call in calls:
        if kinds.get(call[0]) in _MODELS and call[1] > 0:
            call[1] -= 1
    for call in _calls(config["output_layers"]):
        if kinds.get(call[0]) == "Sequential" and call[1] > 0:
            call[1] -= 1


def _calls(node: Any) -> Iterator[list[Any]]:
    """The [layer, call, output, ...] in a list of them."""
    if not isinstance(node, list):
        return
    if len(node) >= 3 and isinstance(node[0], str):
        yield node
        return
    for part in node:
        yield from _calls(part)


def _input_shape(layers: list[Any]) -> Any:
    """The shape that the first layer of a Sequential has noted, `None` for none."""
    first = layers[0]
    shape = first["config"].get("batch_input_shape", first["config"].get("batch_shape"))
    nested = _layers_of(first)
    return _input_shape(nested) if nested and shape is None else shape


def _forget_shape(layer: dict[str, Any]) -> None:
    if isinstance(layer["config"], dict) and layer["class_name"] != "InputLayer":
        layer["config"].pop("batch_input_shape", None)


def _mend_arithmetic(node: dict[str, Any]) -> dict[str, Any]:
    """A function of TensorFlow with a number, as a Rescaling."""
    calls = node.get("inbound_nodes", [])
    make = _ARITHMETIC.get(node["config"].get("function", ""))
    if make is None or len(calls) != 1 or len(calls[0]) != 4:
        return node
    number = calls[0][3].get("y")
    if not isinstance(number, int | float) or not number:
        return node
    scale, offset = make(float(number))
    return {
        **node,
        "class_name": "Rescaling",
        "config": {"name": node["config"]["name"], "scale": scale, "offset": offset},
        "inbound_nodes": [[[*calls[0][:3], {}]]],
    }


def _single(values: Any) -> Any:
    return values[0] if isinstance(values, list) and len(values) == 1 else values
