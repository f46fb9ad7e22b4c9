"""Train a Keras 3 image classifier and get a folder that runs on an OpenMV camera.

Rooms, from the ground up; imports point downward only:

- errors, units: exceptions with a next step; KiB and MiB.
- memory, fit, boards: the cameras' memory, what fits in it and why not.
- network, builder, architecture: the int8 network as plain data; MobileNetV2's levers.
- tables, operators, reader, flatbuffer: the .tflite file, read and written.
- firmware: what each release loads.
- kernels, arena, cost: TFLM's memory; flash, RAM, MACs and time.
- placement, screening, space, changes: all candidates that fit, at full speed.
- tracing, calls, layers, graph, fusion: a Keras model as the steps the camera takes.
- quantization, view, convert: int8 rounding in training, and the same in the file.
- mobilenet, pruning, legacy: MobileNetV2 in Keras; masks; files of Keras 2.
- folders, pictures, images, survey: labelled images from folders.
- trained, routing, tflm, verify, accuracy: ranges kept, TFLM run, accuracy measured.
- folder_swap, deploy, estimation, exporter: the camera folder and its report.
- callbacks, progress, training, screens, commands, cli: what users call.

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
    "ConstantSparsity": "pruning",
    "Cost": "cost",
    "DatasetError": "errors",
    "ExportError": "errors",
    "ExportReport": "exporter",
    "FakeQuantize": "quantization",
    "Levers": "architecture",
    "MobileNetV2": "mobilenet",
    "ModelFileError": "errors",
    "Network": "network",
    "OpenMVExport": "callbacks",
    "PixelQuantize": "quantization",
    "Point": "space",
    "PolynomialDecay": "pruning",
    "Pruning": "callbacks",
    "QuantizationAwareTraining": "callbacks",
    "TrainingDivergedError": "errors",
    "UnsupportedModelError": "errors",
    "board_names": "boards",
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
