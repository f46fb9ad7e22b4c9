"""The trials of a search as dots: int8 accuracy against flash, and their front.

The numbers behind the picture in report.html; positions are percentages of it, from
the left and from the bottom. Imports no TensorFlow.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from keras_omv.boards import Board, Budget
from keras_omv.report import TrialFigures
from keras_omv.results import TrialResult, pareto
from keras_omv.screening import cost_of_levers
from keras_omv.units import format_bytes

FRONT, BEATEN, STOPPED = "front", "beaten", "stopped"
"""What became of a trial: unbeaten, beaten by another one, or stopped early."""
_MARGIN = 6
"""Percent of the picture that stay empty at each edge."""


@dataclasses.dataclass(frozen=True, slots=True)
class Dot:
    """A trial.

    Attributes:
        kind: What became of it.
        left: Its flash, in percent of the picture.
        bottom: Its accuracy, in percent of the picture.
        title: In words.
    """

    kind: str
    left: float
    bottom: float
    title: str


@dataclasses.dataclass(frozen=True, slots=True)
class FrontMap:
    """The picture.

    Attributes:
        dots: The trials; those of the front last, and there the cheapest first.
        column: Where the model's own flash lies, in percent of the picture.
        flash_bytes: The least and the most flash in it.
        accuracy: The lowest and the highest accuracy in it.
    """

    dots: tuple[Dot, ...]
    column: float
    flash_bytes: tuple[int, int]
    accuracy: tuple[float, float]

    @property
    def front(self) -> tuple[Dot, ...]:
        """The trials that no other one beats in both accuracy and flash."""
        return tuple(dot for dot in self.dots if dot.kind == FRONT)


def trial_figures(
    results: Iterable[TrialResult],
    *,
    board: Board | Budget,
    classes: int,
    channels: int,
) -> tuple[TrialFigures, ...]:
    """What a report says of a search's trials.

    Args:
        results: Such as `tuner.results()`.
        board: The camera of the export, for which flash and RAM are computed.
        classes: Of the model that is exported.
        channels: Of its images.

    Raises:
        ValueError: If a trial is of other images or classes, or its accuracy is no
            share.
    """
    return tuple(_figures(result, board, classes, channels) for result in results)


def _figures(
    result: TrialResult, board: Board | Budget, classes: int, channels: int
) -> TrialFigures:
    levers, accuracy = result.levers, float(result.int8_accuracy)
    is_same_task = (levers.classes, levers.channels) == (classes, channels)
    if not is_same_task or not 0 <= accuracy <= 1:
        raise ValueError(
            "Invalid value received for argument `trials`. Expected those of the "
            f"model's own search, of {classes} classes and {channels} channels, with "
            f"an accuracy in [0, 1]. Received: {result}, {levers.classes} classes and "
            f"{levers.channels} channels. Pass tuner.results(), or leave it out."
        )
    cost = cost_of_levers(levers, board=board)
    return TrialFigures(
        alpha=float(levers.alpha),
        resolution=int(levers.resolution),
        head_channels=int(levers.head),
        depth=int(levers.depth),
        flash_bytes=cost.flash_bytes,
        ram_bytes=cost.ram_bytes,
        int8_accuracy=accuracy,
        stopped=bool(result.stopped),
    )


def front_map(trials: Sequence[TrialFigures], flash_bytes: int) -> FrontMap | None:
    """The picture of a search; `None` where there was none.

    Args:
        trials: Of the search.
        flash_bytes: Of the model that ships, which is marked.

    Example:

    >>> small = TrialFigures(alpha=0.1, resolution=64, head_channels=160, depth=17,
    ...     flash_bytes=90_000, ram_bytes=60_000, int8_accuracy=0.71, stopped=False)
    >>> wide = dataclasses.replace(small, flash_bytes=300_000, int8_accuracy=0.83)
    >>> [dot.left for dot in front_map([small, wide], 300_000).front]
    [6.0, 94.0]
    """
    if not trials:
        return None
    sizes = [flash_bytes, *(trial.flash_bytes for trial in trials)]
    shares = [trial.int8_accuracy for trial in trials]
    flash, accuracy = (min(sizes), max(sizes)), (min(shares), max(shares))
    kinds = _kinds(trials)
    dots = tuple(
        Dot(
            kinds[trial],
            _place(trial.flash_bytes, *flash),
            _place(trial.int8_accuracy, *accuracy),
            _title(trial),
        )
        for trial in sorted(trials, key=lambda t: (kinds[t] == FRONT, t.flash_bytes))
    )
    return FrontMap(dots, _place(flash_bytes, *flash), flash, accuracy)


def _kinds(trials: Sequence[TrialFigures]) -> dict[TrialFigures, str]:
    """What became of each trial; equals on the front are all unbeaten."""
    front = pareto(trials, "flash_bytes")
    unbeaten = {(trial.flash_bytes, trial.int8_accuracy) for trial in front}
    kinds = {trial: STOPPED if trial.stopped else BEATEN for trial in trials}
    for trial in trials:
        if (trial.flash_bytes, trial.int8_accuracy) in unbeaten:
            kinds[trial] = FRONT
    return kinds


def _place(value: float, low: float, high: float) -> float:
    """A position between the edges, the middle where there is no range."""
    share = (value - low) / (high - low) if high > low else 0.5
    return round(_MARGIN + share * (100 - 2 * _MARGIN), 2)


def _title(trial: TrialFigures) -> str:
    return (
        f"{trial.int8_accuracy:.1%}: alpha {trial.alpha:g}, {trial.resolution} px, "
        f"{format_bytes(trial.flash_bytes)} flash, {format_bytes(trial.ram_bytes)} RAM"
        f"{', stopped early' if trial.stopped else ''}"
    )
