"""Makes a model compute through its quantized view, and plain again.

Keras calls `model.call`; an attribute of the instance stands in front of the
method. Nothing else of the model changes: not its layers, its weights or what
`save` writes.
"""

import logging
from typing import Any

from keras_omv.view import QuantizedView

_LOGGER = logging.getLogger(__name__)


def route(model: Any, view: QuantizedView) -> None:
    """Makes a model compute through a view."""

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return view(inputs, training=bool(training))

    model.call = call
    _retrace(model)
    _LOGGER.info("Training continues with int8 fake quantization.")


def unroute(model: Any) -> None:
    """Makes a model plain again."""
    if "call" in vars(model):
        del model.call
        _retrace(model)


def _retrace(model: Any) -> None:
    model.make_train_function(force=True)
    model.make_test_function(force=True)
    model.make_predict_function(force=True)
