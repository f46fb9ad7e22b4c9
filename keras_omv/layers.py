"""What each supported Keras layer is on the camera.

`steps_of` gives a call's steps; a layer without an entry in `_STEPS` is not
supported, and `check_supported` names all such layers in one error.
"""

import dataclasses
from collections.abc import Callable, Iterable

from keras_omv.calls import (
    FUSED_ACTIVATIONS,
    IDENTITIES,
    activation_name,
    activation_of,
    check_policy,
    kind_of,
    uniform_affine,
)
from keras_omv.errors import UnsupportedModelError
from keras_omv.graph import Step
from keras_omv.tracing import Call

Shape = tuple[int, ...]
Shapes = list[Shape]
NewValue = Callable[[], int]


def steps_of(call: Call, shapes: Shapes, new_value: NewValue) -> list[Step]:
    """The steps of one call, the last of which gives the call's output.

    Args:
        call: A call of a supported layer.
        shapes: Shapes of its inputs without the batch.
        new_value: Numbers a value between two steps of the call.
    """
    return _STEPS[kind_of(call)](call, shapes, new_value)


def check_supported(calls: Iterable[Call]) -> None:
    """Raises one `UnsupportedModelError` that names all unsupported layers."""
    calls = list(calls)
    unknown = [call for call in calls if not is_supported(call)]
    if unknown:
        named = ", ".join(f"{call.name!r} ({kind_of(call)})" for call in unknown)
        raise UnsupportedModelError(
            f"Expected layers that run as int8 on the camera: {supported_names()}. "
            f"Received: {named}. Replace or remove them."
        )
    for call in calls:
        check_policy(call)


def is_supported(call: Call) -> bool:
    """Whether a call has steps, or scales and shifts all pixels alike."""
    return kind_of(call) in _STEPS or uniform_affine(call) is not None


def supported_names() -> str:
    """The class names of all supported layers."""
    names = {name for name in _STEPS if name[0].isupper()} | IDENTITIES
    return ", ".join([*sorted(names - {"Relu", "Relu6"}), "Random* augmentation"])


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
    name = activation_name(call.operation.activation, call.name)
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
