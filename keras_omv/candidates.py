"""Several models for one camera: which one ships.

Each model gives one candidate or two: with the activation ranges of its
quantization-aware training, and with ranges taken from images afterwards (plain
post-training quantization of the same weights). What decides is accuracy on the
camera's own arithmetic, among those that fit.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_omv import flatbuffer, trained
from keras_omv.accuracy import range_of
from keras_omv.boards import Board, Budget
from keras_omv.convert import lower
from keras_omv.cost import Cost, cost_of
from keras_omv.errors import ExportError
from keras_omv.evaluation import DeviceRun, run_device
from keras_omv.evaluation_data import check_pixels, to_pixels
from keras_omv.fit import Fit
from keras_omv.network import Network
from keras_omv.old_models import load, own_network
from keras_omv.progress import working
from keras_omv.routing import unroute
from keras_omv.verify import check_network
from keras_omv.view import QuantizedView

TRAINED, CALIBRATED = "trained", "calibrated"
ONLY_NAME = "model"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A model with its activation ranges, as it would ship.

    Attributes:
        name: The user's name for the model, or one by its position.
        quantization: `"trained"` where ranges come from quantization-aware
            training, `"calibrated"` where they come from representative data.
        model: The Keras model.
        view: Its quantized view, with ranges.
        network: The int8 network.
        file: The bytes of model.tflite.
        cost: What it costs.
        fit: Whether it fits the camera.
        run: Its answers to the evaluation images; `None` where it was not run.
    """

    name: str
    quantization: str
    model: Any
    view: QuantizedView
    network: Network
    file: bytes
    cost: Cost
    fit: Fit
    run: DeviceRun | None = None

    @property
    def label(self) -> str:
        """What sentences call it."""
        return f"{self.name} ({self.quantization})"


def named_models(model: Any) -> dict[str, Any]:
    """The models of an export by name, those given as paths loaded.

    Args:
        model: A Keras model or the path of one, a sequence of them, or a mapping
            from names to them.

    Raises:
        ExportError: If there is no model, or a path is not that of one.
    """
    if isinstance(model, Mapping):
        given = {str(name): one for name, one in model.items()}
    elif isinstance(model, list | tuple):
        given = {f"model {i}": one for i, one in enumerate(model, start=1)}
    else:
        given = {ONLY_NAME: model}
    if not given:
        raise ExportError(
            "Expected at least one model to export. Received: none. Pass a Keras "
            "model, a list of them, or a mapping from names to them."
        )
    return {name: _prepared(one) for name, one in given.items()}


def candidates_of(
    name: str,
    model: Any,
    *,
    board: Board | Budget,
    batches: Sequence[Any],
    input_range: tuple[float, float] | None,
    compare: bool,
) -> list[Candidate]:
    """The candidates that one model gives, the trained one first.

    Args:
        name: Its name.
        model: A Keras model.
        board: The camera.
        batches: Batches of images to take activation ranges from, or none.
        input_range: As in `omv.export`.
        compare: Whether trained ranges are also to be compared with calibrated ones.

    Raises:
        ExportError: If there are neither trained ranges nor images, or the network
            breaks a rule of the firmware.
        ValueError: If `input_range` is not the one that the model was trained with.
    """
    views: dict[str, QuantizedView] = {}
    view = trained.trained_view(model)
    if view is not None:
        views[TRAINED] = view
        input_range = _trained_range(view, input_range)
    own = view is not None and own_network(model, board) is not None
    if view is None or (compare and batches and not own):
        views[CALIBRATED] = _calibrated(model, batches, input_range)
    return [
        _candidate(name, quantization, model, view, board)
        for quantization, view in views.items()
    ]


def evaluate(
    candidates: Sequence[Candidate], images: np.ndarray, labels: np.ndarray
) -> list[Candidate]:
    """The candidates with their answers to images, those that can ship.

    Args:
        candidates: At least one.
        images: As they enter the models, `(n, height, width, channels)`.
        labels: Class numbers, `(n,)`.
    """
    some_fit = any(candidate.fit.fits for candidate in candidates)
    return [
        candidate
        if some_fit and not candidate.fit.fits
        else _evaluated(candidate, images, labels)
        for candidate in candidates
    ]


def choose(candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The candidate to ship, and why.

    Best is the one that is right most often on the device, among those that fit (or
    among all where none does). Those within one standard error of it are taken for
    equal, as in CART's rule (Breiman et al., 1984); the smaller file of them ships,
    then the smaller RAM, then the first.

    Args:
        candidates: At least one; those that fit were run if there are several.

    Returns:
        The candidate, and a sentence; empty where there was no choice.
    """
    pool = [c for c in candidates if c.fit.fits] or list(candidates)
    if len(candidates) == 1:
        return pool[0], ""
    best = max(pool, key=_accuracy)
    equals = [c for c in pool if _is_equal(best, c)]
    chosen = min(equals, key=lambda c: (c.cost.flash_bytes, c.cost.ram_bytes))
    why = _why(chosen, best, len(pool), len(candidates))
    return chosen, why + _plain_rounding(chosen, pool)


def _trained_range(
    view: QuantizedView, input_range: tuple[float, float] | None
) -> tuple[float, float]:
    """The range that a view was trained with; another one is refused."""
    found = range_of(view)
    if input_range is not None and tuple(input_range) != found:
        raise ValueError(
            "Invalid value received for argument `input_range`. Expected "
            f"{found}, with which the model was trained. Received: "
            f"input_range={tuple(input_range)}. Leave it out."
        )
    return found


def _prepared(model: Any) -> Any:
    if isinstance(model, str | os.PathLike):
        with working(f"Reading {os.fspath(model)}"):
            model = load(model)
    unroute(model)
    return model


def _candidate(
    name: str,
    quantization: str,
    model: Any,
    view: QuantizedView,
    board: Board | Budget,
) -> Candidate:
    with working("Converting the model"):
        own = own_network(model, board) if quantization == TRAINED else None
        network = own or lower(view)
        check_network(network, board=board)
        file = flatbuffer.write(network)
    cost = cost_of(network, flash_bytes=len(file), board=board)
    return Candidate(
        name=name,
        quantization=quantization,
        model=model,
        view=view,
        network=network,
        file=file,
        cost=cost,
        fit=board.fit(cost),
    )


def _calibrated(
    model: Any, batches: Sequence[Any], input_range: tuple[float, float] | None
) -> QuantizedView:
    with working("Taking activation ranges") as progress:
        view = QuantizedView(model, input_range=input_range)
        if view.calibrate(progress.over(batches)):
            return view
    raise ExportError(
        "Expected some images to take activation ranges from. Received: a model whose "
        "weights were not trained with QuantizationAwareTraining in this process, and "
        "no or empty representative_data. Pass representative_data=train_images."
    )


def _evaluated(
    candidate: Candidate, images: np.ndarray, labels: np.ndarray
) -> Candidate:
    input_range = range_of(candidate.view)
    check_pixels(images, input_range)
    run = run_device(candidate.network, to_pixels(images, input_range), labels)
    return dataclasses.replace(candidate, run=run)


def _accuracy(candidate: Candidate) -> float:
    return candidate.run.accuracy if candidate.run else 0.0


def _is_equal(best: Candidate, other: Candidate) -> bool:
    """Whether two accuracies on the same images are within one standard error.

    Only images that one of them gets right and the other does not count: their
    difference has the variance b + c (McNemar, 1947).
    """
    if best.run is None or other.run is None:
        return best is other
    gained = int(np.sum(best.run.is_right & ~other.run.is_right))
    lost = int(np.sum(other.run.is_right & ~best.run.is_right))
    return (gained - lost) ** 2 <= gained + lost


def _plain_rounding(chosen: Candidate, pool: Sequence[Candidate]) -> str:
    """Says so where training with rounding has brought nothing that can be seen."""
    for other in pool:
        is_plain = other.name == chosen.name and other.quantization == CALIBRATED
        if chosen.quantization == TRAINED and is_plain and _is_equal(chosen, other):
            return (
                " Plain post-training quantization of the same weights is as accurate "
                f"within the noise ({_accuracy(other):.1%})."
            )
    return ""


def _why(chosen: Candidate, best: Candidate, fitting: int, count: int) -> str:
    if fitting == 1:
        return (
            f"{chosen.label} ships: of the {count} candidates it alone fits the "
            f"camera; its accuracy there is {_accuracy(chosen):.1%}."
        )
    of = f"the {count} candidates" if fitting == count else f"the {fitting} that fit"
    if chosen is best:
        return (
            f"{chosen.label} ships: of {of} it is right most often on the camera's "
            f"arithmetic, {_accuracy(chosen):.1%}."
        )
    is_smaller = (chosen.cost.flash_bytes, chosen.cost.ram_bytes) < (
        best.cost.flash_bytes,
        best.cost.ram_bytes,
    )
    return (
        f"{chosen.label} ships: within the noise it is as accurate on the camera's "
        f"arithmetic as the best of {of}, {best.label} ({_accuracy(chosen):.1%} and "
        f"{_accuracy(best):.1%}), and {'smaller' if is_smaller else 'listed first'}."
    )
