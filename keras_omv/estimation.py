"""What a model costs on a camera, whatever form the model comes in."""

import os
import pathlib
from typing import Any

from keras_omv import flatbuffer
from keras_omv.architecture import Levers, network_of_levers
from keras_omv.boards import Board, Budget, as_board
from keras_omv.cost import Cost, cost_of
from keras_omv.errors import ExportError, UnsupportedModelError
from keras_omv.firmware import firmware_problems, will_not_load
from keras_omv.network import Network
from keras_omv.progress import working
from keras_omv.saved_model import NamedRanges, is_saved_model
from keras_omv.screening import cost_of_levers

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")


def estimate(
    model: Any = None,
    *,
    board: Board | Budget | str | None = None,
    alpha: float | None = None,
    resolution: int | None = None,
    classes: int | None = None,
    channels: int | None = None,
    head_channels: int | None = None,
    depth: int | None = None,
) -> Cost:
    """The flash, RAM, MACs and time that a model takes on a camera.

    Args:
        model: A Keras 3 model, the path of a .keras, .h5 or .tflite file or of a
            SavedModel folder, a `Network`, or the `Levers` of a MobileNetV2. A Keras
            model need not be trained: its cost follows from its architecture.
        board: The camera or its name; decides the core and its clock. Defaults to
            `None`, a Cortex-M7.
        alpha: In place of `model`: width multiplier of a MobileNetV2, which is not
            built and needs no TensorFlow.
        resolution: Its image's height and width in pixels.
        classes: Its number of classes.
        channels: 1 for grey, 3 for RGB. Defaults to `None`, RGB.
        head_channels: Width of its last convolution. Defaults to `None`, 1280.
        depth: How many of its 17 blocks are kept. Defaults to `None`, all.

    Returns:
        The cost. `flash_bytes` is the size of the file that `omv.export` writes, or
        of the given .tflite as it is; `ram_bytes` is what `ml.Model(...).ram`
        reports; `latency_ms` is an estimate.

    Raises:
        ValueError: If there is neither a model nor alpha, resolution and classes, or
            both, or a lever without a meaning.
        UnsupportedModelError: If a model cannot run on the camera, with the reasons.
        ExportError: If a .keras or .h5 file is missing or not a model.
        ModelFileError: If a .tflite file is missing, none, or damaged.

    Example:

    >>> import keras_omv as omv
    >>> omv.estimate(alpha=0.35, resolution=96, classes=5).ram_bytes
    205152
    """
    levers = {
        **{"alpha": alpha, "resolution": resolution, "classes": classes},
        **{"channels": channels, "head_channels": head_channels, "depth": depth},
    }
    given = {name: value for name, value in levers.items() if value is not None}
    if model is None:
        model = _levers(given)
    elif given:
        raise ValueError(
            "Expected a model or the levers of one. Received: both, model="
            f"{model!r}, {', '.join(f'{name}={given[name]!r}' for name in given)}. "
            "Next step: leave one of them out."
        )
    found, _ = examine(model, board=board)
    return found


def _levers(given: dict[str, Any]) -> Levers:
    missing = [name for name in ("alpha", "resolution", "classes") if name not in given]
    if missing:
        raise ValueError(
            "Expected a model, or alpha, resolution and classes. Received: no model "
            f"and no {' and no '.join(missing)}. "
            "Next step: omv.estimate(alpha=0.35, resolution=96, classes=5)."
        )
    return Levers(**given)


def examine(
    model: Any, *, board: Board | Budget | str | None = None
) -> tuple[Cost, Network]:
    """What a model costs, and the network that costs it.

    Args:
        model: As in `estimate`.
        board: As in `estimate`.

    Raises:
        ValueError: As `estimate` does.
    """
    board = None if board is None else as_board(board)
    if isinstance(model, str | os.PathLike):
        path = pathlib.Path(model)
        if path.suffix.lower() == ".tflite":
            return _examine_file(path, board)
        if path.suffix not in KERAS_SUFFIXES and not is_saved_model(path):
            raise ExportError(
                "Expected the path of a .keras, .h5 or .tflite model, or of a "
                f"SavedModel folder. Received: {str(path)!r}. "
                "Next step: save a model with model.save('my_model.keras')."
            )
        model = load_model(path)
    if isinstance(model, Levers):
        flash_bytes = cost_of_levers(model, board=board).flash_bytes
        network = network_of_levers(model)
    else:
        network = model if isinstance(model, Network) else network_of(model)
        flash_bytes = len(flatbuffer.write(network))
    return cost_of(network, flash_bytes=flash_bytes, board=board), network


def network_of(model: Any) -> Network:
    """The int8 network of a Keras model, with ranges as they come.

    Its sizes are those of the export; its answers are not.
    """
    from keras_omv.convert import lower
    from keras_omv.view import QuantizedView

    with working("Converting the model"):
        return lower(QuantizedView(model))


def load_model(path: str | os.PathLike[str]) -> Any:
    """Loads a .keras or .h5 file or a SavedModel folder for inference.

    Args:
        path: Of a model that Keras 2 or 3 wrote.

    Raises:
        ExportError: If there is no such file, or it is not a Keras model.
        UnsupportedModelError: If it needs code that it does not hold.
    """
    return load_with_ranges(path)[0]


def load_with_ranges(path: str | os.PathLike[str]) -> tuple[Any, NamedRanges]:
    """Loads a model with the activation ranges that its file holds.

    Args:
        path: As in `load_model`.

    Returns:
        The model, and ranges by layers' names where tensorflow-model-optimization
        trained them, else none.

    Raises:
        ExportError: As `load_model` does.
        UnsupportedModelError: As `load_model` does.
    """
    import keras

    from keras_omv import legacy

    path = pathlib.Path(path)
    _check_path(path)
    try:
        if path.suffix != ".keras" or is_saved_model(path):
            return legacy.load_with_ranges(path)
        return keras.models.load_model(path, compile=False), {}
    except (ExportError, UnsupportedModelError):
        raise
    except Exception as error:
        raise ExportError(
            f"Expected a Keras model. Received: {str(path)!r}, which Keras cannot "
            f"load: {error} Save it again with the Keras that made it."
        ) from error


def _check_path(path: pathlib.Path) -> None:
    if is_saved_model(path) or (path.is_file() and path.suffix in KERAS_SUFFIXES):
        return
    state = "" if path.exists() else ", which does not exist"
    if path.is_dir():
        state = ", a folder without the saved_model.pb of a SavedModel"
    raise ExportError(
        "Expected the path of a .keras or .h5 model, or of a SavedModel folder. "
        f"Received: {str(path)!r}{state}. Save a model with "
        "model.save('my_model.keras')."
    )


def _examine_file(
    path: pathlib.Path, board: Board | Budget | None
) -> tuple[Cost, Network]:
    data = flatbuffer.read_bytes(path)
    network = flatbuffer.read(data)
    if isinstance(board, Board):
        problems = firmware_problems(
            network, firmware=board.firmware, target=board.target
        )
        if problems:
            raise UnsupportedModelError(
                f"{will_not_load(problems)}. Next step: keras-omv export {path}, which "
                "makes a file that loads where its layers are known"
            )
    return cost_of(network, flash_bytes=len(data), board=board), network
