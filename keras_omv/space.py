"""Which MobileNetV2s fit a camera.

Every candidate of a grid of levers is screened with its exact cost
(`keras_omv.screening`) against the whole fit rule of the camera. Sizes are bytes.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from keras_omv.architecture import BLOCKS, Levers
from keras_omv.boards import Board, Budget, as_board
from keras_omv.cost import Cost
from keras_omv.errors import BudgetError
from keras_omv.fit import COUNTED_EXTRA_BYTES
from keras_omv.progress import working
from keras_omv.screening import Trunk, cost_of_levers

ALPHAS = (
    *(0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6),
    *(0.75, 0.9, 1.0, 1.3, 1.4),
)
RESOLUTIONS = tuple(range(32, 225, 8))
HEAD_CHANNELS = (None, 960, 640, 480, 320, 240, 160, 112, 64)
DEPTHS = (BLOCKS, 16, 13, 10, 6, 3)
"""The ends of the stages of two blocks and more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A candidate and what it costs.

    Attributes:
        levers: The candidate.
        cost: Its cost on the camera, without the arena's breakdown.
    """

    levers: Levers
    cost: Cost


def feasible_points(
    board: Board | Budget | str,
    *,
    classes: int,
    channels: int | Sequence[int] = (1, 3),
    alphas: float | Sequence[float] = ALPHAS,
    resolutions: int | Sequence[int] = RESOLUTIONS,
    head_channels: int | Sequence[int | None] | None = HEAD_CHANNELS,
    depths: int | Sequence[int] = DEPTHS,
    limit: int | None = None,
) -> tuple[Point, ...]:
    """The MobileNetV2s that fit a camera, the one with the most MACs first.

    Each lever is one value or several.

    Args:
        board: A `Board`, a `Budget` or a camera's name.
        classes: Number of classes.
        channels: 1 for grey, 3 for RGB, or both. Defaults to `(1, 3)`.
        alphas: Width multipliers. Defaults to 15 from 0.05 to 1.4.
        resolutions: Sides of the image in pixels. Defaults to 32 to 224 in steps
            of 8.
        head_channels: Widths of the last convolution; `None` is the paper's.
        depths: How many of the 17 blocks are kept. Defaults to the ends of stages.
        limit: How many points to return at most. Defaults to `None`, all of them.

    Returns:
        Points; among equal MACs the one with less RAM first. Empty if none fits.

    Raises:
        ValueError: For a lever without a meaning.

    Example:

    >>> import keras_omv as omv
    >>> board = omv.get_board("openmv-m7")
    >>> best = omv.feasible_points(board, classes=2, channels=1, limit=1)[0]
    >>> board.check(best.cost)
    """
    board = as_board(board)
    kinds, sides = _values(channels), _values(resolutions)
    _check(limit, classes, kinds, sides)
    all_ends = _ends(_values(alphas), _values(head_channels), _values(depths))
    found: list[_Candidate] = []
    with working("Screening networks") as progress:
        for alpha, kind in progress.over(tuple(itertools.product(all_ends, kinds))):
            ends = all_ends[alpha]
            found += _screen(board, alpha, kind, classes, sorted(sides), ends)
    found.sort(key=_rank)
    return tuple(_point(candidate, classes) for candidate in found[:limit])


def check_smallest(
    board: Board | Budget,
    *,
    classes: int,
    channels: int = 1,
    alphas: Sequence[float] = ALPHAS,
    resolutions: Sequence[int] = RESOLUTIONS,
    head_channels: Sequence[int | None] = HEAD_CHANNELS,
    depths: Sequence[int] = DEPTHS,
) -> None:
    """Raise what the smallest candidate lacks, where none fits.

    Args:
        board: The camera or budget that none fits.
        classes: Number of classes.
        channels: 1 for grey, 3 for RGB. Defaults to `1`.
        alphas: The widths that were tried.
        resolutions: The sides that were tried.
        head_channels: The widths of the last convolution that were tried.
        depths: The depths that were tried.

    Raises:
        BudgetError: If the smallest does not fit.
    """
    smallest = Levers(
        alpha=min(alphas),
        resolution=min(resolutions),
        channels=channels,
        classes=classes,
        head_channels=min((h for h in head_channels if h), default=None),
        depth=min(depths),
    )
    try:
        board.check(cost_of_levers(smallest, board=board))
    except BudgetError as error:
        raise BudgetError(
            f"No MobileNetV2 that was tried fits. The smallest: {error}"
        ) from error


def _values(lever: Any) -> tuple[Any, ...]:
    """One value or several, as several."""
    if isinstance(lever, Iterable) and not isinstance(lever, str):
        return tuple(lever)
    return (lever,)


def _check(
    limit: int | None, classes: int, kinds: Sequence[int], sides: Sequence[int]
) -> None:
    if limit is not None and limit < 1:
        raise ValueError(
            f"Invalid value received for argument `limit`. Expected 1 or more, or "
            f"None for all points. Received: limit={limit}"
        )
    # `Levers` refuses what has no meaning.
    for kind, side in itertools.product(kinds, sides):
        Levers(alpha=1.0, resolution=side, channels=kind, classes=classes)


class _End(NamedTuple):
    """How a trunk ends: the levers, and the head's channels that they stand for."""

    head_channels: int | None
    depth: int
    head: int


class _Candidate(NamedTuple):
    """A candidate before it is a `Point`: quick to make and to sort."""

    cost: Cost
    alpha: float
    resolution: int
    channels: int
    end: _End


def _point(candidate: _Candidate, classes: int) -> Point:
    levers = Levers(
        alpha=candidate.alpha,
        resolution=candidate.resolution,
        channels=candidate.channels,
        classes=classes,
        head_channels=candidate.end.head_channels,
        depth=candidate.end.depth,
    )
    return Point(levers, candidate.cost)


def _rank(candidate: _Candidate) -> tuple[int, int, int]:
    cost = candidate.cost
    return -cost.macs, cost.ram_bytes, cost.flash_bytes


def _ends(
    alphas: Sequence[float], heads: Sequence[int | None], depths: Sequence[int]
) -> dict[float, list[_End]]:
    """Return the ends to try for each width, each network once.

    Widths are rounded to 8 channels: narrow networks of unlike alpha can be one.
    """
    seen = set()
    ends: dict[float, list[_End]] = {}
    for alpha, head, depth in itertools.product(alphas, heads, depths):
        levers = Levers(
            alpha=alpha, resolution=1, classes=2, head_channels=head, depth=depth
        )
        network = levers.stem, levers.blocks, levers.head
        if network not in seen:
            seen.add(network)
            ends.setdefault(alpha, []).append(_End(head, depth, levers.head))
    return ends


class _Sizes(NamedTuple):
    flash_bytes: int
    ram_bytes: int


class _FitRule:
    """`board.fit(...).fits`, asked once where earlier answers do not settle it.

    For one file, what takes less RAM than an arena that fits, fits too.
    """

    def __init__(self, board: Board | Budget) -> None:
        self._board = board
        self._known: dict[int, tuple[float, float]] = {}

    def __call__(self, flash_bytes: int, ram_bytes: int) -> bool:
        fits_to, fails_from = self._known.get(flash_bytes, (-1.0, math.inf))
        if fits_to < ram_bytes < fails_from:
            verdict = self._board.fit(_Sizes(flash_bytes, ram_bytes))
            if verdict.fits:
                limit = verdict.ram_limit_bytes
                # Releases differ in what they add to the arena.
                sure = math.inf if limit is None else limit - COUNTED_EXTRA_BYTES
                fits_to = max(ram_bytes, sure)
            else:
                fails_from = ram_bytes
            self._known[flash_bytes] = fits_to, fails_from
        return ram_bytes <= fits_to


def _screen(
    board: Board | Budget,
    alpha: float,
    channels: int,
    classes: int,
    resolutions: Sequence[int],
    ends: Sequence[_End],
) -> Iterator[_Candidate]:
    """Yield the candidates of one width that fit, the smallest resolution first."""
    fits = _FitRule(board)
    for resolution in resolutions:
        trunk = Trunk(
            alpha=alpha, resolution=resolution, channels=channels, core=board.core
        )
        for end in ends:
            cut = end.depth, end.head, classes
            flash_bytes = trunk.flash_bytes(*cut)
            if not fits(flash_bytes, trunk.least_ram_bytes(*cut)):
                continue
            cost = trunk.cost(*cut, board, flash_bytes=flash_bytes)
            if fits(flash_bytes, cost.ram_bytes):
                yield _Candidate(cost, alpha, resolution, channels, end)
