"""The report of an export: its data, and report.json.

Every figure of report.json has an entry in its "how": measured by what, exact from
what, or estimated. `templates/report.schema.json` is the JSON Schema that describes
the file. The same export gives the same bytes: there are no dates and no paths in
it. The last entry is the SHA-256 of all that stands before it, so that a changed
byte shows; `keras_omv.report_check` recomputes the rest. Imports no TensorFlow.
"""

import dataclasses
import hashlib
import importlib.metadata
import importlib.resources
import json
import pathlib
import platform
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_omv.arena import Arena
from keras_omv.boards import NEEDS_COMPILER, Budget
from keras_omv.cost import LEAVE_ONE_OUT_ERROR, Cost
from keras_omv.deploy import MODEL_FILE
from keras_omv.evaluation import Accuracy, DeviceAccuracy
from keras_omv.fit import Fit
from keras_omv.network import Network

DEFAULT_FIRMWARE = "5.0"
"""The release that main.py is written for where no camera is named."""
REPORT_FORMAT = "keras_omv.report/1"
CONTENT_SHA256 = "content_sha256"
PACKAGES = (
    *("keras-omv", "keras", "tensorflow", "numpy"),
    *("ai-edge-litert", "tflite-micro", "jinja2", "pillow"),
)
"""The packages whose versions decide the files and the figures."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CandidateFigures:
    """One model of the choice.

    Attributes:
        name: The user's name for it.
        quantization: `"trained"` or `"calibrated"`, as in `ExportReport`.
        int8: Its accuracy on the device's arithmetic, `None` where not measured.
        flash_bytes: Its file's size.
        ram_bytes: Its RAM.
        fits: Whether it fits the camera.
        ships: Whether it is the one in the folder.
    """

    name: str
    quantization: str
    int8: float | None
    flash_bytes: int
    ram_bytes: int
    fits: bool
    ships: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What `omv.export` wrote, with the figures of report.json.

    Attributes:
        directory: The folder.
        board: Name of the camera, or `"budget"`.
        firmware: Its release, or `""`.
        budget: The limits where `board` is a `Budget`, else `None`.
        class_names: The labels.
        quantization: `"trained"` where ranges come from quantization-aware
            training, `"calibrated"` where they come from representative data.
        input_range: The values that pixels 0 and 255 have where they enter the model.
        network_input_range: The values that pixels 0 and 255 have where they enter
            the network.
        input_shape: Of the network, `(1, height, width, channels)`.
        cost: Flash, RAM, MACs and time.
        fit: Whether the model fits the camera, where it goes, and why.
        accuracy: On the evaluation data, `None` without.
        candidates: The models that were compared; the shipped one alone where there
            was no choice.
        choice: Why that one ships; empty where there was no choice.
        warnings: Sentences about a network that runs but answers oddly.
        seed: Of the training, `None` where it is not known.
        files: SHA-256 of every file in the folder but report.json, by name.
    """

    directory: pathlib.Path
    board: str
    firmware: str
    budget: Budget | None
    class_names: tuple[str, ...]
    quantization: str
    input_range: tuple[float, float]
    network_input_range: tuple[float, float]
    input_shape: tuple[int, ...]
    cost: Cost
    fit: Fit
    accuracy: Accuracy | None
    candidates: tuple[CandidateFigures, ...]
    choice: str
    warnings: tuple[str, ...]
    seed: int | None
    files: Mapping[str, str]

    @property
    def fits(self) -> bool:
        """Whether the model fits the camera."""
        return self.fit.fits

    @property
    def fit_reasons(self) -> tuple[str, ...]:
        """Why, in sentences."""
        return self.fit.reasons

    @property
    def sha256(self) -> str:
        """Of model.tflite."""
        return self.files[MODEL_FILE]

    @property
    def needs_compiler(self) -> bool:
        """Whether the camera runs what a compiler makes of model.tflite."""
        return self.board == NEEDS_COMPILER

    @property
    def is_grey(self) -> bool:
        """Whether the network takes grey images."""
        return self.input_shape[-1] == 1

    def to_json(self) -> str:
        """The text of report.json."""
        return signed_text(self.content())

    def content(self) -> dict[str, Any]:
        """The entries of report.json, all but the last."""
        return {
            "format": REPORT_FORMAT,
            "board": self.board,
            "firmware": self.firmware,
            "budget": budget_limits(self.budget),
            "class_names": self.class_names,
            "quantization": self.quantization,
            "input_range": self.input_range,
            "network_input_range": self.network_input_range,
            "input_shape": self.input_shape,
            **cost_figures(self.cost),
            **fit_figures(self.fit),
            "accuracy": self.accuracy and accuracy_figures(self.accuracy),
            "candidates": [dataclasses.asdict(one) for one in self.candidates],
            "choice": self.choice,
            "warnings": self.warnings,
            "seed": self.seed,
            "files": self.files,
            "versions": versions(),
            "how": how(self),
        }


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


def how(report: ExportReport) -> dict[str, str]:
    """How each figure of report.json was obtained, by its place in there."""
    before = ", before compilation" if report.needs_compiler else ""
    found = {
        "network_input_range": "exact: from the scale and zero point of the input",
        "flash_bytes": f"exact: the size of model.tflite{before}",
        "ram_bytes": _how_ram(report),
        "ram_breakdown": "derived: parts of ram_bytes at the fullest operation",
        "macs": "exact: counted over the network's operations",
        "parameters": "exact: counted over the network's weights and biases",
        "latency_ms_estimate": "estimated: from MACs and values written, fitted to "
        "published measurements (mean error on rows that the fit has not seen "
        f"{LEAVE_ONE_OUT_ERROR:.1%}), CPU only, arena in fast memory{before}",
        "latency_ms_range": "estimated: the bounds of latency_ms_estimate",
        "fits": "derived: loading simulated from the firmware's memory map; how much "
        "the script needs of the heap is a judgement",
    }
    if report.accuracy is None:
        return found
    return {**found, **_how_accurate(report, report.accuracy)}


def _how_ram(report: ExportReport) -> str:
    arena = report.cost.arena
    core = arena.core.replace("cortex-m", "Cortex-M") if arena else "unknown"
    plan = f"TFLM's memory plan recomputed for the {core}, and what the firmware adds"
    if report.needs_compiler:
        return f"estimated: {plan}, before compilation; the compiler decides"
    as_reported = f"{plan}; equals ml.Model(...).ram of firmware {DEFAULT_FIRMWARE}"
    if is_exact_release(report.firmware):
        return f"exact: {as_reported}"
    return f"estimated: {as_reported}, older ones differ"


def is_exact_release(firmware: str) -> bool:
    """Whether RAM is computed as a release allocates it; `""` stands for 5.0."""
    return not firmware or firmware.startswith(f"{DEFAULT_FIRMWARE}.")


def _how_accurate(report: ExportReport, accuracy: Accuracy) -> dict[str, str]:
    on = f"on {accuracy.images:,} evaluation images"
    if len(report.candidates) > 1:
        on += ", the same that chose among the candidates"
    file = "model.tflite before compilation" if report.needs_compiler else MODEL_FILE
    device = f"measured: {file} in {accuracy.runtime}"
    return {
        "accuracy.float32": f"measured: the Keras model {on}",
        "accuracy.fake_quantized": "measured: the quantized view, which computes the "
        f"camera's integers in TensorFlow, {on}",
        "accuracy.agreement": f"measured: view against {accuracy.runtime} {on}",
        "accuracy.int8": f"{device} {on}",
        "accuracy.camera": f"{device} on {accuracy.camera.images:,} of these images, "
        f"spread evenly over them, {_how_seen(report)}; int8_clean is the same images "
        "as they are",
        "accuracy.recall": "derived: from accuracy.confusion",
        "accuracy.confusion": f"measured: as accuracy.int8, {on}",
    }


def _how_seen(report: ExportReport) -> str:
    if report.is_grey:
        return (
            "which are those that the camera has: grey loses no bits, and cutting and "
            "scaling are those of whoever loaded the images"
        )
    return (
        "in RGB565 as the firmware stores them; that alone is modelled, cutting and "
        "scaling are those of whoever loaded the images"
    )


def accuracy_figures(accuracy: Accuracy) -> dict[str, Any]:
    """The entries of "accuracy"."""
    return {
        "float32": accuracy.float32,
        "fake_quantized": accuracy.fake_quantized,
        "agreement": accuracy.agreement,
        **device_figures(accuracy),
        "warnings": accuracy.warnings,
    }


def _text(content: Mapping[str, Any]) -> str:
    """JSON, indented, lists of plain values on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return _PLAIN_LIST.sub(_on_one_line, text) + "\n"


# Line breaks are never part of a JSON string, so that joining lines changes none.
_PLAIN_LIST = re.compile(r"\[\n[^][{}]*\]")


def _on_one_line(found: re.Match[str]) -> str:
    lines = [line.strip() for line in found[0].splitlines()]
    return f"{lines[0]}{' '.join(lines[1:-1])}{lines[-1]}"
