"""What each supported Keras layer is on the camera.

`steps_of` gives a call's steps; a layer without an entry in `_STEPS` is not
supported, and `check_supported` names all such layers in one error.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from keras_omv.errors import UnsupportedModelError
from keras_omv.graph import Step
from keras_omv.tracing import Call

Shape = tuple[int, ...]
Shapes = list[Shape]
NewValue = Callable[[], int]

# Layers that do nothing at inference.
_IDENTITIES = frozenset(
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
_ACTIVATIONS = frozenset({"linear", "relu", "relu6", "softmax", "sigmoid", "tanh"})
FUSED_ACTIVATIONS = frozenset({"linear", "relu", "relu6"})


def steps_of(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    """The steps of one call, the last of which gives the call's output.

    Args:
        call: A call of a supported layer.
        shapes: Shapes of its inputs without the batch.
        new_value: Numbers a value between two steps of the call.
    """
    return _STEPS[_kind(call)](call, shapes, new_value)


def check_supported(calls: Iterable[Call]) -> None:
    """Raises one `UnsupportedModelError` that names all unsupported layers."""
    calls = list(calls)
    unknown = [call for call in calls if not is_supported(call)]
    if unknown:
        named = ", ".join(f"{call.name!r} ({_kind(call)})" for call in unknown)
        raise UnsupportedModelError(
            f"Expected layers that run as int8 on the camera: {supported_names()}. "
            f"Received: {named}. Replace or remove them."
        )
    for call in calls:
        _check_policy(call)


def is_supported(call: Call) -> bool:
    """Whether a call has steps, or scales and shifts all pixels alike."""
    return _kind(call) in _STEPS or uniform_affine(call) is not None


def supported_names() -> str:
    """The class names of all supported layers."""
    names = {name for name in _STEPS if name[0].isupper()} | _IDENTITIES
    return ", ".join([*sorted(names - {"Relu", "Relu6"}), "Random* augmentation"])


def uniform_affine(call: Call) -> tuple[float, float] | None:
    """Scale and offset of a call that treats all pixels alike, else `None`."""
    kind = _kind(call)
    if kind == "augmentation":
        return 1.0, 0.0
    if kind in ("Rescaling", "Normalization"):
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
        layer: A `Rescaling`, `Normalization` or `BatchNormalization`.

    Returns:
        Float32 arrays scale and offset, of one value or one for each channel.
    """
    kind = type(layer).__name__
    if kind == "Rescaling":
        return _flat(layer.scale), _flat(layer.offset)
    if kind == "Normalization":
        mean, deviation = _flat(layer.mean), np.sqrt(_flat(layer.variance))
        if layer.invert:
            return _unify(deviation), _unify(mean)
        deviation = np.maximum(deviation, np.float32(keras.config.epsilon()))
        return _unify(1 / deviation), _unify(-mean / deviation)
    scale = 1 / np.sqrt(_flat(layer.moving_variance) + np.float32(layer.epsilon))
    if layer.gamma is not None:
        scale = scale * _flat(layer.gamma)
    offset = -_flat(layer.moving_mean) * scale
    if layer.beta is not None:
        offset = offset + _flat(layer.beta)
    return scale, offset


def relu_name(call: Call) -> str | None:
    """`"relu"` or `"relu6"` where a call is one of them, else `None`."""
    name = activation_of(call)
    return name if name in ("relu", "relu6") else None


def activation_of(call: Call) -> str | None:
    """The activation that a call computes, `None` where it is another layer."""
    kind = _kind(call)
    if kind == "Activation":
        return _activation_name(call.operation.activation, call.name)
    if kind == "ReLU":
        return _relu_layer_name(call.operation, call.name)
    return {"Relu": "relu", "Relu6": "relu6", "Softmax": "softmax"}.get(kind)


def _kind(call: Call) -> str:
    """The key of `_STEPS` for a call."""
    if not type(call.operation).__module__.startswith("keras."):
        return f"custom {call.kind}"
    if not isinstance(call.operation, keras.Layer) and call.kind not in _OPERATIONS:
        return f"keras.ops {call.kind}"
    if call.kind in _IDENTITIES:
        return "identity"
    random = call.kind.startswith("Random") and call.kind != "RandomCrop"
    return "augmentation" if random or call.kind in _AUGMENTATIONS else call.kind


def _check_policy(call: Call) -> None:
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


def _activation_name(function: Any, name: str) -> str:
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


def _require(condition: bool, call: Call, expected: str, received: str) -> None:
    if not condition:
        raise UnsupportedModelError(
            f"Expected {expected}. Received: {call.name!r} ({call.kind}) with "
            f"{received}. Change that layer."
        )


def _output_shape(call: Call, shape: Shape) -> Shape:
    return tuple(call.operation.compute_output_shape((None, *shape))[1:])


def _activate(step: Step, call: Call, new_value: NewValue) -> list[Step]:
    """A weighted step and its layer's activation, apart where it cannot be fused."""
    name = _activation_name(call.operation.activation, call.name)
    if name in FUSED_ACTIVATIONS:
        return [dataclasses.replace(step, activation=name)]
    value = new_value()
    return [
        dataclasses.replace(step, output=value),
        Step(name, call.name, (value,), call.output, step.shape),
    ]


def _conv(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    layer = call.operation
    groups = getattr(layer, "groups", 1)
    _require(groups == 1, call, "groups=1 or a DepthwiseConv2D", f"groups={groups}")
    step = Step(
        "depthwise" if call.kind == "DepthwiseConv2D" else "conv",
        call.name,
        call.inputs,
        call.output,
        _output_shape(call, shapes[0]),
        kernel=layer.kernel,
        bias=layer.bias,
        padding=layer.padding,
        strides=tuple(layer.strides),
        dilation=tuple(layer.dilation_rate),
    )
    return _activate(step, call, new_value)


def _separable(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    layer = call.operation
    shape = _output_shape(call, shapes[0])
    middle = new_value()
    depthwise = Step(
        "depthwise",
        f"{call.name}/depthwise",
        call.inputs,
        middle,
        (*shape[:2], layer.pointwise_kernel.shape[2]),
        kernel=layer.depthwise_kernel,
        padding=layer.padding,
        strides=tuple(layer.strides),
        dilation=tuple(layer.dilation_rate),
    )
    pointwise = Step(
        "conv",
        f"{call.name}/pointwise",
        (middle,),
        call.output,
        shape,
        kernel=layer.pointwise_kernel,
        bias=layer.bias,
    )
    return [depthwise, *_activate(pointwise, call, new_value)]


def _dense(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    _require(
        len(shapes[0]) == 1,
        call,
        "Dense layers on flat features (Flatten or GlobalAveragePooling2D first)",
        f"an input of shape {shapes[0]}",
    )
    layer = call.operation
    step = Step(
        "dense",
        call.name,
        call.inputs,
        call.output,
        (layer.units,),
        kernel=layer.kernel,
        bias=layer.bias,
    )
    return _activate(step, call, new_value)


def _affine(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    check_last_axis(call, shapes[0])
    step = _simple("affine")(call, shapes, new_value)[0]
    return [dataclasses.replace(step, layer=call.operation)]


def check_last_axis(call: Call, shape: Shape) -> None:
    """Requires a batch normalization or the like over the channels."""
    axis = getattr(call.operation, "axis", -1)
    axis = axis[0] if isinstance(axis, list | tuple) and axis else axis
    _require(
        axis in (-1, len(shape), None, ()), call, "axis=-1, the channels", f"{axis=}"
    )


def _activation(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    name = activation_of(call)
    axis = getattr(call.operation, "axis", -1)
    _require(axis in (-1, len(shapes[0])), call, "axis=-1", f"{axis=}")
    if name == "linear":
        return _simple("identity")(call, shapes, new_value)
    kind = "relu" if name in ("relu", "relu6") else str(name)
    step = _simple(kind)(call, shapes, new_value)[0]
    activation = str(name) if kind == "relu" else "linear"
    return [dataclasses.replace(step, activation=activation)]


def _add(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    """Sums two values at a time, as TFLite's ADD does."""
    same = len(call.inputs) > 1 and len(set(shapes)) == 1
    _require(same, call, "two or more inputs of one shape", f"the shapes {shapes}")
    steps: list[Step] = []
    total = call.inputs[0]
    for index, value in enumerate(call.inputs[1:], start=2):
        output = call.output if index == len(call.inputs) else new_value()
        steps.append(Step("add", call.name, (total, value), output, shapes[0]))
        total = output
    return steps


def _concat(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    axis = call.operation.axis
    _require(axis in (-1, len(shapes[0])), call, "axis=-1, the channels", f"{axis=}")
    shape = (*shapes[0][:-1], sum(shape[-1] for shape in shapes))
    return [Step("concat", call.name, call.inputs, call.output, shape)]


def _pool(kind: str) -> Callable[[Call, Shapes, NewValue], list[Step]]:
    def steps(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
        layer = call.operation
        step = _simple(kind, resize=True)(call, shapes, new_value)[0]
        return [
            dataclasses.replace(
                step,
                layer=layer,
                window=tuple(layer.pool_size),
                strides=tuple(layer.strides),
                padding=layer.padding,
            )
        ]

    return steps


def _pad(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    step = _simple("pad", resize=True)(call, shapes, new_value)[0]
    (top, bottom), (left, right) = call.operation.padding
    pads = ((top, bottom), (left, right))
    return [dataclasses.replace(step, layer=call.operation, pads=pads)]


def _reshape(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    step = _simple("reshape", resize=True)(call, shapes, new_value)[0]
    kind = "identity" if step.shape == shapes[0] else "reshape"
    return [dataclasses.replace(step, kind=kind, layer=call.operation)]


def _identity(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    step = _simple("identity")(call, shapes, new_value)[0]
    return [dataclasses.replace(step, layer=call.operation)]


def _simple(
    kind: str, *, resize: bool = False
) -> Callable[[Call, Shapes, NewValue], list[Step]]:
    """A step of one input; `resize` asks the layer for the output's shape."""

    def steps(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
        shape = _output_shape(call, shapes[0]) if resize else shapes[0]
        layer = call.operation if resize else None
        return [Step(kind, call.name, call.inputs, call.output, shape, layer=layer)]

    return steps


_STEPS: dict[str, Callable[[Call, Shapes, NewValue], list[Step]]] = {
    "Activation": _activation,
    "Add": _add,
    "AveragePooling2D": _pool("average_pool"),
    "BatchNormalization": _affine,
    "Concatenate": _concat,
    "Conv2D": _conv,
    "Dense": _dense,
    "DepthwiseConv2D": _conv,
    "Flatten": _reshape,
    "GlobalAveragePooling2D": _simple("mean", resize=True),
    "GlobalMaxPooling2D": _simple("global_max", resize=True),
    "MaxPooling2D": _pool("max_pool"),
    "Normalization": _affine,
    "ReLU": _activation,
    "Relu": _activation,
    "Relu6": _activation,
    "Rescaling": _affine,
    "Reshape": _reshape,
    "SeparableConv2D": _separable,
    "Softmax": _activation,
    "ZeroPadding2D": _pad,
    "augmentation": _identity,
    "identity": _identity,
}
