"""What a model costs on a camera, whatever form the model comes in."""

import os
import pathlib
from typing import Any

from keras_omv import flatbuffer
from keras_omv.boards import Board, Budget
from keras_omv.cost import Cost, cost_of
from keras_omv.errors import ExportError
from keras_omv.network import Network


def estimate(model: Any, *, board: Board | Budget | None = None) -> Cost:
    """The flash, RAM, MACs and time that a model takes on a camera.

    Args:
        model: A Keras 3 model, the path of a .keras, .h5 or .tflite file, or a
            `Network`. A Keras model need not be trained: its cost follows from its
            architecture.
        board: The camera; decides the core and its clock. Defaults to `None`, a
            Cortex-M7.

    Returns:
        The cost. `flash_bytes` is the size of the file that `omv.export` writes, or
        of the given .tflite as it is; `ram_bytes` is what `ml.Model(...).ram`
        reports; `latency_ms` is an estimate.

    Raises:
        UnsupportedModelError: If a Keras model cannot run on the camera.
        ExportError: If a file is not a model.
    """
    if isinstance(model, Network):
        return cost_of(model, flash_bytes=len(flatbuffer.write(model)), board=board)
    if isinstance(model, str | os.PathLike):
        path = pathlib.Path(model)
        if path.suffix == ".tflite":
            return _estimate_file(path, board)
        model = load_model(path)
    return estimate(network_of(model), board=board)


def network_of(model: Any) -> Network:
    """The int8 network of a Keras model, with ranges as they come.

    Its sizes are those of the export; its answers are not.
    """
    from keras_omv.convert import lower
    from keras_omv.view import QuantizedView

    return lower(QuantizedView(model))


def load_model(path: str | os.PathLike[str]) -> Any:
    """Loads a .keras or .h5 file for inference.

    Raises:
        ExportError: If the file is missing or is not a Keras model.
    """
    import keras

    from keras_omv.legacy import load_h5

    path = pathlib.Path(path)
    if not path.is_file() or path.suffix not in (".keras", ".h5", ".hdf5"):
        raise ExportError(
            "Expected the path of a .keras or .h5 model. Received: "
            f"{str(path)!r}{'' if path.exists() else ', which does not exist'}. "
            "Save a model with model.save('my_model.keras')."
        )
    try:
        if path.suffix != ".keras":
            return load_h5(path)
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ExportError(
            f"Expected a Keras model. Received: {str(path)!r}, which Keras cannot "
            f"load: {error} Save it again with the Keras that made it."
        ) from error


def _estimate_file(path: pathlib.Path, board: Board | Budget | None) -> Cost:
    try:
        data = path.read_bytes()
        network = flatbuffer.read(data)
    except Exception as error:
        raise ExportError(
            f"Expected a .tflite file. Received: {str(path)!r}, which cannot be read: "
            f"{error!r}. Export the model again."
        ) from error
    return cost_of(network, flash_bytes=len(data), board=board)
