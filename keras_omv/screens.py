"""The tables that `keras-omv` shows."""

import pathlib
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from keras_omv.arena import Arena
from keras_omv.boards import NEEDS_COMPILER, Board
from keras_omv.changes import Change
from keras_omv.cost import LEAVE_ONE_OUT_ERROR, Cost
from keras_omv.evaluation import Accuracy
from keras_omv.fit import Fit
from keras_omv.network import Network
from keras_omv.npu import NpuReport
from keras_omv.report_figures import peak_op, ram_parts
from keras_omv.report_steps import copying_by_hand
from keras_omv.space import Point
from keras_omv.units import format_bytes
from keras_omv.verification import Verification

TIME_NOTE = (
    "Times are estimates, with their range; the model behind "
    f"them is off by {LEAVE_ONE_OUT_ERROR:.1%} on average on published measurements "
    "that it has not seen."
)
GUESSING_NOTE = (
    "It is hardly better than guessing: train for more epochs, or on more images."
)
EXACT_NOTE = "Flash and RAM are exact."
_PARTS = {
    "activation_bytes": "activations",
    "scratch_bytes": "scratch",
    "fragmentation_bytes": "gaps of the planner",
    "per_channel_bytes": "per-channel data",
    "structure_bytes": "structures",
    "firmware_bytes": "added by the firmware",
}


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
    network: Network,
    board: Board | None,
    fit: Fit | None,
    changes: Sequence[Change],
) -> None:
    """What a model costs, whether and how it fits, and what would."""
    table = _figures(cost, network)
    if board and fit:
        _add_fit(table, board, fit)
    console.print(table)
    console.print(TIME_NOTE)
    for reason in fit.reasons if fit else ():
        console.print(reason)
    if changes:
        console.print("Nearest changes that fit:")
    for change in changes:
        console.print(f"  {change.sentence}")


def print_report(report: Any, board: Board, console: Console) -> None:
    """The last screen: what was made, how big, whether it fits, how accurate."""
    table = _figures(report.cost)
    table.title = f"Made {report.directory}"
    verdict = "yes" if report.is_compiled else _verdict(board, fits=report.fits)
    table.add_row(f"fits {board.name}", verdict if report.fits else "no")
    for what, figure in npu_rows(report.npu).items():
        table.add_row(what, figure)
    if report.romfs is not None:
        image, partition = report.romfs.size_bytes, report.romfs.partition_bytes
        room = f"{format_bytes(image)} of {format_bytes(partition)}"
        table.add_row("romfs.img", room)
    if report.accuracy is not None:
        for what, share in _accuracies(report.accuracy).items():
            table.add_row(f"accuracy, {what}", f"{share:.1%}")
    console.print(table)
    if report.accuracy is not None and _is_guessing(report):
        console.print(GUESSING_NOTE, style="yellow")
    console.print(TIME_NOTE)
    for reason in report.fit_reasons:
        console.print(reason)
    by_hand = copying_by_hand(report, board)
    deploy = f"With the camera on USB: keras-omv deploy {report.directory}"
    for text in (*report.notes, deploy, f"By hand: {by_hand}"):
        console.print(text, markup=False)


def npu_rows(npu: NpuReport | None) -> dict[str, str]:
    """What the NPU's compiler said, by what it is about; empty without a file."""
    if npu is None or npu.file_bytes is None:
        return {}
    found = {"NPU file (model_npu.tflite)": format_bytes(npu.file_bytes)}
    if npu.latency_ms is not None:
        found["time on the NPU, estimate"] = f"{npu.latency_ms:.3g} ms"
    if npu.sram_bytes is not None:
        found["RAM of the NPU"] = format_bytes(npu.sram_bytes)
    if npu.bits_per_weight is not None:
        found["bits of a weight"] = f"{npu.bits_per_weight:.2f} of 8"
    if npu.cpu_ops:
        found["left to the CPU"] = ", ".join(npu.cpu_ops)
    return found


def _is_guessing(report: Any) -> bool:
    """Whether a model is hardly better than the most frequent class."""
    most = max(map(sum, report.accuracy.confusion)) / report.accuracy.images
    return bool(report.accuracy.int8 <= 1.1 * most)


def _accuracies(accuracy: Accuracy) -> dict[str, float]:
    return {
        f"float ({accuracy.images} images)": accuracy.float32,
        f"int8 ({accuracy.runtime})": accuracy.int8,
        f"as the camera sees it ({accuracy.camera.images} images)": (
            accuracy.camera.int8
        ),
    }


def print_verification(
    name: str, found: Verification, board: Board, console: Console
) -> None:
    """What was found out about a .tflite file: the verdict, then each violation."""
    table = Table(show_header=False)
    if found.cost is not None:
        table.add_row("flash", format_bytes(found.cost.flash_bytes))
        table.add_row("RAM (arena)", format_bytes(found.cost.ram_bytes))
    ran = f"{found.frames} frames in {found.runtime}" if found.runtime else "no"
    table.add_row("ran", ran)
    verdict = "passed" if found.passed else "failed"
    table.add_row(f"runs on {board.label}", verdict)
    table.title = name
    console.print(table)
    for violation in found.violations:
        text = f"{violation.severity}, {violation.rule}: {violation.what}."
        console.print(text, markup=False, soft_wrap=True)
        if violation.remedy:
            console.print(f"  mend: {violation.remedy}", markup=False, soft_wrap=True)


def print_differences(
    path: pathlib.Path, differences: Sequence[str], console: Console
) -> None:
    """Where a camera folder and its report differ."""
    for difference in differences:
        console.print(difference, markup=False, soft_wrap=True)
    verdict = f"{len(differences)} differences" if differences else "passed"
    console.print(f"{path}: {verdict}", markup=False, soft_wrap=True)


def _add_breakdown(table: Table, arena: Arena, network: Network) -> None:
    for part, size_bytes in ram_parts(arena).items():
        table.add_row(f"  {_PARTS[part]}", format_bytes(size_bytes))
    peak = peak_op(network, arena)
    if peak:
        title = f"{peak['kind']} {peak['name']}".strip()
        place = f"operation {peak['index'] + 1} of {len(network.ops)}"
        table.add_row("  peak", f"{title}, {place}")


def _verdict(board: Board, *, fits: bool) -> str:
    if fits and board.name == NEEDS_COMPILER:
        return "only after compiling with stedgeai"
    return "yes" if fits else "no"


def _add_fit(table: Table, board: Board, fit: Fit) -> None:
    table.add_row(f"fits {board.name}", _verdict(board, fits=fit.fits))
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


def _figures(cost: Cost, network: Network | None = None) -> Table:
    table = Table(show_header=False)
    table.add_row("flash (model.tflite)", format_bytes(cost.flash_bytes))
    table.add_row("RAM (arena)", format_bytes(cost.ram_bytes))
    if network and cost.arena:
        _add_breakdown(table, cost.arena, network)
    table.add_row("parameters", f"{cost.parameters:,}")
    table.add_row("multiply-accumulates", f"{cost.macs / 1e6:.2f} M")
    low, high = map(_milliseconds, cost.latency_range_ms)
    time = f"{_milliseconds(cost.latency_ms)} ms ({low} to {high})"
    table.add_row("time of one image, estimate", time)
    return table


def _time(cost: Cost) -> str:
    low, high = map(_milliseconds, cost.latency_range_ms)
    return f"{_milliseconds(cost.latency_ms)} ({low}-{high})"


def _milliseconds(time_ms: float) -> str:
    return f"{time_ms:.1f}" if time_ms < 10 else f"{time_ms:.0f}"
