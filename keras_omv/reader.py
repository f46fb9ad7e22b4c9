"""Reads a .tflite file as a `Network`, whoever made it and whatever became of it.

What cannot be read raises one error; what can be read but keeps the camera from
running the file is told in `Network.file_problems`, and judged together with the
operators and types by `keras_omv.firmware`. Slots and codes are those of LiteRT's
schema.fbs, version 3 (google-ai-edge/LiteRT, tflite/converter/schema).
"""

import math
import pathlib
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_omv.errors import ModelFileError
from keras_omv.network import BYTES_PER_ELEMENT, Network, Tensor
from keras_omv.operators import read_kind, read_op
from keras_omv.tables import Table, Tables, damaged, enum_names

SCHEMA_VERSION = 3
FILE_IDENTIFIER = b"TFL3"
_MOST_TENSORS = 4096
"""Far above what runs on a camera; the planner's time grows with the square."""
_MOST_DIMENSIONS = 8
_OFFLINE_PLAN = "OfflineMemoryAllocation"

_DTYPE_NAMES = {
    code: name.lower() for code, name in enum_names(schema.TensorType).items()
}


def read_bytes(path: pathlib.Path) -> bytes:
    """What a .tflite file holds, not yet looked at.

    Raises:
        ModelFileError: If there is no such file.
    """
    if not path.is_file():
        state = "is no file" if path.exists() else "does not exist"
        raise ModelFileError(
            f"Expected the path of a .tflite file. Received: {str(path)!r}, which "
            f"{state}. Next step: check the path; omv.export writes such a file."
        )
    return path.read_bytes()


def read(data: bytes) -> Network:
    """Read a .tflite file.

    Args:
        data: The file's bytes.

    Returns:
        The network; its options are given for the operators that this package
        writes and are empty for others.

    Raises:
        ModelFileError: If the bytes are not a sound .tflite file of schema version
            3, or if it has several subgraphs, variable tensors or its own memory
            plan, none of which a `Network` holds.
    """
    _check_identifier(data)
    model = Tables(data).root()
    _check_version(model.integer(0, "<I"))
    graph = _only_graph(model)
    tables = graph.tables(0)
    problems: list[str] = []
    buffers = model.tables(4)
    tensors = tuple(
        _read_tensor(index, table, buffers, data, problems)
        for index, table in enumerate(_limited(tables, "tensors"))
    )
    kinds = [read_kind(code) for code in model.tables(1)]
    network = Network(
        tensors=tensors,
        ops=tuple(read_op(op, kinds) for op in _limited(graph.tables(3), "operators")),
        inputs=graph.integers(1),
        outputs=graph.integers(2),
    )
    _check_graph(network)
    problems += _open_inputs(network, tables) + _missing_values(network)
    return Network(
        network.tensors, network.ops, network.inputs, network.outputs, tuple(problems)
    )


def _check_identifier(data: bytes) -> None:
    if len(data) < 8:
        raise damaged(f"{len(data)} bytes" if data else "an empty file")
    if bytes(data[4:8]) != FILE_IDENTIFIER:
        raise damaged(
            f"a file that starts with {bytes(data[:8])!r}, without the mark "
            f"{FILE_IDENTIFIER!r} at byte 4"
        )


def _check_version(version: int) -> None:
    if version != SCHEMA_VERSION:
        raise ModelFileError(
            f"Expected a .tflite file of schema version {SCHEMA_VERSION}, the one that "
            f"the camera loads. Received: version {version}. Next step: convert the "
            f"model again with a current TensorFlow."
        )


def _only_graph(model: Table) -> Table:
    graphs = model.tables(2)
    if not graphs:
        raise damaged("a file without a network")
    if len(graphs) > 1:
        raise ModelFileError(
            f"Expected a .tflite file of one subgraph. Received: {len(graphs)}; the "
            f"camera runs the first and keeps the memory of all, which is not known "
            f"here. Next step: convert one function without control flow."
        )
    if any(metadata.text(0) == _OFFLINE_PLAN for metadata in model.tables(6)):
        raise ModelFileError(
            f"Expected a .tflite file whose memory TFLM plans. Received: one with its "
            f"own plan, the metadata {_OFFLINE_PLAN}, as compilers for accelerators "
            f"write it. Next step: take the file before it was compiled."
        )
    return graphs[0]


def _limited(tables: list[Table], what: str) -> list[Table]:
    if len(tables) > _MOST_TENSORS:
        raise ModelFileError(
            f"Expected at most {_MOST_TENSORS} {what}. Received: {len(tables)}. Next "
            f"step: take a network that a camera can run."
        )
    return tables


def _read_tensor(
    index: int, table: Table, buffers: list[Table], data: bytes, problems: list[str]
) -> Tensor:
    name = table.text(3) or f"#{index}"
    shape = _read_shape(table, name)
    dtype = _DTYPE_NAMES.get(code := table.integer(1, "<b"), f"type {code}")
    if table.integer(5, "<?"):
        raise ModelFileError(
            f"Expected a network without memory of earlier images. Received: tensor "
            f"{name!r}, a variable. Next step: convert a model without state."
        )
    raw, problem = _read_buffer(table, name, buffers, data)
    is_sparse = table.has(6)
    if is_sparse:
        problem = (
            f"tensor {name!r} is sparse, which TFLM cannot read: convert the model "
            f"without sparsity"
        )
    problems += [problem] if problem else []
    quantization = table.table(4)
    return Tensor(
        name=table.text(3),
        shape=shape,
        dtype=dtype,
        scales=quantization.array(2, "<f4") if quantization else np.zeros(0, "f4"),
        zero_points=quantization.array(3, "<i8") if quantization else np.zeros(0, "i8"),
        axis=quantization.integer(6) if quantization else 0,
        data=None if raw is None else _shaped(raw, shape, dtype, name, is_sparse),
    )


def _read_shape(table: Table, name: str) -> tuple[int, ...]:
    size = table.array(0, "<i4").size
    if size > _MOST_DIMENSIONS:
        raise damaged(f"tensor {name!r} of {size} dimensions")
    shape = table.integers(0)
    if min(shape, default=0) < 0:
        raise damaged(f"tensor {name!r} of shape {shape}")
    return shape


def _read_buffer(
    table: Table, name: str, buffers: list[Table], data: bytes
) -> tuple[np.ndarray | None, str]:
    """Return the bytes of a constant, and what keeps TFLM from seeing them."""
    index = table.integer(2, "<I")
    if index >= len(buffers):
        raise damaged(f"tensor {name!r} in buffer {index} of {len(buffers)}")
    raw = buffers[index].array(0, "u1")
    if raw.size:
        return raw, ""
    offset, size_bytes = (buffers[index].integer(slot, "<Q") for slot in (1, 2))
    if table.has(10) or (offset > 1 and size_bytes):
        problem = (
            f"tensor {name!r} is stored by file offset, which TFLM does not follow: it "
            f"would read zeros; convert with weights inside the buffers"
        )
        if table.has(10):
            return np.zeros(0, "u1"), problem
        return Tables(data).slice(offset, size_bytes), problem
    return None, ""


def _shaped(
    raw: np.ndarray, shape: tuple[int, ...], dtype: str, name: str, is_sparse: bool
) -> np.ndarray:
    if is_sparse or dtype not in BYTES_PER_ELEMENT or not raw.size:
        return raw
    needed = math.prod(shape) * BYTES_PER_ELEMENT[dtype]
    if raw.size != needed:
        raise damaged(f"tensor {name!r} of {raw.size} bytes where {needed} belong")
    return raw.view(np.dtype(dtype).newbyteorder("<")).reshape(shape)


def _check_graph(network: Network) -> None:
    """Check that every index leads to a tensor and every value is made once."""
    count = len(network.tensors)
    if not network.inputs or not network.outputs:
        raise damaged("a network without an input or an output")
    _check_indices(network.inputs + network.outputs, range(count))
    makers: dict[int, int] = {}
    for place, op in enumerate(network.ops):
        _check_indices(op.inputs, range(-1, count))
        _check_indices(op.outputs, range(count))
        for index in op.outputs:
            _check_writer(network, index, makers)
            makers[index] = place
    for place, op in enumerate(network.ops):
        if any(makers.get(index, -1) >= place for index in op.inputs):
            raise damaged(f"operator {place} ({op.kind}) that reads what comes later")


def _check_indices(indices: Sequence[int], allowed: range) -> None:
    for index in indices:
        if index not in allowed:
            raise damaged(f"tensor {index} of {allowed.stop}")


def _check_writer(network: Network, index: int, makers: dict[int, int]) -> None:
    if index in makers or index in network.inputs or network.tensors[index].is_constant:
        raise damaged(f"tensor {index}, which is written over")


def _open_inputs(network: Network, tables: list[Table]) -> list[str]:
    """Tell of inputs whose size the file leaves open; TFLM takes 1 for it."""
    problems = []
    for index in network.inputs:
        signature = tables[index].array(7, "<i4")[:_MOST_DIMENSIONS]
        if -1 in signature[1:]:
            shape = ", ".join("?" if size < 0 else str(size) for size in signature)
            problems.append(
                f"input {network.tensors[index].name!r} of shape ({shape}) leaves its "
                f"size open, which TFLM cannot: convert with a fixed image size"
            )
    return problems


def _missing_values(network: Network) -> list[str]:
    """Tell of values that operators read and nothing writes."""
    made = {index for op in network.ops for index in op.outputs} | {*network.inputs}
    readers = dict.fromkeys(network.outputs, "the camera")
    readers.update((index, op.kind) for op in network.ops for index in op.inputs)
    return [
        f"tensor {network.tensors[index].name!r}, which {kind} reads, has no values"
        for index, kind in readers.items()
        if index >= 0 and index not in made and _is_empty(network.tensors[index])
    ]


def _is_empty(tensor: Tensor) -> bool:
    return not tensor.is_constant and 0 not in tensor.shape
