"""ST Edge AI Core, ST's compiler for the Neural-ART accelerator of the OpenMV N6.

It is no package: OpenMV IDE and OpenMV's SDK bring the command `stedgeai`, which must
be on the PATH. Its arguments and settings are those of the firmware (tools/modelc.py
and lib/stai/scripts at 5.0.0); older firmware loads what version 2.1 compiles, with
other arguments and a second step. This module imports no TensorFlow.
"""

import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from keras_omv.compilers import failure_of
from keras_omv.errors import ExportError

COMMAND = "stedgeai"
FIRST_RELEASE = (5,)
"""The firmware from which on this command serves."""
SETTINGS_FILE = "neuralart.json"
MEMORY_FILE = "stm32n6.mpool"
COMPILED_FILE = "workspace/network_npu_reloc_build/network_rel.bin"
"""Where the compiler leaves the file that the camera loads."""
COMPILED_MARK = b"NBIN"
"""How it starts."""
LIMIT_SECONDS = 1800
_BUILD_VARIABLES = ("RM", "CFLAGS", "CPPFLAGS", "CXXFLAGS", "LDFLAGS", "MAKEFLAGS")
"""What an environment may hold that misleads the compiler's own build."""


def command(model: str) -> tuple[str, ...]:
    """Return the command that compiles a model, where `settings_files` lie.

    Args:
        model: The name of the .tflite file.
    """
    return (
        *(COMMAND, "generate", "--target", "stm32n6", "--model", model),
        *("--relocatable", "--st-neural-art", f"default@{SETTINGS_FILE}"),
        *("--workspace", "workspace", "--output", "gen"),
        *("--verbosity", "1", "--quiet"),
    )


def is_installed() -> bool:
    """Whether the compiler is on the PATH."""
    return shutil.which(COMMAND) is not None


def settings_files() -> dict[str, bytes]:
    """Return the files that the command reads beside the model, by name."""
    texts = {SETTINGS_FILE: _SETTINGS, MEMORY_FILE: _memory()}
    return {
        name: (json.dumps(content, indent=2) + "\n").encode()
        for name, content in texts.items()
    }


def compile_model(model: bytes) -> bytes:
    """Compile a model.

    Args:
        model: The bytes of an int8 .tflite file.

    Returns:
        The bytes of the relocatable file that the N6 loads.

    Raises:
        ExportError: If the compiler fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for file, content in {"model.tflite": model, **settings_files()}.items():
            (folder / file).write_bytes(content)
        _run(command("model.tflite"), folder)
        path = folder / COMPILED_FILE
        compiled = path.read_bytes() if path.is_file() else b""
    if not compiled.startswith(COMPILED_MARK):
        raise _error(f"no {COMPILED_FILE} that starts with {COMPILED_MARK!r}")
    return compiled


def _run(words: tuple[str, ...], folder: pathlib.Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in _BUILD_VARIABLES}
    why = failure_of(
        words, folder, limit_seconds=LIMIT_SECONDS, environment=environment
    )
    if why:
        raise _error(why)


def _error(received: str) -> ExportError:
    return ExportError(
        f"ST Edge AI Core does not compile the model. Expected a file for the N6. "
        f"Received: {received}. Next step: run the command of report.html in the "
        f"folder to see all that it says; firmware 5.0 needs ST Edge AI Core 4.0."
    )


_SETTINGS: Mapping[str, Any] = {
    "Globals": {},
    "Profiles": {
        "default": {
            "memory_pool": MEMORY_FILE,
            "options": "--native-float --cache-maintenance --Ocache-opt "
            "--enable-virtual-mem-pools --Os --optimization 3 --Oauto-sched "
            "--all-buffers-info --csv-file network.csv --enable-epoch-controller",
        }
    },
}

_NPU_RAM_BYTES = 448 * 1024
_NPU_RAM_START = 0x34200000
_NPU_RAMS = (3, 4, 5, 6)
"""The blocks of AXISRAM that are the NPU's, one behind the other."""
_ON_CHIP_KIB = 1024


def _memory() -> dict[str, Any]:
    """Return the memories that the compiler may plan with."""
    cache = {"nlines": 512, "linesize": 64, "associativity": 8, "bypass_enable": 1}
    speed = _properties("ACC_WRITE", "MID", "MID", 8, 2.5, 13.584, 12.645)
    limit = {"paramname": "max_onchip_sram_size", **_amount(_ON_CHIP_KIB, "KBYTES")}
    return {
        "params": {"param": [limit]},
        "memory": {
            "cacheinfo": [{**cache, "prop": speed}],
            "mem_file_prefix": "atonbuf",
            "mempools": [
                *(_npu_ram(place, number) for place, number in enumerate(_NPU_RAMS)),
                _external("xSPI1", "hyperRAM", 0x92000000, ("ACC_WRITE", 2, 5.0, 340)),
                _external("xSPI2", "octoFlash", 0x71000000, ("ACC_READ", 1, 6.0, 400)),
            ],
        },
    }


def _npu_ram(place: int, number: int) -> dict[str, Any]:
    start = _NPU_RAM_START + place * _NPU_RAM_BYTES
    return {
        **_pool(f"AXISRAM{number}", f"npuRAM{number}", start),
        "prop": _properties("ACC_WRITE", "HIGH", "LOW", 8, 1.25, 18.531, 16.201),
        "size": _amount(_NPU_RAM_BYTES // 1024, "KBYTES"),
    }


def _external(
    file: str, name: str, start: int, traits: tuple[str, int, float, int]
) -> dict[str, Any]:
    rights, width_bytes, ratio, write_power = traits
    read_power = 380 if rights == "ACC_WRITE" else 110
    speed = _properties(
        rights, "MID", "HIGH", width_bytes, ratio, read_power, write_power
    )
    return {
        **_pool(file, name, start),
        "prop": {**speed, "cacheable": "CACHEABLE_ON", "constants_preferred": "true"},
        "size": _amount(16, "MBYTES"),
        "mode": "USEMODE_RELATIVE",
    }


def _pool(file: str, name: str, start: int) -> dict[str, Any]:
    return {
        "fname": file,
        "name": name,
        "fformat": "FORMAT_RAW",
        "offset": {"value": hex(start), "magnitude": "BYTES"},
    }


def _properties(
    rights: str,
    throughput: str,
    latency: str,
    width_bytes: int,
    ratio: float,
    read_power: float,
    write_power: float,
) -> dict[str, Any]:
    return {
        "rights": rights,
        "throughput": throughput,
        "latency": latency,
        "byteWidth": width_bytes,
        "freqRatio": ratio,
        "read_power": read_power,
        "write_power": write_power,
    }


def _amount(count: int, unit: str) -> dict[str, str]:
    return {"value": str(count), "magnitude": unit}
