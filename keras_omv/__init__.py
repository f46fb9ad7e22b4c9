"""Train a Keras 3 image classifier and get a folder that runs on an OpenMV camera.

Rooms, from the ground up; imports point downward only:

- errors, units: exceptions with a next step; KiB and MiB.
- memory, fit, boards: the cameras' memory, what fits in it and why not.
- network, builder, architecture: the int8 network as plain data; MobileNetV2's levers.
- tables, operators, reader, flatbuffer: the .tflite file, read and written.
- firmware, ranges, shapes, rules: what each release loads and runs well.
- kernels, arena, cost: TFLM's memory; flash, RAM, MACs and time.
- placement, screening, space, changes: all candidates that fit, at full speed.
- tracing, calls, layers, graph, fusion: a Keras model as the steps the camera takes.
- scales, quantization, fixed_point, folding: int8 rounding, and the camera's integers.
- inference, view, convert: rounding in training, the same in inference and in the file.
- mobilenet, pruning, legacy: MobileNetV2 in Keras; masks; files of Keras 2.
- importance, slicing, pretrained: a wider model's weights, and where they come from.
- camera, preprocessing: the camera's arithmetic, in NumPy and in TensorFlow.
- folders, pictures, images, survey: labelled images from folders.
- sandbox, tflm, frames, verify, verification: TFLM run, files judged.
- trained, routing, evaluation_data, evaluation, accuracy: accuracy measured.
- scripts, folder_swap, romfs, deploy, estimation, exporter: the camera folder.
- candidates, report, memory_map, report_page: what ships, with proof.
- report_again, report_check: the proof, checked.
- qat, pruners, callbacks: what users add to fit.
- progress, recipe, training: the default recipe.
- proposals, forecast, oracles, results, project, interruptions: a search's parts.
- feeds, sources, trial, starting, runner, tuner, search_progress: a search that trains.
- screens, terminal, commands, making, search_command, verify_command, cli: the shell.

The names below are loaded when they are first used, so that the rooms without
TensorFlow stay quick to import.
"""

import importlib
from typing import Any

_HOMES = {
    "Board": "boards",
    "Budget": "boards",
    "BudgetError": "errors",
    "BudgetMonitor": "callbacks",
    "CameraView": "preprocessing",
    "ConstantSparsity": "pruning",
    "Cost": "cost",
    "DatasetError": "errors",
    "ExportError": "errors",
    "ExportReport": "report",
    "FakeQuantize": "quantization",
    "Levers": "architecture",
    "MobileNetV2": "mobilenet",
    "MobileNetV2Tuner": "tuner",
    "ModelFileError": "errors",
    "Network": "network",
    "OpenMVExport": "callbacks",
    "PixelQuantize": "quantization",
    "Point": "space",
    "PolynomialDecay": "pruning",
    "Pruning": "pruners",
    "QuantizationAwareTraining": "qat",
    "Recipe": "recipe",
    "SearchError": "errors",
    "TrainingDivergedError": "errors",
    "UnsupportedModelError": "errors",
    "board_names": "boards",
    "camera_view": "preprocessing",
    "estimate": "estimation",
    "export": "exporter",
    "feasible_points": "space",
    "firmware_problems": "firmware",
    "get_board": "boards",
    "nearest_changes": "changes",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
