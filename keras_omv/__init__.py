"""Train a Keras 3 image classifier and get a folder that runs on an OpenMV camera.

Rooms, from the ground up; imports point downward only:

- errors, units, notebook_bars, progress: exceptions with a next step; KiB and MiB;
  bars.
- memory, fit, board_data, boards: the cameras' memory, what fits in it and why not.
- network, builder, architecture: the int8 network as plain data; MobileNetV2's levers.
- tables, operators, reader, flatbuffer: the .tflite file, read and written.
- firmware, ranges, shapes, rules: what each release loads and runs well.
- kernels, arena, cost: TFLM's memory; flash, RAM, MACs and time.
- channels, compaction, shrinking: what a network can lose to become smaller.
- placement, trunk_counts, screening, space, space_map, changes: all candidates that
  fit, at full speed.
- tracing, calls, layers, graph, fusion: a Keras model as the steps the camera takes.
- scales, averaging, quantization: int8 rounding, and the ranges that it needs.
- fixed_point, folding, inference: the camera's integers.
- sampling, batches, normalization, rounding, view, convert: trained with rounding, and
  lowered.
- distillation: a float model that teaches the quantized one.
- mobilenet, pruning: MobileNetV2 in Keras; masks.
- saved_model, legacy, old_ops, old_tflite, old_models: what others wrote, as
  Keras models.
- importance, slicing, pretrained: a wider model's weights, and where they come from.
- camera, preprocessing: the camera's arithmetic, in NumPy and in TensorFlow.
- folders, pictures, images, survey: labelled images from folders.
- sandbox, tflm, frames, verify, verification: TFLM run, files judged.
- fits, channel_masks, planned, trained, routing: what a fit knows of its model.
- evaluation_data, evaluation, accuracy: accuracy measured.
- script_options, scripts, folder_swap, romfs, storage, deploy,
  instructions: the camera folder.
- compilers, ethos_u, vela, neuralart, npu, sparsity: NPUs, and what zeros save there.
- estimation, export_checks, camera_files, exporter: from a model to the folder.
- candidates, report, report_figures, report_steps, memory_map, front_map,
  report_page: what ships, with proof.
- report_again, report_files, report_check: the proof, checked.
- charts, memory_plot, plots: pictures for notebooks and TensorBoard.
- qat, scheduled, pruners, callbacks: what users add to fit.
- epoch_cost, epoch_accuracy, tracking: every epoch's figures, for TensorBoard.
- fit_progress, recipe, training: the default recipe.
- proposals, forecast, oracles, results, project, interruptions: a search's parts.
- feeds, sources, trial, starting, runner, search_options, search_loop, tuner,
  search_progress: a search that trains.
- search_tracking: its trials and pictures, for TensorBoard.
- camera_link, camera_commands, staging, serial_repl, serial_copy, drive_copy: copies
  to a camera.
- selftest, checked_folder, camera_check: what is compared there and before.
- screens, terminal, commands, making, search_command, verify_command,
  deploy_command, shared_arguments, arguments, cli: the shell.

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
    "CameraError": "errors",
    "CameraView": "preprocessing",
    "ChannelPruning": "pruners",
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
    "ScriptOptions": "script_options",
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
    "plot_memory": "memory_plot",
    "plot_pareto": "plots",
    "plot_space": "plots",
    "show_progress": "progress",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
