"""Reads the operators of a .tflite file and the options that matter here.

Slots and codes are those of LiteRT's schema.fbs, version 3.
"""

from typing import Any, NamedTuple

from ai_edge_litert import schema_py_generated as schema

from keras_omv.network import CUSTOM, Op
from keras_omv.tables import Table, damaged, enum_names

_CUSTOM_CODE = 32
_NAMES = enum_names(schema.BuiltinOperator)
_PADDINGS = ("SAME", "VALID")
_ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")


class _Option(NamedTuple):
    """One field of an operator's options; `least` is the smallest sound value."""

    slot: int
    form: str = "<i"
    default: int = 0
    least: int | None = None


_PADDING_AND_STRIDES = {
    "padding": _Option(0, "<b"),
    "stride_h": _Option(2, least=1),
    "stride_w": _Option(1, least=1),
}
# kind: (table of the options, our key -> its field); the operators that
# keras_omv.flatbuffer writes with options.
_OPTIONS: dict[str, tuple[str, dict[str, _Option]]] = {
    "ADD": ("AddOptions", {"activation": _Option(0, "<b")}),
    "AVERAGE_POOL_2D": (
        "Pool2DOptions",
        {
            **_PADDING_AND_STRIDES,
            "filter_h": _Option(4, least=1),
            "filter_w": _Option(3, least=1),
            "activation": _Option(5, "<b"),
        },
    ),
    "CONCATENATION": (
        "ConcatenationOptions",
        {"axis": _Option(0), "activation": _Option(1, "<b")},
    ),
    "CONV_2D": (
        "Conv2DOptions",
        {
            **_PADDING_AND_STRIDES,
            "dilation_h": _Option(5, default=1, least=1),
            "dilation_w": _Option(4, default=1, least=1),
            "activation": _Option(3, "<b"),
        },
    ),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        {
            **_PADDING_AND_STRIDES,
            "dilation_h": _Option(6, default=1, least=1),
            "dilation_w": _Option(5, default=1, least=1),
            "activation": _Option(4, "<b"),
            "depth_multiplier": _Option(3),
        },
    ),
    "FULLY_CONNECTED": ("FullyConnectedOptions", {"activation": _Option(0, "<b")}),
    "MEAN": ("ReducerOptions", {"keep_dims": _Option(0, "<?")}),
    "SOFTMAX": ("SoftmaxOptions", {"beta": _Option(0, "<f")}),
}
_OPTIONS["MAX_POOL_2D"] = _OPTIONS["AVERAGE_POOL_2D"]
_OPTIONS["REDUCE_MAX"] = _OPTIONS["MEAN"]


def read_kind(code: Table) -> str:
    """Return the operator that a code stands for."""
    # Old files have the first field only, which ends at 127.
    number = max(code.integer(3), code.integer(0, "<b"))
    if number == _CUSTOM_CODE:
        return CUSTOM + code.text(1)
    return _NAMES.get(number, f"operator {number}")


def read_op(op: Table, kinds: list[str]) -> Op:
    """Return an operator.

    Args:
        op: Its table.
        kinds: The operators that the file's codes stand for.
    """
    index = op.integer(0, "<I")
    if index >= len(kinds):
        raise damaged(f"an operator of code {index} of {len(kinds)}")
    options = _read_options(op, kinds[index])
    return Op(kinds[index], op.integers(1), op.integers(2), options)


def _read_options(op: Table, kind: str) -> dict[str, Any]:
    if kind not in _OPTIONS:
        return {}
    name, fields = _OPTIONS[kind]
    table = op.table(4)
    if table is None or op.integer(3, "<B") != getattr(schema.BuiltinOptions, name):
        raise damaged(f"{kind} without its options")
    values = {key: _read_option(table, kind, key, fields[key]) for key in fields}
    for key, names in (("padding", _PADDINGS), ("activation", _ACTIVATIONS)):
        if key in values:
            values[key] = names[values[key]]
    return values


def _read_option(table: Table, kind: str, key: str, option: _Option) -> Any:
    value = table.number(option.slot, option.form, option.default)
    known = {"padding": len(_PADDINGS), "activation": len(_ACTIVATIONS)}.get(key)
    is_low = option.least is not None and value < option.least
    if is_low or (known is not None and not 0 <= value < known):
        raise damaged(f"{kind} with {key} {value}")
    return bool(value) if option.form == "<?" else value
