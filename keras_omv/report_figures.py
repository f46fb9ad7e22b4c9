"""The entries of report.json: figures as plain values, and the text of the file.

Imports no TensorFlow.
"""

import dataclasses
import hashlib
import importlib.metadata
import importlib.resources
import json
import platform
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_omv.arena import Arena
from keras_omv.boards import DEFAULT_FIRMWARE, Budget
from keras_omv.cost import Cost
from keras_omv.evaluation import Accuracy, DeviceAccuracy
from keras_omv.fit import Fit
from keras_omv.network import Network

REPORT_FORMAT = "keras_omv.report/3"
CONTENT_SHA256 = "content_sha256"
PACKAGES = (
    *("keras-omv", "keras", "tensorflow", "numpy"),
    *("ai-edge-litert", "tflite-micro", "jinja2", "pillow"),
)
"""The packages whose versions decide the files and the figures."""


def signed_text(content: Mapping[str, Any]) -> str:
    """JSON text of a report, its own SHA-256 last.

    Args:
        content: All entries but the last.
    """
    digest = hashlib.sha256(_text(content).encode("utf-8", "surrogatepass")).hexdigest()
    return _text({**content, CONTENT_SHA256: digest})


def file_hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of files by name."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of report.json."""
    folder = importlib.resources.files("keras_omv").joinpath("templates")
    text = folder.joinpath("report.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def cost_figures(cost: Cost) -> dict[str, Any]:
    """The entries of report.json that follow from the network and the camera."""
    return {
        "flash_bytes": cost.flash_bytes,
        "ram_bytes": cost.ram_bytes,
        "ram_breakdown": cost.arena and ram_parts(cost.arena),
        "macs": cost.macs,
        "parameters": cost.parameters,
        "latency_ms_estimate": cost.latency_ms,
        "latency_ms_range": cost.latency_range_ms,
    }


def fit_figures(fit: Fit) -> dict[str, Any]:
    """The entries of report.json that say whether the model fits."""
    return {
        "fits": fit.fits,
        "fit_reasons": fit.reasons,
        "storage": fit.storage,
        "arena_memory": fit.arena_memory,
        "flash_limit_bytes": fit.flash_limit_bytes,
        "ram_limit_bytes": fit.ram_limit_bytes,
        "flash_over_bytes": fit.flash_over_bytes,
        "ram_over_bytes": fit.ram_over_bytes,
        "replaces_stock_models": fit.replaces_stock_models,
    }


def device_figures(accuracy: DeviceAccuracy) -> dict[str, Any]:
    """The entries of "accuracy" that the folder and the images give again."""
    return {
        "images": accuracy.images,
        "int8": accuracy.int8,
        "runtime": accuracy.runtime,
        "camera": dataclasses.asdict(accuracy.camera),
        "recall": accuracy.recall,
        "confusion": accuracy.confusion,
        "scores_sha256": accuracy.scores_sha256,
        "data_sha256": accuracy.data_sha256,
    }


def budget_limits(budget: Budget | None) -> dict[str, int | None] | None:
    """A budget's limits, `None` for a camera."""
    if budget is None:
        return None
    return {"flash_bytes": budget.flash_bytes, "ram_bytes": budget.ram_bytes}


def ram_parts(arena: Arena) -> dict[str, int]:
    """Where the RAM goes: bytes that add up to the RAM of the model."""
    return {
        "activation_bytes": arena.peak_activation_bytes,
        "scratch_bytes": arena.peak_scratch_bytes,
        "fragmentation_bytes": arena.fragmentation_bytes,
        "per_channel_bytes": arena.per_channel_bytes,
        "structure_bytes": arena.structure_bytes,
        "firmware_bytes": arena.ram_bytes - arena.arena_used_bytes,
    }


def peak_op(network: Network, arena: Arena) -> dict[str, Any] | None:
    """The operation that holds the most bytes, named as its output is."""
    if not network.ops:
        return None
    op = network.ops[arena.peak_op]
    names = [network.tensors[index].name for index in op.outputs]
    return {"index": arena.peak_op, "kind": op.kind, "name": names[0] if names else ""}


def versions() -> dict[str, str | None]:
    """The versions that an export was made with; `None` for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def network_input_range(network: Network) -> tuple[float, float]:
    """The values that the int8 inputs of pixels 0 and 255 stand for."""
    scale, zero_point = network.input.scales[0], network.input.zero_points[0]
    ends = np.array([-128, 127]) - int(zero_point)
    low, high = (ends.astype("float32") * scale).tolist()
    return low, high


def accuracy_figures(accuracy: Accuracy) -> dict[str, Any]:
    """The entries of "accuracy"."""
    return {
        "float32": accuracy.float32,
        "fake_quantized": accuracy.fake_quantized,
        "agreement": accuracy.agreement,
        **device_figures(accuracy),
        "warnings": accuracy.warnings,
    }


def is_exact_release(firmware: str) -> bool:
    """Whether RAM is computed as a release allocates it; `""` stands for 5.0."""
    return not firmware or firmware.startswith(f"{DEFAULT_FIRMWARE}.")


def _text(content: Mapping[str, Any]) -> str:
    """JSON, indented, lists of plain values on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return _PLAIN_LIST.sub(_on_one_line, text) + "\n"


# Line breaks are never part of a JSON string, so that joining lines changes none.
_PLAIN_LIST = re.compile(r"\[\n[^][{}]*\]")


def _on_one_line(found: re.Match[str]) -> str:
    lines = [line.strip() for line in found[0].splitlines()]
    return f"{lines[0]}{' '.join(lines[1:-1])}{lines[-1]}"
