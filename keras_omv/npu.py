"""The accelerators of the OpenMV AE3 and N6: what their compilers make of a model.

A compiler that is not installed, or that fails, costs the export nothing: there is no
compiled file then, and the report says why. This module imports no TensorFlow.
"""

import dataclasses
import logging
from collections.abc import Iterator
from typing import TypeAlias

from keras_omv import ethos_u, neuralart, vela
from keras_omv.boards import Board, Budget
from keras_omv.errors import ExportError, ModelFileError
from keras_omv.ethos_u import CORES
from keras_omv.fit import ROMFS_OVERHEAD_BYTES
from keras_omv.network import Network
from keras_omv.progress import working

logger = logging.getLogger(__name__)

VELA_MISSING = (
    "The NPU stays unused until the model is compiled: pip install 'keras-omv[npu]' "
    "and export again. As it is the model runs on the CPU, slower."
)
STEDGEAI_MISSING = (
    "A plain .tflite does not load on this camera, its NPU needs a compiled file. Put "
    "stedgeai on the PATH, which OpenMV IDE brings, and export again; or compile it "
    f"by hand in this folder: {' '.join(neuralart.command('model.tflite'))}. That "
    f"makes {neuralart.COMPILED_FILE}, which goes into /rom as model.tflite."
)
STEDGEAI_OLDER = (
    "A plain .tflite does not load on this camera, its NPU needs a file compiled for "
    "its firmware, which is done here for 5.0 and newer: update the camera and export "
    "for the new firmware, or let the OpenMV IDE of its time compile model.tflite."
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NpuReport:
    """What became of a model on the way to an NPU.

    Attributes:
        accelerator: The NPU, as `Board.npu` names it.
        command: The compiler's command.
        compiler: The compiler with its version, `""` where there is no compiled file.
        problem: Why there is none, in sentences; `""` where there is one.
        file_bytes: The compiled file's size.
        sram_bytes: The NPU's working memory, a part of the camera's RAM. `None` where
            only the compiler knows, as what follows.
        cpu_ops: The operators that are left to the CPU.
        latency_ms: The compiler's estimate of one inference.
        cycles: The same in cycles of the NPU's clock.
        weight_bytes: The weights, a byte each.
        encoded_weight_bytes: The weights as the NPU reads them, compressed.
    """

    accelerator: str
    command: str
    compiler: str = ""
    problem: str = ""
    file_bytes: int | None = None
    sram_bytes: int | None = None
    cpu_ops: tuple[str, ...] | None = None
    latency_ms: float | None = None
    cycles: int | None = None
    weight_bytes: int | None = None
    encoded_weight_bytes: int | None = None

    @property
    def bits_per_weight(self) -> float | None:
        """What a weight takes, 8 where nothing was compressed."""
        if not self.weight_bytes or self.encoded_weight_bytes is None:
            return None
        return 8 * self.encoded_weight_bytes / self.weight_bytes


FILE_FIGURES = ("accelerator", "command", "file_bytes", "sram_bytes", "cpu_ops")
"""The entries of `NpuReport` that follow from the camera and the compiled file."""

Compiled: TypeAlias = tuple[bytes | None, NpuReport | None]
"""The compiled file, and its report; `None` where there is none."""


def compile_for(board: Board | Budget, model: bytes, network: Network) -> Compiled:
    """Compile a model for a camera's NPU, if it has one.

    Args:
        board: The camera.
        model: The bytes of model.tflite.
        network: What it holds.
    """
    if not isinstance(board, Board) or board.npu is None:
        return None, None
    if missing := _missing(board):
        return None, _not_compiled(board, missing)
    try:
        with working(f"Compiling for the {board.npu}"):
            return _compile(board, model, network)
    except (ExportError, ModelFileError) as error:
        logger.warning("Not compiled for the %s: %s", board.npu, error)
        return None, _not_compiled(board, str(error))


def examine(
    board: Board, compiled: bytes, network: Network
) -> tuple[NpuReport, tuple[str, ...]]:
    """Look at a compiled file.

    Args:
        board: The camera.
        compiled: The file's bytes.
        network: What was compiled.

    Returns:
        What the file says about itself, and why it is not the network, compiled for
        this camera, in sentences.
    """
    said = blank(board, file_bytes=len(compiled))
    if board.name not in CORES:
        is_marked = compiled.startswith(neuralart.COMPILED_MARK)
        return said, () if is_marked else ("it is not compiled for the N6",)
    try:
        found = ethos_u.examine(compiled, network, CORES[board.name])
    except ModelFileError as error:
        return said, (str(error),)
    said = dataclasses.replace(said, sram_bytes=found.sram_bytes, cpu_ops=found.cpu_ops)
    sizes = _size_problems(board, len(compiled), found.sram_bytes)
    return said, (*found.problems, *sizes)


def compiler_of(board: Board) -> str:
    """Return the installed compiler for a camera, `""` where its version is unknown."""
    version = vela.installed_version() if board.name in CORES else ""
    return f"{vela.PACKAGE} {version}" if version else ""


def blank(
    board: Board, *, compiler: str = "", file_bytes: int | None = None
) -> NpuReport:
    """Return a report that says what the camera alone decides."""
    return NpuReport(
        accelerator=board.npu or "",
        command=_command(board),
        compiler=compiler,
        file_bytes=file_bytes,
    )


def _missing(board: Board) -> str:
    """Return what keeps a model from being compiled, `""` where nothing does."""
    if board.name in CORES:
        return "" if vela.installed_version() else VELA_MISSING
    if board.release < neuralart.FIRST_RELEASE:
        return STEDGEAI_OLDER
    return "" if neuralart.is_installed() else STEDGEAI_MISSING


def _compile(board: Board, model: bytes, network: Network) -> Compiled:
    if board.name not in CORES:
        compiled = neuralart.compile_model(model)
        said = blank(board, compiler=neuralart.COMMAND, file_bytes=len(compiled))
        return compiled, said
    compiled, summary = vela.compile_model(model, CORES[board.name])
    said, problems = examine(board, compiled, network)
    if problems:
        raise ExportError(f"What Vela made is of no use: {'; '.join(problems)}.")
    return compiled, dataclasses.replace(
        said, compiler=compiler_of(board), **dataclasses.asdict(summary)
    )


def _size_problems(board: Board, file_bytes: int, sram_bytes: int) -> Iterator[str]:
    room_bytes = board.romfs_bytes - ROMFS_OVERHEAD_BYTES
    if file_bytes > room_bytes:
        yield f"its {file_bytes:,} bytes do not fit ROMFS, which takes {room_bytes:,}"
    limit_bytes = board.ram_limit_bytes
    if sram_bytes > limit_bytes:
        yield f"it needs {sram_bytes:,} bytes of RAM, the camera has {limit_bytes:,}"


def _not_compiled(board: Board, problem: str) -> NpuReport:
    return dataclasses.replace(blank(board), problem=problem)


def _command(board: Board) -> str:
    if board.name not in CORES:
        return " ".join(neuralart.command("model.tflite"))
    words = vela.arguments(CORES[board.name])
    return " ".join(("vela", *words, "--config", "tools/vela.ini", "model.tflite"))
