"""A Keras 3 model as the flat list of calls it makes, nested models opened up.

The list comes from `get_config()`, which is public and is what Keras itself
rebuilds saved models from, so that no private attribute of a layer is read and
nothing is executed.
"""

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from keras_omv.errors import UnsupportedModelError


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of a layer or operation.

    Attributes:
        name: The operation's name with those of the models it lies in,
            such as `"backbone/conv1"`.
        operation: The user's own layer or Keras operation.
        inputs: Numbers of the values that go in; the model's input is 0.
        output: Number of the value that comes out.
        constants: The call's positional arguments in order, numbers as they are
            and `None` where a value goes in.
    """

    name: str
    operation: Any
    inputs: tuple[int, ...]
    output: int
    constants: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """The class name of the operation."""
        return type(self.operation).__name__


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What a model computes: its calls, from value 0 to `output`.

    Attributes:
        calls: The calls in an order in which they can run.
        input_shape: `(height, width, channels)`.
        output: Number of the value that the model returns.
        output_units: Size of the last dimension of what the model returns.
    """

    calls: tuple[Call, ...]
    input_shape: tuple[int, int, int]
    output: int
    output_units: int


def trace(model: Any) -> Trace:
    """Lists the calls of a Functional or Sequential model.

    Args:
        model: A built Keras 3 model with one image input of shape
            `(batch, height, width, channels)` and one output.

    Returns:
        The calls, with nested models opened up.

    Raises:
        UnsupportedModelError: If the model is subclassed, not built, or has
            several inputs or outputs.
    """
    _check_model(model)
    tracer = _Tracer()
    output = tracer.run(model, 0, prefix="")
    return Trace(
        calls=tuple(tracer.calls),
        input_shape=tuple(model.inputs[0].shape[1:]),
        output=output,
        output_units=model.outputs[0].shape[-1],
    )


def is_graph(model: Any) -> bool:
    """Whether a model is Sequential or Functional, so that it can be listed."""
    if not isinstance(model, keras.Model):
        return False
    caller = next(kind for kind in type(model).__mro__ if "call" in vars(kind))
    if not caller.__module__.startswith("keras."):
        return False
    # keras.Model(inputs, outputs) makes a subclass of keras.Model that is not
    # public; only a model made that way has operations and inputs.
    operations = getattr(model, "operations", None)
    return isinstance(model, keras.Sequential) or bool(operations)


def _config(model: Any) -> dict[str, Any]:
    """The configuration of a Functional model."""
    with warnings.catch_warnings():
        # A lambda in a layer: told here as a layer that is not supported.
        warnings.simplefilter("ignore")
        try:
            config: dict[str, Any] = model.get_config()
        except NotImplementedError as error:
            raise UnsupportedModelError(
                f"Expected Keras' own layers. Received: {_custom_layers(model)}, of "
                "which Keras knows no configuration. Replace or remove them."
            ) from error
    if "input_layers" not in config:
        raise UnsupportedModelError(
            "Expected a model made by keras.Model(inputs, outputs). Received: one of "
            f"the class {type(model).__name__}, which keeps its layers to itself. "
            "Build it as keras.Model(inputs, outputs)."
        )
    return config


def _custom_layers(model: Any) -> str:
    named = (
        f"{operation.name!r} ({type(operation).__name__})"
        for operation in model.operations
        if not type(operation).__module__.startswith("keras.")
    )
    return ", ".join(named)


def _check_model(model: Any) -> None:
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedModelError(
            "Expected Keras to run on the TensorFlow backend. "
            f"Received: backend={keras.backend.backend()!r}. "
            "Set KERAS_BACKEND=tensorflow before importing keras."
        )
    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(
            "Expected a Keras 3 model. "
            f"Received: {type(model).__module__}.{type(model).__name__}. "
            "Models of tf_keras (Keras 2): save as .h5 and load with keras.models."
        )
    if not is_graph(model):
        raise UnsupportedModelError(
            "Expected a Functional or Sequential model, whose layers can be listed. "
            f"Received: the subclassed model {type(model).__name__}. "
            "Build it as keras.Model(inputs, outputs)."
        )
    if not model.built or not model.inputs:
        raise UnsupportedModelError(
            f"Expected a built model. Received: {model.name!r} without an input "
            "shape. Add keras.Input(shape=(height, width, channels)) in front."
        )
    _check_interface(model)


def _check_interface(model: Any) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UnsupportedModelError(
            "Expected one image input and one output of class scores. "
            f"Received: {len(model.inputs)} inputs and {len(model.outputs)} outputs. "
            "The camera's script feeds one image and reads one list of scores."
        )
    shape = tuple(model.inputs[0].shape[1:])
    if len(shape) != 3 or None in shape or shape[-1] not in (1, 3):
        raise UnsupportedModelError(
            "Expected an input of shape (batch, height, width, channels) with a "
            "fixed height and width and 1 (grey) or 3 (RGB) channels. "
            f"Received: (batch, {', '.join(map(str, shape))}). "
            "Rebuild the model with keras.Input(shape=(96, 96, 3)), for example."
        )
    if len(model.outputs[0].shape) != 2:
        raise UnsupportedModelError(
            "Expected an output of shape (batch, classes). "
            f"Received: {tuple(model.outputs[0].shape)}. Add a Flatten or "
            "GlobalAveragePooling2D layer before the classifier."
        )


class _Tracer:
    """Numbers the values of a model while it follows the calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._values = 0

    def run(self, model: Any, source: int, *, prefix: str) -> int:
        if isinstance(model, keras.Sequential):
            return self._run_sequential(model, source, prefix)
        return self._run_functional(model, source, prefix)

    def _run_sequential(self, model: Any, source: int, prefix: str) -> int:
        for layer in model.layers:
            source = self._call(layer, (source,), (None,), prefix)
        return source

    def _run_functional(self, model: Any, source: int, prefix: str) -> int:
        config = _config(model)
        operations = {operation.name: operation for operation in model.operations}
        known = {_only(config["input_layers"], model): source}
        pending = list(_nodes(config))
        while pending:
            waiting = []
            for key, node in pending:
                sources = list(_histories(node["args"]))
                _check_node(node, sources, prefix + key[0])
                if not all(history in known for history in sources):
                    waiting.append((key, node))
                    continue
                values = tuple(known[history] for history in sources)
                known[key] = self._call(
                    operations[key[0]],
                    values,
                    _constants(node["args"]),
                    prefix,
                )
            if len(waiting) == len(pending):
                raise UnsupportedModelError(
                    f"Expected a model that one input leads through. Received: "
                    f"{prefix + waiting[0][0][0]!r} depends on another value."
                )
            pending = waiting
        name, node, tensor = _only(config["output_layers"], model)
        # Keras counts the calls of a nested Functional model from 1 here alone.
        is_known = (name, node, tensor) in known
        return known[name, node if is_known else node - 1, tensor]

    def _call(
        self,
        operation: Any,
        inputs: tuple[int, ...],
        constants: tuple[Any, ...],
        prefix: str,
    ) -> int:
        name = prefix + operation.name
        if is_graph(operation):
            return self.run(operation, inputs[0], prefix=f"{name}/")
        self._values += 1
        call = Call(name, operation, inputs, self._values, constants)
        self.calls.append(call)
        return self._values


def _nodes(config: dict[str, Any]) -> Iterator[tuple[tuple[str, int, int], Any]]:
    for layer in config["layers"]:
        for index, node in enumerate(layer["inbound_nodes"]):
            yield (layer["name"], index, 0), node


def _only(histories: Any, model: Any) -> tuple[str, int, int]:
    """The single (layer name, node, tensor) of a model's inputs or outputs."""
    flat: list[Any] = []
    _flatten_histories(histories, flat)
    if len(flat) != 1:
        raise UnsupportedModelError(
            "Expected nested models to have one input and one output. "
            f"Received: {model.name!r} with {len(flat)}."
        )
    name, node, tensor = flat[0]
    return (name, node, tensor)


def _flatten_histories(item: Any, flat: list[Any]) -> None:
    if isinstance(item, dict):
        item = list(item.values())
    if len(item) == 3 and isinstance(item[0], str):
        flat.append(item)
        return
    for part in item:
        _flatten_histories(part, flat)


def _histories(item: Any) -> Iterator[tuple[str, int, int]]:
    """The values named in a node's serialized arguments, in order."""
    if isinstance(item, dict):
        if item.get("class_name") == "__keras_tensor__":
            name, node, tensor = item["config"]["keras_history"]
            yield (name, node, tensor)
            return
        item = list(item.values())
    if isinstance(item, list | tuple):
        for part in item:
            yield from _histories(part)


def _constants(arguments: Any) -> tuple[Any, ...]:
    return tuple(
        value if isinstance(value, int | float) else None for value in arguments
    )


def _check_node(node: dict[str, Any], sources: list[Any], name: str) -> None:
    if any(True for _ in _histories(node["kwargs"])):
        raise UnsupportedModelError(
            f"Expected layers to be called with positional tensors. Received: "
            f"{name!r} takes a tensor by keyword. Call it as layer(tensor)."
        )
    if not sources or any(tensor != 0 for _, _, tensor in sources):
        raise UnsupportedModelError(
            f"Expected layers with one output each. Received: {name!r} reads "
            "another output or no tensor at all."
        )
