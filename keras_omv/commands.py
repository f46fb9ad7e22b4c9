"""What the commands of `keras-omv` do that make nothing: boards, cost and space.

Each takes the parsed options and the console to print to. TensorFlow is imported
only where a command needs it.
"""

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from keras_omv import report_figures, screens
from keras_omv.architecture import BLOCKS, Levers
from keras_omv.boards import Board, board_names, get_board, known_releases
from keras_omv.changes import Change, nearest_changes, other_boards
from keras_omv.cost import Cost
from keras_omv.network import Network
from keras_omv.space import Point, check_smallest, feasible_points
from keras_omv.terminal import print_json, quiet_tensorflow

LISTED_POINTS = 20
"""How many candidates `space` lists on a screen."""


def boards(options: argparse.Namespace, console: Console) -> None:
    """Lists the cameras and their memory."""
    known = list(_known_boards(options.firmware))
    if not known:
        raise ValueError(
            f"Unknown firmware. Expected one of {', '.join(known_releases())}. "
            f"Received: {options.firmware!r}. "
            "Next step: take the release nearest to the camera's."
        )
    if options.json:
        print_json([dataclasses.asdict(board) for board in known], console)
        return
    console.print(screens.boards_table(known, options.firmware))


def _known_boards(firmware: str) -> Iterator[Board]:
    """The cameras that a release is for."""
    for name in board_names():
        with contextlib.suppress(ValueError):
            yield get_board(name, firmware=firmware)


def cost(options: argparse.Namespace, console: Console) -> None:
    """Prints what a model costs and, with a camera, whether and how it fits."""
    board = (
        get_board(options.board, firmware=options.firmware) if options.board else None
    )
    levers = _levers(options)
    found, network = _examine(levers or options.model, board)
    fit = board.fit(found) if board else None
    changes = _changes(levers, found, board) if board and fit and not fit.fits else ()
    if options.json:
        content = _figures(found)
        content.update(_breakdown(found, network))
        content["fit"] = dataclasses.asdict(fit) if fit else None
        content["changes"] = [
            {
                "what": change.what,
                "value": _plain(change.value),
                **_figures(change.cost),
            }
            for change in changes
        ]
        print_json(content, console)
        return
    screens.print_cost(
        found, console, network=network, board=board, fit=fit, changes=changes
    )


def space(options: argparse.Namespace, console: Console) -> None:
    """Lists the MobileNetV2s that fit a camera, the one with the most MACs first."""
    board = get_board(options.board, firmware=options.firmware)
    if options.limit is not None and options.limit < 1:
        raise ValueError(
            "Invalid value received for argument --limit. Expected 1 or more. "
            f"Received: limit={options.limit}"
        )
    channels = 1 if options.grey else 3
    points = feasible_points(board, classes=options.classes, channels=channels)
    if options.json:
        listed = points[: options.limit]
        print_json([_point(point, board) for point in listed], console)
    if not points:
        check_smallest(board, classes=options.classes, channels=channels)
    if options.json:
        return
    listed = points[: options.limit or LISTED_POINTS]
    console.print(screens.space_table(listed, board))
    more = ", --limit shows more" if len(listed) < len(points) else ""
    console.print(f"{len(listed)} of {len(points)}{more}")
    console.print(f"{screens.EXACT_NOTE} {screens.TIME_NOTE}")


def _levers(options: argparse.Namespace) -> Levers | None:
    """The MobileNetV2 that the options name, `None` where they name a file."""
    needed = ("alpha", "resolution", "classes")
    names = (*needed, "head", "depth")
    given = {name: getattr(options, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    if options.grey:
        given["grey"] = True
    if options.model is not None and not given:
        return None
    if options.model is not None or not given.keys() >= set(needed):
        received = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(
            "Expected a model file, or --alpha, --resolution and --classes. Received: "
            f"{options.model or 'no file'} and {received or 'none of these'}. "
            "Next step: keras-omv cost --alpha 0.35 --resolution 96 --classes 5"
        )
    return Levers(
        alpha=options.alpha,
        resolution=options.resolution,
        classes=options.classes,
        channels=1 if options.grey else 3,
        head_channels=options.head,
        depth=BLOCKS if options.depth is None else options.depth,
    )


def _examine(model: Levers | str, board: Board | None) -> tuple[Cost, Network]:
    is_file = not isinstance(model, Levers)
    with quiet_tensorflow(f"Reading {model}") if is_file else contextlib.nullcontext():
        from keras_omv.estimation import examine

        return examine(model, board=board)


def _changes(levers: Levers | None, found: Cost, board: Board) -> tuple[Change, ...]:
    if levers is not None:
        return nearest_changes(levers, board)
    # A file's cost is known on this core only.
    return tuple(
        other_boards(board, lambda other: found if other.core == board.core else None)
    )


def _figures(found: Cost) -> dict[str, Any]:
    names = ("flash_bytes", "ram_bytes", "macs", "parameters")
    return {
        **{name: getattr(found, name) for name in names},
        "latency_ms_estimate": found.latency_ms,
        "latency_ms_range": found.latency_range_ms,
    }


def _breakdown(found: Cost, network: Network) -> dict[str, Any]:
    """Where the RAM goes: parts that add up to `ram_bytes`, and the peak operation."""
    if found.arena is None:
        return {}
    return {
        "ram_breakdown": report_figures.ram_parts(found.arena),
        "peak_op": report_figures.peak_op(network, found.arena),
    }


def _point(point: Point, board: Board) -> dict[str, Any]:
    fit = board.fit(point.cost)
    where = {"storage": fit.storage, "arena_memory": fit.arena_memory}
    return {**dataclasses.asdict(point.levers), **_figures(point.cost), **where}


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if isinstance(value, Levers) else value
