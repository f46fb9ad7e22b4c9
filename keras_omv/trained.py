"""Remembers which activation ranges belong to which weights of a model.

Callbacks that restore earlier weights (EarlyStopping) know nothing of ranges,
which are not part of the user's model. Every epoch's ranges are kept with a
fingerprint of the weights, so that an export finds those that were trained with
the weights the model has now.
"""

import dataclasses
import hashlib
import logging
import weakref
from typing import Any

from keras_omv.view import QuantizedView

_LOGGER = logging.getLogger(__name__)

Ranges = dict[int, tuple[float, float]]

_RECORDS: "weakref.WeakKeyDictionary[Any, Record]" = weakref.WeakKeyDictionary()


@dataclasses.dataclass(eq=False)
class Record:
    """The view of a model in training, and the ranges of its epochs.

    Attributes:
        view: The quantized view.
        fit: The `History` of the fit that trains through the view; Keras makes a
            new one for every fit, so that an interrupted fit is not taken for this.
        ranges: Ranges by the fingerprint of the weights they were trained with;
            `None` for epochs without fake quantization.
    """

    view: QuantizedView
    fit: "weakref.ref[Any]"
    ranges: dict[str, Ranges | None] = dataclasses.field(default_factory=dict)


def begin(model: Any, view: QuantizedView) -> None:
    """Starts a new record, as the training of a model begins."""
    _RECORDS[model] = Record(view, weakref.ref(model.history))


def note_epoch(model: Any, *, quantized: bool) -> None:
    """Keeps the view's ranges for the model's weights of this moment.

    Args:
        model: The model in training.
        quantized: Whether this epoch was trained with fake quantization.
    """
    record = _RECORDS[model]
    ranges = record.view.get_ranges() if quantized else None
    record.ranges[fingerprint(model)] = ranges


def adopt(model: Any, view: QuantizedView) -> None:
    """Takes a view's ranges for those of the model's weights, without a fit.

    Args:
        model: A model whose ranges were kept elsewhere.
        view: Of the model, with these ranges.
    """
    record = Record(view, weakref.ref(view))
    record.ranges[fingerprint(model)] = view.get_ranges()
    _RECORDS[model] = record


def in_training(model: Any) -> QuantizedView | None:
    """The view of the fit that goes on, or went last, if any."""
    record = _RECORDS.get(model)
    if record is None or record.fit() is not getattr(model, "history", None):
        return None
    return record.view


def trained_view(model: Any) -> QuantizedView | None:
    """The view with the ranges that belong to the model's weights.

    Args:
        model: A model that may have been trained with fake quantization.

    Returns:
        The view, or `None` where there was no fake quantization or the weights
        were changed since. For weights of an epoch before it began, the first
        ranges after them.
    """
    record = _RECORDS.get(model)
    weights = fingerprint(model)
    if record is None or weights not in record.ranges:
        return None
    ranges = record.ranges[weights]
    if ranges is None:
        ranges = next((r for r in record.ranges.values() if r is not None), None)
        if ranges is None:
            return None
        _LOGGER.warning(
            "The model's weights are of an epoch before fake quantization began "
            "(restored by EarlyStopping, perhaps). The activation ranges of the first "
            "quantized epoch are taken; pass representative_data for ranges of its own."
        )
    record.view.set_ranges(ranges)
    return record.view


def fingerprint(model: Any) -> str:
    """Stands for the weights that a model has at this moment."""
    digest = hashlib.blake2b(digest_size=16)
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()
