"""Train a Keras 3 image classifier and get a folder that runs on an OpenMV camera.

Rooms, from the ground up; imports point downward only:

- errors, boards, network: exceptions, cameras, the int8 network as plain data.
- flatbuffer, arena, cost: the .tflite file, TFLM's memory, what fits and why not.
- tracing, graph, layers, fusion: a Keras model as the steps the camera takes.
- quantization, view, convert, pruning, trained: int8 in training and in the file.
- mobilenet, images: MobileNetV2 with its levers; images from folders.
- verify, deploy, estimation, exporter: proofs and the camera folder.
- callbacks, training, cli: what users call.

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
    "MobileNetV2": "mobilenet",
    "OpenMVExport": "callbacks",
    "PixelQuantize": "quantization",
    "PolynomialDecay": "pruning",
    "Pruning": "callbacks",
    "QuantizationAwareTraining": "callbacks",
    "TrainingDivergedError": "errors",
    "UnsupportedModelError": "errors",
    "board_names": "boards",
    "estimate": "estimation",
    "export": "exporter",
    "get_board": "boards",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
