"""Makes a model compute through its quantized view, and plain again.

Keras calls `model.call`; an attribute of the instance stands in front of the
method. Nothing else of the model changes: not its layers, its weights or what
`save` writes.
"""

import logging
import threading
from typing import Any

from keras_omv.distillation import Distillation
from keras_omv.view import QuantizedView

_LOGGER = logging.getLogger(__name__)


def route(
    model: Any, view: QuantizedView, distillation: Distillation | None = None
) -> None:
    """Makes a model compute through a view.

    Args:
        model: A compiled model.
        view: Of the model.
        distillation: A loss that is added to the model's own in training steps.
    """
    # Of the step that runs, or is traced. tf.distribute traces each replica in a
    # thread of its own, now this one and now another.
    step = threading.local()

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        step.added = None
        if not training:
            return view(inputs)
        x = view.preprocess(inputs)
        scores = view.train(x)
        if distillation is not None:
            step.added = distillation(view.images_of(x), scores)
        return scores

    def compute_loss(*args: Any, **kwargs: Any) -> Any:
        loss = type(model).compute_loss(model, *args, **kwargs)
        added, step.added = getattr(step, "added", None), None
        return loss if added is None else loss + added

    model.call = call
    # Functional models have no add_loss.
    model.compute_loss = compute_loss
    _retrace(model)
    _LOGGER.info("Training continues with int8 fake quantization.")


def unroute(model: Any) -> None:
    """Makes a model plain again."""
    if "call" in vars(model):
        del model.call
        del model.compute_loss
        _retrace(model)


def _retrace(model: Any) -> None:
    model.make_train_function(force=True)
    model.make_test_function(force=True)
    model.make_predict_function(force=True)
