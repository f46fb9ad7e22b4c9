"""Where a candidate's weights come from: an earlier trial, ImageNet, or chance."""

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_omv import trial as trials
from keras_omv.architecture import Levers
from keras_omv.pretrained import source_of
from keras_omv.results import TrialResult
from keras_omv.slicing import can_narrow, narrow

_LOGGER = logging.getLogger(__name__)


def start_weights(
    model: Any,
    levers: Levers,
    *,
    earlier: Sequence[TrialResult],
    project: pathlib.Path,
    weights: Any,
) -> str:
    """Gives a new model the weights of the best trained one that it can be cut from.

    Args:
        model: With random weights; changed in place.
        levers: Of the model.
        earlier: Results of other trials, the most accurate first; empty to take
            nothing from them.
        project: The folder that holds their folders.
        weights: As for `source_of`, for a model that no trial can start; `None` for
            none.

    Returns:
        What it was: a trial's name, `"weights"`, or `""` for random weights.
    """
    for result in earlier:
        # Not the same network: it would only be trained for longer.
        if result.levers == levers or not can_narrow(result.levers, levers):
            continue
        try:
            source = trials.load(project / f"trial_{result.model_trial_id}")
        except (OSError, ValueError) as error:
            _LOGGER.warning("Trial %s starts nothing: %s", result.trial_id, error)
            continue
        narrow(source, model)
        return result.trial_id
    if weights is None:
        return ""
    source = source_of(weights, levers)
    if not can_narrow(source, levers):
        _LOGGER.warning("The weights are too narrow for %s: it starts anew.", levers)
        return ""
    narrow(source, model)
    return "weights"
