"""How to change a MobileNetV2 that does not fit a camera.

Plain data with a sentence each. Sizes are bytes; sentences say KiB of 1024.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from keras_omv.architecture import HEAD_CHANNELS as WIDEST_HEAD
from keras_omv.architecture import Levers
from keras_omv.boards import (
    NEEDS_COMPILER,
    Board,
    Budget,
    as_board,
    board_names,
    firmware_of,
    get_board,
)
from keras_omv.cost import Cost
from keras_omv.screening import cost_of_levers
from keras_omv.space import (
    ALPHAS,
    DEPTHS,
    HEAD_CHANNELS,
    RESOLUTIONS,
    feasible_points,
)
from keras_omv.units import format_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One change after which a model fits.

    Attributes:
        what: The lever that changes, `"levers"` where no single one is enough, or
            `"board"` for another camera.
        value: Its new value: a number, the new `Levers`, or the camera's name.
        cost: The cost after the change.
        sentence: The same for people.
    """

    what: str
    value: Any
    cost: Cost
    sentence: str


def nearest_changes(levers: Levers, board: Board | Budget | str) -> tuple[Change, ...]:
    """The nearest changes after which a MobileNetV2 fits a camera.

    Args:
        levers: A candidate that does not fit.
        board: A `Board`, a `Budget` or a camera's name.

    Returns:
        For each lever that is enough alone, its largest smaller value; if there is
        none, several levers at once; then the other cameras that take the candidate
        as it is. Empty if it fits.
    """
    board = as_board(board)
    if board.fit(cost_of_levers(levers, board=board)).fits:
        return ()
    changes = list(_single_changes(levers, board)) or _joint_change(levers, board)
    return (
        *changes,
        *other_boards(board, lambda other: cost_of_levers(levers, board=other)),
    )


def other_boards(
    board: Board | Budget, cost: Callable[[Board], Cost | None]
) -> Iterator[Change]:
    """The other cameras that take a model as it is.

    Args:
        board: The camera that does not.
        cost: What the model costs on a camera, `None` where that is not known.
    """
    for other in _others(board):
        there = cost(other)
        if there is not None and other.fit(there).fits:
            sentence = f"{other.name} takes it as it is: {_sizes(there)}"
            yield Change("board", other.name, there, sentence)


def _others(board: Board | Budget) -> Iterator[Board]:
    for name in board_names():
        if name in (board.name, NEEDS_COMPILER):
            continue
        try:
            yield get_board(name, firmware=firmware_of(board))
        except ValueError:  # The release does not know that camera.
            continue


def _single_changes(levers: Levers, board: Board | Budget) -> Iterator[Change]:
    smaller: dict[str, list[Any]] = {
        "resolution": [r for r in RESOLUTIONS if r < levers.resolution],
        "alpha": [a for a in ALPHAS if a < levers.alpha],
        "head_channels": sorted(h for h in HEAD_CHANNELS if h and h < levers.head),
        "depth": list(range(1, levers.depth)),
    }
    for lever, values in smaller.items():
        for value in reversed(values):
            changed = dataclasses.replace(levers, **{lever: value})
            cost = cost_of_levers(changed, board=board)
            if board.fit(cost).fits:
                yield Change(lever, value, cost, _sentence(levers, lever, value, cost))
                break


def _sentence(levers: Levers, lever: str, value: Any, cost: Cost) -> str:
    old = levers.head if lever == "head_channels" else getattr(levers, lever)
    name = "head" if lever == "head_channels" else lever
    return f"{name} {value} instead of {old} fits: {_sizes(cost)}"


def _joint_change(levers: Levers, board: Board | Budget) -> list[Change]:
    points = feasible_points(
        board,
        classes=levers.classes,
        channels=levers.channels,
        alphas=[a for a in ALPHAS if a <= levers.alpha],
        resolutions=[r for r in RESOLUTIONS if r <= levers.resolution],
        head_channels=[h for h in HEAD_CHANNELS if (h or WIDEST_HEAD) <= levers.head],
        depths=[d for d in DEPTHS if d <= levers.depth],
        limit=1,
    )
    return [
        Change(
            "levers",
            point.levers,
            point.cost,
            f"alpha {point.levers.alpha}, resolution {point.levers.resolution}, head "
            f"{point.levers.head} and depth {point.levers.depth} together fit: "
            f"{_sizes(point.cost)}",
        )
        for point in points
    ]


def _sizes(cost: Cost) -> str:
    return (
        f"{format_bytes(cost.flash_bytes)} of flash, "
        f"{format_bytes(cost.ram_bytes)} of RAM"
    )
