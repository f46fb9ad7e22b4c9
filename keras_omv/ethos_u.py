"""The Ethos-U55 of the OpenMV AE3, and .tflite files compiled for it.

Clock and timing of the memories are those of the firmware (tools/vela.ini at 5.0.0;
the same at 4.7.0 and 4.8.1). A compiled file holds one operator, ethos-u, whose inputs
are a stream of commands, the weights and a scratch buffer, and operators that the NPU
does not have. This module imports no TensorFlow.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping

from keras_omv.network import CUSTOM, Network, Tensor
from keras_omv.operators import read_kind
from keras_omv.tables import Table, Tables

ETHOS_U = f"{CUSTOM}ethos-u"
_COMMAND_STREAM, _SCRATCH = 0, 2
"""Which inputs of the operator they are."""
_STREAM_MARK = b"COP1"
_CONFIGURATION_BYTE = 8
"""Of a command stream: after the mark and the tag of the driver's first action, the
logarithm of the MACs a cycle in the low half (ethosu/vela/driver_actions.py)."""
_INT8 = 9
"""TensorType.INT8 of LiteRT's schema.fbs."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How fast a memory is, as vela.ini says it: cycles at the NPU's clock."""

    clock_scale: float
    burst_bytes: int
    latency_cycles: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """An Ethos-U55 with the memories around it.

    Attributes:
        system_config: The name of this set in the firmware's vela.ini.
        macs_per_cycle: 256 or 128.
        clock_hz: Its clock.
        sram: Where activations lie.
        flash: Where the weights lie.
    """

    system_config: str
    macs_per_cycle: int
    clock_hz: float
    sram: Timing
    flash: Timing

    @property
    def accelerator(self) -> str:
        """What Vela calls it."""
        return f"ethos-u55-{self.macs_per_cycle}"


CORES: Mapping[str, Core] = {
    "openmv-ae3": Core(
        system_config="RTSS_HP_SRAM_OSPI",
        macs_per_cycle=256,
        clock_hz=400e6,
        sram=Timing(clock_scale=0.762, burst_bytes=8, latency_cycles=29),
        flash=Timing(clock_scale=0.052, burst_bytes=16, latency_cycles=108),
    ),
    "openmv-ae3-he": Core(
        system_config="RTSS_HE_SRAM_MRAM",
        macs_per_cycle=128,
        clock_hz=160e6,
        sram=Timing(clock_scale=1.0, burst_bytes=8, latency_cycles=13),
        flash=Timing(clock_scale=0.303, burst_bytes=16, latency_cycles=24),
    ),
}
"""By the name of the board."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFile:
    """What a compiled file says about itself.

    Attributes:
        problems: Why it is not the network compiled for the NPU, in sentences.
        sram_bytes: The NPU's working memory, a part of the arena.
        cpu_ops: The operators that the NPU leaves to the CPU.
    """

    problems: tuple[str, ...]
    sram_bytes: int
    cpu_ops: tuple[str, ...]


def examine(compiled: bytes, network: Network, core: Core) -> CompiledFile:
    """Look whether a file is a network, compiled for a core.

    Args:
        compiled: The bytes of the compiled file.
        network: What was compiled.
        core: What for.

    Raises:
        ModelFileError: If it is no sound .tflite file.
    """
    model = Tables(compiled).root()
    graph = model.tables(2)[0] if model.tables(2) else None
    if graph is None:
        return CompiledFile(problems=("it holds no network",), sram_bytes=0, cpu_ops=())
    kinds = [read_kind(code) for code in model.tables(1)]
    ops = [(_item(kinds, op.integer(0, "<I")), op) for op in graph.tables(3)]
    npu_ops = [op for kind, op in ops if kind == ETHOS_U]
    sizes = [_scratch_bytes(graph, op) for op in npu_ops]
    problems = (
        *_end_problems("input", graph, graph.integers(1), network, network.inputs),
        *_end_problems("output", graph, graph.integers(2), network, network.outputs),
        *_stream_problems(model, graph, npu_ops, core),
    )
    return CompiledFile(
        problems=problems,
        sram_bytes=max(sizes, default=0),
        cpu_ops=tuple(kind for kind, _ in ops if kind != ETHOS_U),
    )


def _item(items: list[str], index: int) -> str:
    return items[index] if index < len(items) else f"unknown operator {index}"


def _tensor(graph: Table, index: int) -> Table | None:
    tensors = graph.tables(0)
    return tensors[index] if 0 <= index < len(tensors) else None


def _input(graph: Table, op: Table, place: int) -> Table | None:
    inputs = op.integers(1)
    return _tensor(graph, inputs[place]) if place < len(inputs) else None


def _scratch_bytes(graph: Table, op: Table) -> int:
    scratch = _input(graph, op, _SCRATCH)
    return math.prod(scratch.integers(0)) if scratch else 0


def _end_problems(
    what: str,
    graph: Table,
    found: tuple[int, ...],
    network: Network,
    expected: tuple[int, ...],
) -> Iterator[str]:
    """Whether the ends of a file are those of the network, as the camera sees them."""
    if len(found) != len(expected):
        yield f"it has {len(found)} {what}s, the model {len(expected)}"
        return
    for index, other in zip(found, expected, strict=True):
        tensor = _tensor(graph, index)
        if tensor is None or not _is_same(tensor, network.tensors[other]):
            yield f"its {what} is not that of the model"


def _is_same(found: Table, tensor: Tensor) -> bool:
    quantization = found.table(4)
    return (
        found.integers(0) == tensor.shape
        and found.integer(1, "<b") == _INT8
        and tensor.dtype == "int8"
        and quantization is not None
        and quantization.array(2, "<f4").tolist() == tensor.scales.tolist()
        and quantization.array(3, "<i8").tolist() == tensor.zero_points.tolist()
    )


def _stream_problems(
    model: Table, graph: Table, npu_ops: list[Table], core: Core
) -> Iterator[str]:
    if not npu_ops:
        yield "it leaves every operator to the CPU"
    for op in npu_ops:
        stream = _constant(model, _input(graph, op, _COMMAND_STREAM))
        if not stream.startswith(_STREAM_MARK) or len(stream) <= _CONFIGURATION_BYTE:
            yield f"its commands do not start with {_STREAM_MARK!r}"
        elif 1 << (stream[_CONFIGURATION_BYTE] & 0xF) != core.macs_per_cycle:
            yield f"its commands are not for the {core.accelerator}"


def _constant(model: Table, tensor: Table | None) -> bytes:
    buffers = model.tables(4)
    index = tensor.integer(2, "<I") if tensor else len(buffers)
    return buffers[index].array(0, "u1").tobytes() if index < len(buffers) else b""
