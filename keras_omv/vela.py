"""Vela, Arm's compiler for the Ethos-U55 of the OpenMV AE3.

It comes as the package ethos-u-vela and runs in a process of its own. Its arguments
are those of the firmware (ports/alif/alif.mk:124-131 and tools/mkromfs.py:96 at 5.0.0;
the same at 4.7.0 and 4.8.1). This module imports no TensorFlow.
"""

import csv
import dataclasses
import importlib.metadata
import pathlib
import sys
import tempfile
from collections.abc import Iterator

from keras_omv.compilers import failure_of
from keras_omv.errors import ExportError
from keras_omv.ethos_u import Core, Timing

PACKAGE = "ethos-u-vela"
LIMIT_SECONDS = 600


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VelaSummary:
    """What Vela says about a network that it compiled.

    Attributes:
        latency_ms: Its estimate of one inference.
        cycles: The same in cycles of the NPU's clock.
        weight_bytes: The weights as they were, a byte each.
        encoded_weight_bytes: The weights as the NPU reads them.
    """

    latency_ms: float
    cycles: int
    weight_bytes: int
    encoded_weight_bytes: int


def installed_version() -> str:
    """Return Vela's version, `""` where it is not installed."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return ""


def arguments(core: Core) -> tuple[str, ...]:
    """Return Vela's arguments, all but those that name files."""
    return (
        *("--system-config", core.system_config),
        *("--accelerator-config", core.accelerator),
        *("--memory-mode", "Shared_Sram"),
        *("--optimise", "Performance"),
    )


def compile_model(model: bytes, core: Core) -> tuple[bytes, VelaSummary]:
    """Compile a model.

    Args:
        model: The bytes of an int8 .tflite file.
        core: What for.

    Returns:
        The bytes of the compiled .tflite file, and Vela's summary.

    Raises:
        ExportError: If Vela fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "model.tflite").write_bytes(model)
        (folder / "vela.ini").write_text(_settings(core))
        _run(core, folder)
        try:
            compiled = (folder / "model_vela.tflite").read_bytes()
            summary = _summary(folder / f"model_summary_{core.system_config}.csv")
        except (OSError, LookupError, ValueError, StopIteration) as error:
            raise _error(f"a result that is not Vela's: {error!r}") from error
    return compiled, summary


def _settings(core: Core) -> str:
    """Return the text of vela.ini: one system, one way to use its memories."""
    timings = {"Sram": core.sram, "OffChipFlash": core.flash}
    lines = [
        f"[System_Config.{core.system_config}]",
        f"core_clock={core.clock_hz:g}",
        "axi0_port=Sram",
        "axi1_port=OffChipFlash",
        *(line for name, timing in timings.items() for line in _lines(name, timing)),
        "[Memory_Mode.Shared_Sram]",
        "const_mem_area=Axi1",
        "arena_mem_area=Axi0",
        "cache_mem_area=Axi0",
    ]
    return "\n".join(lines) + "\n"


def _lines(memory: str, timing: Timing) -> Iterator[str]:
    yield f"{memory}_clock_scale={timing.clock_scale:g}"
    yield f"{memory}_burst_length={timing.burst_bytes}"
    yield f"{memory}_read_latency={timing.latency_cycles}"
    yield f"{memory}_write_latency={timing.latency_cycles}"


def _run(core: Core, folder: pathlib.Path) -> None:
    files = ("--config", "vela.ini", "--output-dir", ".", "model.tflite")
    words = (sys.executable, "-m", "ethosu.vela", *arguments(core), *files)
    if why := failure_of(words, folder, limit_seconds=LIMIT_SECONDS):
        raise _error(why)


def _error(received: str) -> ExportError:
    return ExportError(
        f"Vela ({PACKAGE} {installed_version()}) does not compile the model. Expected "
        f"a file for the Ethos-U55. Received: {received}. Next step: try another "
        f"release of {PACKAGE}."
    )


def _summary(path: pathlib.Path) -> VelaSummary:
    with path.open(newline="") as file:
        row = next(csv.DictReader(file))
    return VelaSummary(
        latency_ms=round(float(row["inference_time"]) * 1000, 6),
        cycles=round(float(row["cycles_total"])),
        weight_bytes=round(float(row["total_original_weights"])),
        encoded_weight_bytes=round(float(row["total_npu_encoded_weights"])),
    )
