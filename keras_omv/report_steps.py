"""What to do with an export, in sentences: how to copy it, make it fit, make it better.

Imports no TensorFlow.
"""

from typing import Any

from keras_omv.boards import Board, Budget
from keras_omv.changes import other_boards
from keras_omv.evaluation import WANTED_AGREEMENT, Accuracy
from keras_omv.instructions import copy_instructions
from keras_omv.report import ExportReport

MOST_CAMERA_LOSS = 0.02
"""A larger loss of accuracy to RGB565 is worth training for, as the next step says."""
_MOST_BY_CHANCE = 4
"""So many answers that turn wrong are two standard deviations of their number."""


def next_steps(report: ExportReport, board: Board | Budget) -> list[str]:
    """What to do next, a sentence or two each.

    Args:
        report: The export's figures.
        board: The camera.
    """
    if not report.fits:
        return _mending(report, board)
    by_hand = copying_by_hand(report, board)
    deploy = "With the camera on USB: keras-omv deploy and this folder. By hand: "
    steps = [
        f"{deploy if isinstance(board, Board) else ''}{by_hand}",
        "Connect with OpenMV IDE: main.py prints the labels that it is most sure of, "
        "with the frame rate.",
    ]
    resolution = report.input_shape[1]
    return [*steps, *report.notes, *_improvements(report.accuracy, resolution)]


def copying_by_hand(report: ExportReport, board: Board | Budget) -> str:
    """Which files of an export to copy where.

    Args:
        report: The export's figures; it fits.
        board: The camera.
    """
    return copy_instructions(
        board,
        storage=report.fit.storage,
        replaces_stock_models=report.fit.replaces_stock_models,
        romfs=report.romfs,
        npu=report.npu,
    )


def _improvements(accuracy: Accuracy | None, resolution: int) -> list[str]:
    """What the accuracies ask for."""
    if accuracy is None:
        return [
            "Measure it: export again with evaluation_data=(images, labels), images "
            "that the training has not seen."
        ]
    steps, camera = [], accuracy.camera
    loss = camera.int8_clean - camera.int8
    turned = round(loss * camera.images)
    if loss > MOST_CAMERA_LOSS and turned > _MOST_BY_CHANCE:
        steps.append(
            f"The camera's RGB565 costs {100 * loss:.1f} points: train on what the "
            "camera sees, as keras-omv train does: "
            f"dataset.map(omv.camera_view({resolution}))."
        )
    if accuracy.agreement < WANTED_AGREEMENT:
        steps.append(
            "View and device agree less than they should: run keras-omv verify on the "
            "folder, and go by the accuracy on the device."
        )
    return steps


def _mending(report: ExportReport, board: Board | Budget) -> list[str]:
    fit, cost = report.fit, report.cost
    steps = []
    if fit.ram_over_bytes:
        steps.append("Take a smaller resolution or alpha: both shrink the RAM.")
    if fit.flash_over_bytes:
        steps.append(
            "Take a smaller alpha or a narrower last convolution: both shrink the file."
        )
    if isinstance(board, Board):
        classes = len(report.class_names)
        steps.append(
            f"keras-omv space --board {board.name} --classes {classes} lists every "
            "MobileNetV2 that fits."
        )

    def cost_there(other: Board) -> Any:
        return cost if other.core == board.core else None

    others = [change.value for change in other_boards(board, cost_there)]
    if others:
        steps.append(f"Or take another camera. As it is, it fits {', '.join(others)}.")
    return steps
