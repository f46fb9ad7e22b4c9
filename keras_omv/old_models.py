"""Loads a model from a path, whatever made it, with the ranges it was trained with.

.keras and .h5 files, SavedModel folders and .tflite files all become Keras models.
Where a file brings the activation ranges of its training, an export takes these; a
.tflite file that a camera runs as it is ships with its own integers.
"""

import logging
import os
import pathlib
import weakref
from typing import Any

from keras_omv import flatbuffer, trained
from keras_omv.boards import Board, Budget, firmware_of
from keras_omv.estimation import load_with_ranges
from keras_omv.graph import FIXED
from keras_omv.inference import FIXED_QUANTIZATIONS
from keras_omv.network import Network
from keras_omv.old_tflite import to_keras
from keras_omv.rules import (
    INPUT_RANGE_TOLERANCE,
    USUAL_INPUT_RANGES,
    network_violations,
)
from keras_omv.saved_model import INPUT, NamedRanges
from keras_omv.tracing import trace
from keras_omv.view import QuantizedView

_LOGGER = logging.getLogger(__name__)

_NETWORKS: "weakref.WeakKeyDictionary[Any, tuple[str, Network]]"
_NETWORKS = weakref.WeakKeyDictionary()
"""What the .tflite files hold that models were made of, and the weights of then."""


def load(path: str | os.PathLike[str]) -> Any:
    """Loads a model for inference or further training.

    Args:
        path: A .keras, .h5 or .tflite file or a SavedModel folder.

    Returns:
        A Keras 3 model. An export takes its activation ranges from the file where
        they are all there; `keras_omv.trained` knows them.

    Raises:
        ExportError: If there is no such file, or it is not a Keras model.
        ModelFileError: If a .tflite file is missing or damaged.
        UnsupportedModelError: If no Keras model can be made of it, with the reasons.

    Example:

    ```python
    from keras_omv.old_models import load

    model = load("old.tflite")
    model.summary()
    ```
    """
    path = pathlib.Path(path)
    if path.suffix.lower() == ".tflite":
        network = flatbuffer.read(flatbuffer.read_bytes(path))
        model, ranges = to_keras(network)
        _NETWORKS[model] = (trained.fingerprint(model), network)
    else:
        model, ranges = load_with_ranges(path)
    if ranges and not _adopt(model, ranges):
        _LOGGER.warning(
            "%s: its activation ranges are not all known, or its input range is none "
            "that pixels usually have; they are taken from representative_data.",
            path.name,
        )
    return model


def own_network(model: Any, board: Board | Budget) -> Network | None:
    """The network of the .tflite file that a model was made of, if it can ship.

    Args:
        model: A model that `load` gave, its weights as they were.
        board: The camera.

    Returns:
        The network where the camera runs it as it is: with its input at pixel - 128,
        int8 probabilities at its output and no rule broken; else `None`.
    """
    weights, network = _NETWORKS.get(model, ("", None))
    if network is None or not _is_writable(network):
        return None
    if weights != trained.fingerprint(model):
        return None  # It was trained on.
    violations = network_violations(
        network,
        firmware=firmware_of(board),
        target=getattr(board, "target", None),
        input_ranges=USUAL_INPUT_RANGES,
    )
    return None if violations else network


def _is_writable(network: Network) -> bool:
    """Whether our writer knows it all, and scores are the probabilities it expects."""
    fixed, scores = FIXED_QUANTIZATIONS["softmax"], network.output
    is_known = {op.kind for op in network.ops} <= flatbuffer.WRITABLE
    is_list = len(scores.shape) == 2 and scores.scales.size == 1
    grid = (float(scores.scales[0]), int(scores.zero_points[0])) if is_list else ()
    return is_known and grid == (fixed.scale, fixed.zero_point)


def _adopt(model: Any, ranges: NamedRanges) -> bool:
    """Takes a file's ranges for the model's, if there is one for every value."""
    input_range = _usual_range(ranges.get(INPUT))
    if input_range is None:
        return False
    view = QuantizedView(model, input_range=input_range)
    places = {call.name: call.output for call in trace(model).calls}
    for step in view.graph.steps:
        if step.kind not in FIXED:
            places[step.name] = step.output
    named = {places[name]: ranges[name] for name in places.keys() & ranges.keys()}
    found = {value: named[value] for value in view.quantizers if value in named}
    if len(found) < len(view.quantizers):
        return False
    view.set_ranges(found)
    trained.adopt(model, view)
    return True


def _usual_range(found: tuple[float, float] | None) -> tuple[float, float] | None:
    """The usual range of pixels that a range is near to, `None` where there is none."""
    if found is None:
        return None
    for usual in USUAL_INPUT_RANGES:
        tolerance = INPUT_RANGE_TOLERANCE * (usual[1] - usual[0])
        if all(abs(a - b) <= tolerance for a, b in zip(found, usual, strict=True)):
            return usual
    return None
