"""The int8 network as plain data: tensors, operations, bytes.

A `Network` is what the camera runs. It is read from a .tflite file, lowered from
a Keras model, or made from (alpha, resolution, ...) alone; its costs are computed
from nothing else. This module needs NumPy only.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_omv.errors import UnsupportedModelError

BYTES_PER_ELEMENT = {
    **{"bool": 1, "int8": 1, "uint8": 1},
    **{"float16": 2, "int16": 2, "uint16": 2},
    **{"float32": 4, "int32": 4, "uint32": 4},
    **{"float64": 8, "int64": 8, "uint64": 8},
}

WEIGHTED_OPS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
"""The operations whose second and third inputs are weights and a bias."""

CUSTOM = "CUSTOM "
"""What `Op.kind` of a custom operator starts with, before its name."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor of a network.

    Attributes:
        name: A name for people; it is not written to the camera's file.
        shape: The shape with a batch of 1, such as `(1, height, width, channels)`.
        dtype: `"int8"`, `"int32"`, ... as in NumPy; `"int4"`, `"string"` and others
            that NumPy lacks come from files only.
        scales: float32 array of shape `(1,)` per tensor or `(channels,)` per
            channel; empty where the tensor is not quantized.
        zero_points: int64 array of shape `(1,)` or as `scales`.
        axis: The quantized dimension of per-channel `scales`.
        data: The constant's values, or `None` for an activation; flat uint8 bytes
            where a file holds them in a layout that NumPy lacks (int4, sparse).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, "f4"))
    zero_points: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, "i8")
    )
    axis: int = 0
    data: np.ndarray | None = None

    @property
    def size_bytes(self) -> int:
        """The bytes that the tensor's values take.

        Raises:
            UnsupportedModelError: For a type without a size, such as a string.
        """
        if self.dtype not in BYTES_PER_ELEMENT:
            raise UnsupportedModelError(
                f"The size of a tensor is not known. Expected one of "
                f"{', '.join(BYTES_PER_ELEMENT)}. Received: {self.name!r} of "
                f"{self.dtype}. Next step: convert the model to int8."
            )
        return math.prod(self.shape) * BYTES_PER_ELEMENT[self.dtype]

    @property
    def is_constant(self) -> bool:
        """Whether the tensor lives in flash rather than in the arena."""
        return self.data is not None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One operation of a network.

    Attributes:
        kind: The TFLite builtin operator, such as `"CONV_2D"`, or `CUSTOM` and the
            name of a custom one.
        inputs: Indices of tensors; -1 stands for an optional input left out.
        outputs: Indices of tensors.
        options: The builtin options by their TFLite names in snake case, such as
            `{"padding": "SAME", "stride_h": 2}`.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Tensors and the operations over them, in the order of execution.

    Attributes:
        tensors: All tensors, constants included.
        ops: Operations in execution order.
        inputs: Indices of the input tensors.
        outputs: Indices of the output tensors.
        file_problems: What the file it was read from holds that keeps the camera
            from running it, a sentence each.
    """

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    file_problems: tuple[str, ...] = ()

    @property
    def input(self) -> Tensor:
        """The first input tensor, the camera's image."""
        return self.tensors[self.inputs[0]]

    @property
    def output(self) -> Tensor:
        """The first output tensor, the class scores."""
        return self.tensors[self.outputs[0]]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference, convolutions and dense layers."""
        return sum(self._op_macs(op) for op in self.ops)

    @property
    def parameters(self) -> int:
        """The number of constant values in weights and biases."""
        return sum(
            math.prod(self.tensors[index].shape)
            for op in self.ops
            if op.kind in WEIGHTED_OPS
            for index in op.inputs[1:]
            if index >= 0
        )

    def _op_macs(self, op: Op) -> int:
        if op.kind not in WEIGHTED_OPS:
            return 0
        weights = self.tensors[op.inputs[1]].shape
        outputs = math.prod(self.tensors[op.outputs[0]].shape)
        if op.kind == "DEPTHWISE_CONV_2D":
            return outputs * weights[1] * weights[2]
        return outputs * math.prod(weights[1:])
