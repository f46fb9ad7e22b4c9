"""The report of an export: its data, and report.json.

Every figure of report.json has an entry in its "how": measured by what, exact from
what, or estimated. `templates/report.schema.json` is the JSON Schema that describes
the file. The same export gives the same bytes: there are no dates and no paths in
it. The last entry is the SHA-256 of all that stands before it, so that a changed
byte shows; `keras_omv.report_check` recomputes the rest. Imports no TensorFlow.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_omv.boards import DEFAULT_FIRMWARE, NEEDS_COMPILER, Budget
from keras_omv.cost import LEAVE_ONE_OUT_ERROR, Cost
from keras_omv.deploy import MODEL_FILE
from keras_omv.evaluation import Accuracy
from keras_omv.fit import Fit
from keras_omv.npu import NpuReport
from keras_omv.report_figures import (
    REPORT_FORMAT,
    accuracy_figures,
    budget_limits,
    cost_figures,
    fit_figures,
    is_exact_release,
    signed_text,
    versions,
)
from keras_omv.script_options import ScriptOptions
from keras_omv.storage import RomfsContents


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
class TrialFigures:
    """One trial of the search that a model comes from.

    Attributes:
        alpha: Width multiplier.
        resolution: Side of the image in pixels.
        head_channels: Width of the last convolution.
        depth: How many of the 17 blocks are kept.
        flash_bytes: The size of its file.
        ram_bytes: Its RAM.
        int8_accuracy: Of its int8 network on the search's validation images.
        stopped: Whether its training ended early, being behind.
    """

    alpha: float
    resolution: int
    head_channels: int
    depth: int
    flash_bytes: int
    ram_bytes: int
    int8_accuracy: float
    stopped: bool


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
        trials: Of the search that the model comes from; empty where there was none.
        warnings: Sentences about a network that runs but answers oddly.
        zero_weights: The share of zeros among the weights.
        notes: Sentences about what would serve this camera better.
        npu: What became of the model on the way to the camera's NPU, `None` for a
            camera without one.
        romfs: What romfs.img holds, `None` where there is none.
        script: The options of main.py.
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
    trials: tuple[TrialFigures, ...]
    warnings: tuple[str, ...]
    zero_weights: float
    notes: tuple[str, ...]
    npu: NpuReport | None
    romfs: RomfsContents | None
    script: ScriptOptions
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
        """Whether the camera loads nothing but what a compiler makes of the model."""
        return self.board == NEEDS_COMPILER

    @property
    def is_compiled(self) -> bool:
        """Whether there is a file for the camera's NPU."""
        return self.npu is not None and bool(self.npu.compiler)

    @property
    def runs_compiled(self) -> bool:
        """Whether what runs is not model.tflite but what a compiler makes of it."""
        return self.needs_compiler or self.is_compiled

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
            "trials": [dataclasses.asdict(one) for one in self.trials],
            "warnings": self.warnings,
            "zero_weights": self.zero_weights,
            "notes": self.notes,
            "npu": self.npu and dataclasses.asdict(self.npu),
            "romfs": self.romfs and dataclasses.asdict(self.romfs),
            "script": dataclasses.asdict(self.script),
            "seed": self.seed,
            "files": self.files,
            "versions": versions(),
            "how": how(self),
        }


def how(report: ExportReport) -> dict[str, str]:
    """How each figure of report.json was obtained, by its place in there."""
    before = ", before compilation" if report.runs_compiled else ""
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
        "zero_weights": "exact: counted over the network's int8 weights",
        **_how_compiled(report.npu),
    }
    if report.trials:
        found["trials"] = (
            "measured: int8_accuracy on the search's validation images; derived: "
            "flash_bytes and ram_bytes, as those of the model, from the levers"
        )
    if report.romfs is not None:
        found["romfs"] = "exact: read back from romfs.img"
    if report.accuracy is None:
        return found
    return {**found, **_how_accurate(report, report.accuracy)}


def _how_compiled(npu: NpuReport | None) -> dict[str, str]:
    """How the figures of a compiled file were obtained."""
    if npu is None or not npu.compiler:
        return {}
    found = {"npu.file_bytes": "exact: the size of model_npu.tflite"}
    if npu.latency_ms is None:
        return found
    return {
        **found,
        "npu.sram_bytes": "exact: the scratch tensor of model_npu.tflite",
        "npu.cpu_ops": "exact: read from model_npu.tflite",
        "npu.latency_ms": f"estimated: by {npu.compiler}, from npu.cycles at the NPU's "
        "clock",
        "npu.cycles": f"estimated: by {npu.compiler}, with the firmware's figures of "
        "the memories",
        "npu.weight_bytes": f"exact: counted by {npu.compiler}",
        "npu.encoded_weight_bytes": f"exact: counted by {npu.compiler}",
    }


def _how_ram(report: ExportReport) -> str:
    arena = report.cost.arena
    core = arena.core.replace("cortex-m", "Cortex-M") if arena else "unknown"
    plan = f"TFLM's memory plan recomputed for the {core}, and what the firmware adds"
    if report.runs_compiled:
        return f"estimated: {plan}, before compilation; the compiler decides"
    as_reported = f"{plan}; equals ml.Model(...).ram of firmware {DEFAULT_FIRMWARE}"
    if is_exact_release(report.firmware):
        return f"exact: {as_reported}"
    return f"estimated: {as_reported}, older ones differ"


def _how_accurate(report: ExportReport, accuracy: Accuracy) -> dict[str, str]:
    on = f"on {accuracy.images:,} evaluation images"
    if len(report.candidates) > 1:
        on += ", the same that chose among the candidates"
    file = "model.tflite before compilation" if report.runs_compiled else MODEL_FILE
    device = f"measured: {file} in {accuracy.runtime}"
    return {
        "accuracy.float32": f"measured: the Keras model {on}",
        "accuracy.fake_quantized": "measured: the quantized view, which computes the "
        f"camera's integers in TensorFlow, {on}",
        "accuracy.agreement": f"measured: view against {accuracy.runtime} {on}",
        "accuracy.int8": f"{device} {on}",
        "accuracy.camera": f"{device} on {accuracy.camera.images:,} of these images, "
        f"drawn from all of them, {_how_seen(report)}; int8_clean is the same images "
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
