"""Which MobileNetV2s fit a camera, by width and resolution, and what stops others.

The numbers behind `plot_space` and the picture in report.html. Imports no TensorFlow.
"""

import dataclasses
import functools
import itertools

from keras_omv.architecture import Levers
from keras_omv.boards import Board, Budget
from keras_omv.screening import cost_of_levers
from keras_omv.space import ALPHAS, RESOLUTIONS

SIDES = RESOLUTIONS[::2]
"""Of the picture in report.html, in pixels; its rows are `ALPHAS`."""
FITS, FLASH, RAM, BOTH = "fits", "flash", "ram", "both"
"""What stops a network: nothing, the one, the other, or both."""
STOPS = {
    FITS: "fits",
    FLASH: "too much flash",
    RAM: "too much RAM",
    BOTH: "too much of both",
}
"""In words."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """Neighbours of one width that the same thing stops: a rectangle of the picture.

    Attributes:
        stop: What stops them, a key of `STOPS`.
        row: The width's position, the smallest is 0.
        left: The first resolution's position.
        width: How many resolutions.
        title: In words.
    """

    stop: str
    row: int
    left: int
    width: int
    title: str


@dataclasses.dataclass(frozen=True, slots=True)
class SpaceMap:
    """The picture.

    Attributes:
        runs: The rectangles.
        column: The position of the resolution that is marked, `None` for none.
    """

    runs: tuple[Run, ...]
    column: float | None

    @property
    def fitting(self) -> int:
        """How many of the networks fit."""
        return sum(run.width for run in self.runs if run.stop == FITS)


def stop_of(board: Board | Budget, levers: Levers) -> str:
    """What stops a network on a camera: a key of `STOPS`, as `Board.fit` says."""
    verdict = board.fit(cost_of_levers(levers, board=board))
    over = verdict.flash_over_bytes > 0, verdict.ram_over_bytes > 0
    return {
        (False, False): FITS,
        (True, False): FLASH,
        (False, True): RAM,
        (True, True): BOTH,
    }[over]


@functools.lru_cache(maxsize=32)
def space_map(
    board: Board | Budget, *, classes: int, channels: int, marked: int | None = None
) -> SpaceMap:
    """The picture of a camera's space, of networks of all blocks.

    Args:
        board: The camera or budget.
        classes: Number of classes.
        channels: 1 for grey, 3 for RGB.
        marked: A resolution in pixels to mark. Defaults to `None`.

    Example:

    >>> from keras_omv.boards import get_board
    >>> space_map(get_board("openmv-h7"), classes=5, channels=3).fitting
    19
    """
    runs = []
    for row, alpha in enumerate(ALPHAS):
        levers = Levers(alpha=alpha, resolution=1, classes=classes, channels=channels)
        runs += _runs(board, row, levers)
    return SpaceMap(tuple(runs), _column(marked))


def _runs(board: Board | Budget, row: int, levers: Levers) -> list[Run]:
    """Neighbours joined."""
    runs, left = [], 0
    at_sides = (dataclasses.replace(levers, resolution=side) for side in SIDES)
    for stop, group in itertools.groupby(stop_of(board, one) for one in at_sides):
        width = len(list(group))
        ends = f"{SIDES[left]} to {SIDES[left + width - 1]} px"
        title = f"alpha {levers.alpha:g}, {ends}: {STOPS[stop]}"
        runs.append(Run(stop, row, left, width, title))
        left += width
    return runs


def _column(marked: int | None) -> float | None:
    """Where a resolution lies among the columns, between two of them perhaps."""
    if marked is None or not SIDES[0] <= marked <= SIDES[-1]:
        return None
    return (marked - SIDES[0]) / (SIDES[1] - SIDES[0])
