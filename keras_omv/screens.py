"""The tables that `keras-omv` shows."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from keras_omv.boards import Board
from keras_omv.changes import Change
from keras_omv.cost import LEAVE_ONE_OUT_ERROR, Cost
from keras_omv.deploy import copy_instructions
from keras_omv.fit import Fit
from keras_omv.space import Point
from keras_omv.units import format_bytes

TIME_NOTE = (
    "Flash and RAM are exact. Times are estimates, with their range; the model behind "
    f"them is off by {LEAVE_ONE_OUT_ERROR:.1%} on average on published measurements "
    "that it has not seen."
)


def boards_table(boards: Sequence[Board], firmware: str) -> Table:
    """The cameras of one release."""
    table = Table(title=f"Cameras, firmware {firmware}", box=SIMPLE)
    for heading in ("board", "core", "max arena", "ROMFS", "NPU"):
        table.add_column(heading, no_wrap=True)
    for board in boards:
        table.add_row(
            board.name,
            f"{board.core.removeprefix('cortex-').upper()} "
            f"{board.clock_hz // 1_000_000} MHz",
            format_bytes(board.ram_limit_bytes),
            format_bytes(board.romfs_bytes) if board.romfs_bytes else "none",
            (board.npu or "").split(" (")[0],
        )
    return table


def space_table(points: Sequence[Point], board: Board) -> Table:
    """The MobileNetV2s that fit a camera."""
    title = f"MobileNetV2s that fit {board.label}, most MACs first"
    table = Table(title=title, box=SIMPLE, padding=(0, 0, 0, 1))
    for heading in (
        *("alpha", "px", "head", "depth", "flash KiB", "RAM KiB", "M MACs"),
        *("ms (range)", "from"),
    ):
        table.add_column(heading, no_wrap=True, justify="right")
    for point in points:
        levers, cost = point.levers, point.cost
        table.add_row(
            f"{levers.alpha:g}",
            str(levers.resolution),
            str(levers.head),
            str(levers.depth),
            f"{cost.flash_bytes / 1024:.2f}",
            f"{cost.ram_bytes / 1024:.2f}",
            f"{cost.macs / 1e6:.2f}",
            _time(cost),
            board.fit(cost).storage,
        )
    return table


def print_cost(
    cost: Cost,
    console: Console,
    *,
    board: Board | None,
    fit: Fit | None,
    changes: Sequence[Change],
) -> None:
    """What a model costs, whether and how it fits, and what would."""
    table = _figures(cost)
    if board and fit:
        _add_fit(table, board, fit)
    console.print(table)
    for reason in fit.reasons if fit else ():
        console.print(reason)
    if changes:
        console.print("Nearest changes that fit:")
    for change in changes:
        console.print(f"  {change.sentence}")


def print_report(report: Any, board: Board, console: Console) -> None:
    """The last screen: what was made, how big, whether it fits, how accurate."""
    fit = board.fit(report.cost)
    table = _figures(report.cost)
    table.title = f"Made {report.directory}"
    table.add_row(f"fits {board.name}", "yes" if report.fits else "no")
    if report.accuracy is not None:
        count = report.accuracy.images
        table.add_row(
            f"accuracy, float ({count} images)", f"{report.accuracy.float32:.1%}"
        )
        table.add_row(
            f"accuracy, int8 ({report.accuracy.runtime})", f"{report.accuracy.int8:.1%}"
        )
    console.print(table)
    for reason in report.fit_reasons:
        console.print(reason)
    console.print(copy_instructions(board, storage=fit.storage), markup=False)


def _add_fit(table: Table, board: Board, fit: Fit) -> None:
    table.add_row(f"fits {board.name}", "yes" if fit.fits else "no")
    if fit.flash_over_bytes:
        table.add_row("flash over", f"{fit.flash_over_bytes:,} bytes")
    if fit.ram_over_bytes:
        table.add_row("RAM over", f"{fit.ram_over_bytes:,} bytes")
    if not fit.fits:
        return
    if fit.storage:
        table.add_row("stored in", fit.storage)
    if fit.arena_memory:
        table.add_row("arena in", fit.arena_memory)


def _figures(cost: Cost) -> Table:
    low, high = cost.latency_range_ms
    table = Table(show_header=False)
    table.add_row("flash (model.tflite)", format_bytes(cost.flash_bytes))
    table.add_row("RAM (arena)", format_bytes(cost.ram_bytes))
    table.add_row("multiply-accumulates", f"{cost.macs / 1e6:.2f} M")
    table.add_row(
        "time of one image, estimate",
        f"{cost.latency_ms:.0f} ms ({low:.0f} to {high:.0f})",
    )
    return table


def _time(cost: Cost) -> str:
    low, high = cost.latency_range_ms
    return f"{cost.latency_ms:.0f} ({low:.0f}-{high:.0f})"
