"""Puts an int8 network together, tensor by tensor and operation by operation.

The order is what the file has, and TFLM's memory planner breaks ties by it: whoever
makes the same network in the same order gets the same costs.
"""

from typing import Any

import numpy as np

from keras_omv.network import Network, Op, Tensor

ACTIVATIONS = {"linear": "NONE", "relu": "RELU", "relu6": "RELU6"}


class NetworkBuilder:
    """Collects tensors and operations; tensors are known by their numbers."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._ops: list[Op] = []
        self._constants: dict[str, int] = {}

    def build(self, image: int, scores: int) -> Network:
        """The network from an input to an output tensor."""
        return Network(tuple(self.tensors), tuple(self._ops), (image,), (scores,))

    def activation(
        self,
        name: str,
        shape: tuple[int, ...],
        scale: Any = 1.0,
        zero_point: int = 0,
    ) -> int:
        """An int8 tensor of the arena; `shape` is without the batch of 1."""
        scales, zero_points = np.array([scale], "f4"), np.array([zero_point], "i8")
        return self._add(Tensor(name, (1, *shape), "int8", scales, zero_points))

    def weights(
        self, name: str, values: np.ndarray, scales: np.ndarray, *, axis: int
    ) -> int:
        """Int8 weights, quantized along an axis or as a whole."""
        values = np.ascontiguousarray(values)
        return self._constant(f"{name}/weights", values, scales, axis)

    def bias(self, name: str, values: np.ndarray, scales: np.ndarray) -> int:
        """An int32 bias."""
        return self._constant(f"{name}/bias", values, scales, 0)

    def integers(self, name: str, values: np.ndarray) -> int:
        """An int32 parameter of an operation, written once for equal values."""
        key = repr((values.shape, values.tolist()))
        if key not in self._constants:
            tensor = Tensor(name, values.shape, "int32", data=values.astype("int32"))
            self._constants[key] = self._add(tensor)
        return self._constants[key]

    def op(
        self, kind: str, inputs: tuple[int, ...], output: int, **options: Any
    ) -> int:
        """Appends an operation and returns its output."""
        self._ops.append(Op(kind, inputs, (output,), options))
        return output

    def _constant(
        self, name: str, values: np.ndarray, scales: np.ndarray, axis: int
    ) -> int:
        dtype, zero_points = str(values.dtype), np.zeros(1, "int64")
        scales = scales.astype("float32")
        return self._add(
            Tensor(name, values.shape, dtype, scales, zero_points, axis, values)
        )

    def _add(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return len(self.tensors) - 1


def convolution_options(
    *,
    padding: str,
    activation: str,
    strides: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> dict[str, Any]:
    """The options of CONV_2D and DEPTHWISE_CONV_2D, from Keras' terms."""
    return {
        "padding": padding.upper(),
        "stride_h": strides[0],
        "stride_w": strides[1],
        "dilation_h": dilation[0],
        "dilation_w": dilation[1],
        "activation": ACTIVATIONS[activation],
    }
