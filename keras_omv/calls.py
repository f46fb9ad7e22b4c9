"""What a call is, read off its layer: kind, activation, scale and offset."""

from typing import Any

import keras
import numpy as np

from keras_omv.errors import UnsupportedModelError
from keras_omv.tracing import Call

# Layers that do nothing at inference.
IDENTITIES = frozenset(
    {
        "ActivityRegularization",
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "SpatialDropout2D",
    }
)
# Of keras.ops; others of a layer's name differ from the layer.
_OPERATIONS = frozenset({"Add", "Concatenate", "Relu", "Relu6", "Softmax"})
_AUGMENTATIONS = frozenset({"AugMix", "RandAugment"})
_CAMERA_VIEW = "keras_omv>CameraView"
_ACTIVATIONS = frozenset({"linear", "relu", "relu6", "softmax", "sigmoid", "tanh"})
FUSED_ACTIVATIONS = frozenset({"linear", "relu", "relu6"})


def kind_of(call: Call) -> str:
    """The name by which layers.py knows what a call does."""
    if keras.saving.get_registered_name(type(call.operation)) == _CAMERA_VIEW:
        return "augmentation"  # The camera has done it already.
    if not type(call.operation).__module__.startswith("keras."):
        return f"custom {call.kind}"
    if not isinstance(call.operation, keras.Layer) and call.kind not in _OPERATIONS:
        return f"keras.ops {call.kind}"
    if call.kind in IDENTITIES:
        return "identity"
    random = call.kind.startswith("Random") and call.kind != "RandomCrop"
    return "augmentation" if random or call.kind in _AUGMENTATIONS else call.kind


def uniform_affine(call: Call) -> tuple[float, float] | None:
    """Scale and offset of a call that treats all pixels alike, else `None`."""
    name = kind_of(call)
    if name == "augmentation":
        return 1.0, 0.0
    if name in ("Rescaling", "Normalization"):
        scale, offset = layer_affine(call.operation)
        if scale.size == offset.size == 1:
            return float(scale[0]), float(offset[0])
        return None
    return _constant_affine(call)


def as_callable(call: Call) -> Any:
    """A preprocessing layer, or a function of one tensor for another call."""
    if isinstance(call.operation, keras.Layer):
        return call.operation
    operation, constants = call.operation, call.constants

    def apply(x: Any) -> Any:
        return operation(*(x if c is None else c for c in constants))

    return apply


def layer_affine(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """What a layer that scales and shifts each channel does at inference.

    Args:
        layer: A `Rescaling` or a `Normalization`.

    Returns:
        Float32 arrays scale and offset, of one value or one for each channel.
    """
    if type(layer).__name__ == "Rescaling":
        return _flat(layer.scale), _flat(layer.offset)
    mean, deviation = _flat(layer.mean), np.sqrt(_flat(layer.variance))
    if layer.invert:
        return _unify(deviation), _unify(mean)
    deviation = np.maximum(deviation, np.float32(keras.config.epsilon()))
    return _unify(1 / deviation), _unify(-mean / deviation)


def relu_name(call: Call) -> str | None:
    """`"relu"` or `"relu6"` where a call is one of them, else `None`."""
    name = activation_of(call)
    return name if name in ("relu", "relu6") else None


def activation_of(call: Call) -> str | None:
    """The activation that a call computes, `None` where it is another layer."""
    name = kind_of(call)
    if name == "Activation":
        return activation_name(call.operation.activation, call.name)
    if name == "ReLU":
        return _relu_layer_name(call.operation, call.name)
    return {"Relu": "relu", "Relu6": "relu6", "Softmax": "softmax"}.get(name)


def check_policy(call: Call) -> None:
    """Requires a float32 layer with channels last and plain kernels."""
    policy = getattr(call.operation, "dtype_policy", None)
    if policy is not None and policy.name != "float32":
        raise UnsupportedModelError(
            "Expected float32 layers; mixed precision and Keras' own quantization "
            f"cannot be combined with fake quantization. Received: {call.name!r} with "
            f"the dtype policy {policy.name!r}. Rebuild the model under the policy "
            "'float32' (keras.config.set_dtype_policy) and load the weights into it."
        )
    if getattr(call.operation, "lora_enabled", False):
        raise UnsupportedModelError(
            f"Expected plain kernels. Received: {call.name!r} with LoRA enabled. Save "
            "the weights, which merges them, and load them into a model without it."
        )
    if getattr(call.operation, "data_format", None) == "channels_first":
        raise UnsupportedModelError(
            f"Expected channels_last layers. Received: {call.name!r} with "
            "data_format='channels_first'. Rebuild the model with channels last."
        )


def _constant_affine(call: Call) -> tuple[float, float] | None:
    """Scale and offset of arithmetic with a number, such as `x / 127.5`."""
    if len(call.constants) != 2 or call.constants.count(None) != 1:
        return None
    number = float(next(c for c in call.constants if c is not None))
    number_first = call.constants[0] is not None
    if call.kind == "Add":
        return 1.0, number
    if call.kind == "Multiply":
        return number, 0.0
    if call.kind == "Subtract":
        return (-1.0, number) if number_first else (1.0, -number)
    if call.kind in ("TrueDivide", "Divide") and not number_first:
        return 1.0 / number, 0.0
    return None


def _flat(value: Any) -> np.ndarray:
    return np.asarray(value, "float32").reshape(-1)


def _unify(values: np.ndarray) -> np.ndarray:
    return values[:1] if np.all(values == values[0]) else values


def activation_name(function: Any, name: str) -> str:
    """The name of a layer's activation function."""
    if isinstance(function, keras.layers.ReLU):
        return _relu_layer_name(function, name)
    found = getattr(function, "__name__", type(function).__name__)
    found = found.removesuffix("_v2")  # tf.nn.softmax calls itself softmax_v2.
    stock = function.__module__.startswith(("keras.", "tensorflow."))
    if found not in _ACTIVATIONS or not stock:
        raise UnsupportedModelError(
            f"Expected one of the activations {', '.join(sorted(_ACTIVATIONS))}. "
            f"Received: {found!r} in {name!r}. Use relu or relu6 instead."
        )
    return found


def _relu_layer_name(layer: Any, name: str) -> str:
    plain = not layer.negative_slope and not layer.threshold
    if plain and layer.max_value in (None, 6):
        return "relu" if layer.max_value is None else "relu6"
    raise UnsupportedModelError(
        "Expected ReLU() or ReLU(max_value=6). Received: "
        f"{name!r} with max_value={layer.max_value}, threshold={layer.threshold}, "
        f"negative_slope={layer.negative_slope}."
    )
