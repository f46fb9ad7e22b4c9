"""Writes the .tflite flatbuffer of a `Network`; `keras_omv.reader` reads it.

The layout is our own, so that it depends on the architecture alone and repeats
byte for byte: the converter of TensorFlow writes names, signatures, minimum and
maximum, bias quantization and a zero point per channel, none of which the
camera's TFLM reads. `write(network, desktop=True)` keeps those that desktop
interpreters insist on; the computed values are the same.

Format: schema version 3 of LiteRT (`schema.fbs`), by the classes generated from
it that the `ai-edge-litert` package ships.
"""

import collections
from collections.abc import Hashable
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_omv.network import Network, Op, Tensor
from keras_omv.reader import FILE_IDENTIFIER, SCHEMA_VERSION
from keras_omv.reader import read as read
from keras_omv.reader import read_bytes as read_bytes

# Of weights: `force_align: 16` of the schema's Buffer.data. The firmware maps a file
# from ROMFS as it lies there, so that weights keep the alignment they have in the file.
DATA_ALIGNMENT = 16
# Of biases and other int32: kernels load one at a time, or four by MVE's VLDRW.32
# (CMSIS-NN, arm_nn_depthwise_conv_s8_core.c), which asks for the alignment of one.
INT32_ALIGNMENT = 4

_PADDINGS = ("SAME", "VALID")
_ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")
_DTYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int32": schema.TensorType.INT32,
    "uint8": schema.TensorType.UINT8,
    "int64": schema.TensorType.INT64,
    "bool": schema.TensorType.BOOL,
    "int16": schema.TensorType.INT16,
    "int8": schema.TensorType.INT8,
}

_CONVOLUTION = {
    "padding": "padding",
    "stride_h": "strideH",
    "stride_w": "strideW",
    "dilation_h": "dilationHFactor",
    "dilation_w": "dilationWFactor",
    "activation": "fusedActivationFunction",
}
_POOL = {
    "padding": "padding",
    "stride_h": "strideH",
    "stride_w": "strideW",
    "filter_h": "filterHeight",
    "filter_w": "filterWidth",
    "activation": "fusedActivationFunction",
}
_FUSED = {"activation": "fusedActivationFunction"}

# kind: (version of the int8 operator, table of its options, our key -> its field).
# Versions are those that TensorFlow 2.21's converter writes for int8 operators.
_OPERATORS: dict[str, tuple[int, str, dict[str, str]]] = {
    "ADD": (2, "AddOptions", _FUSED),
    "AVERAGE_POOL_2D": (2, "Pool2DOptions", _POOL),
    "CONCATENATION": (2, "ConcatenationOptions", {"axis": "axis", **_FUSED}),
    "CONV_2D": (3, "Conv2DOptions", _CONVOLUTION),
    "DEPTHWISE_CONV_2D": (
        3,
        "DepthwiseConv2DOptions",
        {**_CONVOLUTION, "depth_multiplier": "depthMultiplier"},
    ),
    "FULLY_CONNECTED": (4, "FullyConnectedOptions", _FUSED),
    "LOGISTIC": (2, "", {}),
    "MAX_POOL_2D": (2, "Pool2DOptions", _POOL),
    "MEAN": (2, "ReducerOptions", {"keep_dims": "keepDims"}),
    "PAD": (2, "PadOptions", {}),
    "QUANTIZE": (2, "QuantizeOptions", {}),
    "REDUCE_MAX": (2, "ReducerOptions", {"keep_dims": "keepDims"}),
    "RELU": (2, "", {}),
    "RELU6": (2, "", {}),
    "RESHAPE": (1, "ReshapeOptions", {}),
    "SOFTMAX": (2, "SoftmaxOptions", {"beta": "beta"}),
    "TANH": (2, "", {}),
}
WRITABLE = frozenset(_OPERATORS)
"""The operators that `write` knows."""


def write(network: Network, *, desktop: bool = False) -> bytes:
    """Writes a network as a .tflite file.

    Args:
        network: The network.
        desktop: Also write names, bias quantization and one zero point per
            channel, which desktop interpreters insist on. Defaults to `False`,
            the smaller file for the camera.

    Returns:
        The bytes of the file.
    """
    return _Writer(network, desktop=desktop).write()


def _option_code(key: str, value: Any) -> Any:
    if key == "padding":
        return _PADDINGS.index(value)
    if key == "activation":
        return _ACTIVATIONS.index(value)
    return value


def _raw(values: Any, dtype: str | None = None) -> bytes:
    return np.asarray(values, dtype).tobytes()


class _Writer:
    """Builds the file back to front, as flatbuffers are."""

    def __init__(self, network: Network, *, desktop: bool) -> None:
        self._network = network
        self._desktop = desktop
        self._builder = flatbuffers.Builder(1 << 16)
        # What depends on the architecture alone is written once where it is equal.
        self._shared: dict[Hashable, int] = {}
        self._scales: dict[int, int] = {}
        # The most frequent operator comes first: code 0 is left out of its operations.
        counts = collections.Counter(op.kind for op in network.ops)
        self._kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))
        self._quantizations: dict[int, int | None] = {}
        indices = range(len(network.tensors))
        self._constants = [i for i in indices if network.tensors[i].is_constant]

    def write(self) -> bytes:
        builder = self._builder
        buffers = self._aligned()
        for index in self._constants:
            self._quantizations[index] = self._quantization(index)
        codes = self._tables([self._operator_code(kind) for kind in self._kinds])
        graphs = self._tables([self._subgraph()])
        schema.ModelStart(builder)
        schema.ModelAddVersion(builder, SCHEMA_VERSION)
        schema.ModelAddOperatorCodes(builder, codes)
        schema.ModelAddSubgraphs(builder, graphs)
        schema.ModelAddBuffers(builder, buffers)
        builder.Finish(schema.ModelEnd(builder), file_identifier=FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _aligned(self) -> int:
        """Writes what is aligned to more than 4 bytes, and returns all buffers.

        Written first, it lies last, and nothing before it is padded. Each step leaves
        the alignment that the next one needs: 32 bytes of quantization for an
        activation, 12 of zero point for the weights, 12 of count and buffer before
        the values of each constant.
        """
        tensors = self._network.tensors
        for index, tensor in enumerate(tensors):
            if not tensor.is_constant:
                self._quantizations[index] = self._quantization(index)
        self._vector(bytes(8), 8, shared=True)
        order = sorted(self._constants, key=lambda i: tensors[i].dtype == "int32")
        buffers = {index: self._constant(index) for index in order}
        empty = self._buffer(None)
        return self._tables([empty, *(buffers[index] for index in self._constants)])

    def _constant(self, index: int) -> int:
        """Writes scales and values of a constant and returns its buffer.

        Two counts and a buffer are 16 bytes: with the scales of 4, 8, 12 ... channels
        between them, weights follow each other without padding.
        """
        tensor = self._network.tensors[index]
        if self._is_quantized(tensor):
            self._scale(index)
        alignment = INT32_ALIGNMENT if tensor.dtype == "int32" else DATA_ALIGNMENT
        return self._buffer(self._vector(_raw(tensor.data), 1, alignment=alignment))

    def _buffer(self, data: int | None) -> int:
        schema.BufferStart(self._builder)
        if data is not None:
            schema.BufferAddData(self._builder, data)
        return self._end(schema.BufferEnd(self._builder))

    def _operator_code(self, kind: str) -> int:
        version = _OPERATORS[kind][0]
        code = getattr(schema.BuiltinOperator, kind)
        schema.OperatorCodeStart(self._builder)
        # Readers take the larger of the two fields; all our codes fit the old one.
        schema.OperatorCodeAddDeprecatedBuiltinCode(self._builder, code)
        schema.OperatorCodeAddBuiltinCode(self._builder, code)
        schema.OperatorCodeAddVersion(self._builder, version)
        return self._end(schema.OperatorCodeEnd(self._builder))

    def _subgraph(self) -> int:
        network, builder = self._network, self._builder
        tensors = self._tables([self._tensor(i) for i in range(len(network.tensors))])
        ops = self._tables([self._operator(op) for op in network.ops])
        inputs = self._int32_vector(network.inputs)
        outputs = self._int32_vector(network.outputs)
        schema.SubGraphStart(builder)
        schema.SubGraphAddTensors(builder, tensors)
        schema.SubGraphAddInputs(builder, inputs)
        schema.SubGraphAddOutputs(builder, outputs)
        schema.SubGraphAddOperators(builder, ops)
        return self._end(schema.SubGraphEnd(builder))

    def _tensor(self, index: int) -> int:
        tensor, builder = self._network.tensors[index], self._builder
        quantization = self._quantizations[index]
        name = builder.CreateString(tensor.name) if self._desktop else None
        shape = self._int32_vector(tensor.shape)
        schema.TensorStart(builder)
        schema.TensorAddShape(builder, shape)
        schema.TensorAddType(builder, _DTYPES[tensor.dtype])
        if tensor.is_constant:
            schema.TensorAddBuffer(builder, 1 + self._constants.index(index))
        if name is not None:
            schema.TensorAddName(builder, name)
        if quantization is not None:
            schema.TensorAddQuantization(builder, quantization)
        return self._end(schema.TensorEnd(builder))

    def _quantization(self, index: int) -> int | None:
        tensor = self._network.tensors[index]
        if not self._is_quantized(tensor):
            return None
        zero_points = tensor.zero_points
        if self._desktop:
            zero_points = np.broadcast_to(zero_points, tensor.scales.shape)
        elif tensor.is_constant:
            # TFLM takes weights as symmetric and reads one zero point at most.
            zero_points = zero_points[:1]
        zero_point = self._vector(
            _raw(zero_points, "<i8"), 8, shared=tensor.is_constant
        )
        scale = self._scale(index)
        schema.QuantizationParametersStart(self._builder)
        schema.QuantizationParametersAddScale(self._builder, scale)
        schema.QuantizationParametersAddZeroPoint(self._builder, zero_point)
        schema.QuantizationParametersAddQuantizedDimension(self._builder, tensor.axis)
        return self._end(schema.QuantizationParametersEnd(self._builder))

    def _is_quantized(self, tensor: Tensor) -> bool:
        # TFLM derives a convolution's bias scale from its input and weights. It
        # checks that of a fully connected layer, which is a single number.
        is_derived = tensor.dtype == "int32" and tensor.scales.size > 1
        return tensor.scales.size > 0 and (self._desktop or not is_derived)

    def _scale(self, index: int) -> int:
        if index not in self._scales:
            scales = self._network.tensors[index].scales
            self._scales[index] = self._vector(_raw(scales, "<f4"), 4)
        return self._scales[index]

    def _operator(self, op: Op) -> int:
        builder = self._builder
        _, table, fields = _OPERATORS[op.kind]
        inputs = self._int32_vector(op.inputs)
        outputs = self._int32_vector(op.outputs)
        options = self._options(table, fields, op) if table else None
        schema.OperatorStart(builder)
        schema.OperatorAddOpcodeIndex(builder, self._kinds.index(op.kind))
        schema.OperatorAddInputs(builder, inputs)
        schema.OperatorAddOutputs(builder, outputs)
        if options is not None:
            kind = getattr(schema.BuiltinOptions, table)
            schema.OperatorAddBuiltinOptionsType(builder, kind)
            schema.OperatorAddBuiltinOptions(builder, options)
        return self._end(schema.OperatorEnd(builder))

    def _options(self, table: str, fields: dict[str, str], op: Op) -> int:
        codes = {
            field: _option_code(key, op.options[key])
            for key, field in fields.items()
            if key in op.options
        }
        shared = (table, *codes.items())
        if shared not in self._shared:
            options = getattr(schema, f"{table}T")()
            for field, code in codes.items():
                setattr(options, field, code)
            self._shared[shared] = self._end(options.Pack(self._builder))
        return self._shared[shared]

    def _end(self, table: int) -> int:
        """Aligns what follows a table: field tables behind it may end at 2 of 4.

        Tables of equal fields then share one field table, wherever they lie.
        """
        self._builder.Prep(4, 0)
        return int(table)

    def _int32_vector(self, values: tuple[int, ...]) -> int:
        return self._vector(_raw(values, "<i4"), 4, shared=True)

    def _tables(self, offsets: list[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def _vector(
        self, raw: bytes, size: int, *, alignment: int = 0, shared: bool = False
    ) -> int:
        """Writes a vector of elements of `size` bytes and returns its offset."""
        key = (size, raw)
        if shared and key in self._shared:
            return self._shared[key]
        builder = self._builder
        builder.StartVector(size, len(raw) // size, max(alignment, size))
        builder.head -= len(raw)
        builder.Bytes[builder.head : builder.head + len(raw)] = raw
        offset = int(builder.EndVector())
        if shared:
            self._shared[key] = offset
        return offset
