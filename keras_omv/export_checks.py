"""What can be wrong with an export before any of its work is done."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_omv.boards import Board, Budget, firmware_of
from keras_omv.deploy import camera_script
from keras_omv.errors import DatasetError
from keras_omv.fusion import build_graph
from keras_omv.graph import Graph
from keras_omv.script_options import ScriptOptions
from keras_omv.storage import StockModels, check_stock_models


def check_classes(graph: Graph, class_names: Sequence[str]) -> None:
    """Checks that there is a label for each output.

    Raises:
        DatasetError: If there is not.
    """
    expected = 2 if graph.output_units == 1 else graph.output_units
    if len(class_names) != expected:
        raise DatasetError(
            f"Expected {expected} class names, as the model has {graph.output_units} "
            f"output{'s' if graph.output_units > 1 else ''}. Received: "
            f"{len(class_names)}: {list(class_names)}. Give one label for each output, "
            "in their order."
        )


def check_options(
    board: Board | Budget,
    *,
    dtype: str,
    on_exceed: str,
    stock_models: StockModels = None,
    script: ScriptOptions | None = None,
) -> None:
    """Checks what can be told from an export's options alone.

    Raises:
        ValueError: If one is not supported, or there is no script for the firmware.
        ExportError: If there is no image or folder at `stock_models`.
    """
    if dtype != "int8":
        raise ValueError(
            "Invalid value received for argument `dtype`. Expected 'int8': the "
            "camera's TFLM has int8 kernels only for what an image classifier needs, "
            f"and feeds int8 pixels. Received: dtype={dtype!r}. Leave it out."
        )
    if on_exceed not in ("raise", "warn"):
        raise ValueError(
            "Invalid value received for argument `on_exceed`. Expected 'raise' or "
            f"'warn'. Received: on_exceed={on_exceed!r}"
        )
    if not isinstance(script, ScriptOptions | None):
        raise ValueError(
            "Invalid value received for argument `script`. Expected "
            f"omv.ScriptOptions(...). Received: script={script!r}"
        )
    camera_script(firmware=firmware_of(board), options=script)
    check_stock_models(board, stock_models)


def check_models(
    models: Mapping[str, Any], class_names: Sequence[str], evaluation_data: Any
) -> None:
    """Checks the models of an export against its labels and its images.

    Raises:
        DatasetError: If a model has not as many outputs as there are labels, or there
            are no images to choose among several.
    """
    for one in models.values():
        check_classes(build_graph(one), class_names)
    if len(models) > 1 and evaluation_data is None:
        raise DatasetError(
            f"Expected images and labels to choose among {len(models)} models. "
            "Received: evaluation_data=None. Pass evaluation_data=(images, labels)."
        )
