"""What the callbacks of one `fit` let each other know, whichever stands first."""

import weakref
from typing import Any

_NOTES: "weakref.WeakKeyDictionary[Any, tuple[Any, dict[str, Any]]]"
_NOTES = weakref.WeakKeyDictionary()


def note(model: Any, name: str, value: Any) -> None:
    """Keeps a value for the fit of a model that begins.

    Args:
        model: The model; Keras gives it a new `History` for every fit.
        name: What the value is.
        value: The value.
    """
    fit, notes = _NOTES.get(model, (lambda: None, {}))
    if fit() is not model.history:
        notes = {}
        _NOTES[model] = (weakref.ref(model.history), notes)
    notes[name] = value


def noted(model: Any, name: str) -> Any:
    """What was noted in the fit that goes on, or went last; `None` if nothing."""
    fit, notes = _NOTES.get(model, (lambda: None, {}))
    return notes.get(name) if fit() is getattr(model, "history", None) else None
