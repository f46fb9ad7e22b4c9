"""Which MobileNetV2s fit which camera: the README's table.

    python benchmarks/what_fits.py [--json]

For every camera two networks of RGB images and 5 classes, all of their 17 blocks kept:

- the sharpest of alpha 0.35: of the largest resolution, the widest last convolution;
- the widest at 96 px, or at 224 px where the first is that sharp: of the largest
  alpha, the widest last convolution.

Where neither exists, the one of most multiply-accumulates of the whole grid, whatever
its depth. "What stops the next" is the smallest candidate one step further in the
grid: the next resolution or alpha, its last convolution 64 wide.

Nothing is trained and TensorFlow is not loaded; it takes seconds. `--json` writes
benchmarks/results/what_fits.json.
"""

import argparse
import dataclasses
from typing import Any

from common import RESULTS, markdown, write

import keras_omv as omv
from keras_omv.architecture import BLOCKS, Levers
from keras_omv.boards import NEEDS_COMPILER
from keras_omv.screening import cost_of_levers
from keras_omv.space import ALPHAS, HEAD_CHANNELS, RESOLUTIONS
from keras_omv.units import format_bytes

PATH = RESULTS / "what_fits.json"
FIRMWARE, CLASSES, CHANNELS = "5.0", 5, 3
ALPHA, SIDE = 0.35, 96
SMALLEST_HEAD = min(head for head in HEAD_CHANNELS if head)
HEAD = (
    *("camera", "alpha", "pixels", "flash", "RAM", "stored in", "estimated time"),
    "what stops the next",
)
EXTERNAL = "¹"
COMPILED = "²"
CPU_ALONE = "³"
NOTES = {
    EXTERNAL: "And more: the arena lies in external memory, which is slower than the "
    "memory that the estimate is for.",
    COMPILED: "Loads no plain .tflite but what ST Edge AI Core (stedgeai) makes of it, "
    "which decides the RAM, the time on the NPU and so whether it fits; the flash is "
    "that of model.tflite.",
    CPU_ALONE: "On the CPU alone. Compiled by vela (`keras-omv[npu]`) it runs on the "
    "Ethos-U55.",
}


def best(board: omv.Board, lever: str, **levers: Any) -> omv.Point | None:
    """What fits with the most of a lever, the widest last convolution of those."""
    points = omv.feasible_points(
        board, classes=CLASSES, channels=CHANNELS, depths=BLOCKS, **levers
    )
    return max(
        points,
        key=lambda point: (getattr(point.levers, lever), point.levers.head),
        default=None,
    )


def next_step(levers: Levers, lever: str) -> Levers | None:
    """The smallest candidate that is one step further in the grid, if there is one."""
    grid = ALPHAS if lever == "alpha" else RESOLUTIONS
    further = [value for value in grid if value > getattr(levers, lever)]
    if not further:
        return None
    return dataclasses.replace(
        levers, **{lever: min(further)}, head_channels=SMALLEST_HEAD
    )


def what_stops(board: omv.Board, levers: Levers, lever: str) -> dict[str, Any] | None:
    """Why the next step does not fit; `None` at the grid's end."""
    further = next_step(levers, lever)
    if further is None:
        return None
    verdict = board.fit(cost_of_levers(further, board=board))
    return {
        lever: getattr(further, lever),
        "flash_over_bytes": verdict.flash_over_bytes,
        "ram_over_bytes": verdict.ram_over_bytes,
    }


def row_of(board: omv.Board, point: omv.Point, what: str, lever: str) -> dict[str, Any]:
    """What the table and its readers need to know of one network on one camera."""
    levers, cost, verdict = point.levers, point.cost, board.fit(point.cost)
    memory = next(m for m in board.heap if m.name == verdict.arena_memory)
    return {
        "board": board.name,
        "title": board.title,
        "what": what,
        "alpha": levers.alpha,
        "resolution": levers.resolution,
        "head_channels": levers.head,
        "depth": levers.depth,
        "flash_bytes": cost.flash_bytes,
        "ram_bytes": cost.ram_bytes,
        "ram_limit_bytes": verdict.ram_limit_bytes,
        "macs": cost.macs,
        "latency_ms": round(cost.latency_ms, 1),
        "latency_range_ms": [round(value, 1) for value in cost.latency_range_ms],
        "storage": verdict.storage,
        "replaces_stock_models": verdict.replaces_stock_models,
        "arena_memory": memory.name,
        "arena_in_fast_memory": memory.is_fast,
        "next": what_stops(board, levers, lever),
    }


def rows_of(board: omv.Board) -> list[dict[str, Any]]:
    """The rows of one camera."""
    sharpest = best(board, "resolution", alphas=ALPHA)
    is_large = sharpest is not None and sharpest.levers.resolution == max(RESOLUTIONS)
    side = max(RESOLUTIONS) if is_large else SIDE
    widest = best(board, "alpha", resolutions=side)
    rows = []
    if sharpest is not None:
        what = f"sharpest of alpha {ALPHA}"
        rows.append(row_of(board, sharpest, what, "resolution"))
    if widest is not None:
        rows.append(row_of(board, widest, f"widest at {side} px", "alpha"))
    if rows:
        return rows
    point = omv.feasible_points(board, classes=CLASSES, channels=CHANNELS, limit=1)[0]
    return [row_of(board, point, "most multiply-accumulates", "resolution")]


def run() -> dict[str, Any]:
    """Screen every camera."""
    boards = [omv.get_board(name, firmware=FIRMWARE) for name in omv.board_names()]
    return {
        "command": "python benchmarks/what_fits.py --json",
        "settings": {"firmware": FIRMWARE, "classes": CLASSES, "channels": CHANNELS},
        "rows": [row for board in boards for row in rows_of(board)],
    }


def mark(row: dict[str, Any]) -> str:
    """The note that a row's time needs."""
    board = omv.get_board(row["board"], firmware=FIRMWARE)
    if board.name == NEEDS_COMPILER:
        return COMPILED
    if board.npu is not None:
        return CPU_ALONE
    return "" if row["arena_in_fast_memory"] else EXTERNAL


def stopped_by(row: dict[str, Any]) -> str:
    """What stops the next step, in words."""
    if row["next"] is None:
        return "nothing: the largest that is tried"
    (lever, value), *over = row["next"].items()
    unit = " px" if lever == "resolution" else ""
    names = {"flash_over_bytes": "flash", "ram_over_bytes": "RAM"}
    excess = [f"{names[key]} (+{format_bytes(n)})" for key, n in over if n]
    return f"{value}{unit}: {' and '.join(excess)}"


def time_of(row: dict[str, Any]) -> str:
    """The estimate with its range."""
    low, high = row["latency_range_ms"]
    return f"{row['latency_ms']:,.0f} ms ({low:,.0f} to {high:,.0f})"


def stored_in(row: dict[str, Any]) -> str:
    """Where the camera reads the model from."""
    names = {"romfs": "ROMFS", "flash": "/flash", "sdcard": "/sdcard"}
    replaced = ", in place of its own models" if row["replaces_stock_models"] else ""
    return f"{names[row['storage']]}{replaced}"


def width_of(row: dict[str, Any]) -> str:
    """Alpha, and what is less than the paper's."""
    whole = Levers(alpha=row["alpha"], resolution=row["resolution"], classes=CLASSES)
    parts = [f"{row['alpha']:g}"]
    if row["head_channels"] != whole.head:
        parts.append(f"last convolution {row['head_channels']}")
    if row["depth"] != whole.depth:
        parts.append(f"{row['depth']} of {whole.depth} blocks")
    return ", ".join(parts)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    note = mark(row)
    is_compiled = note == COMPILED
    return (
        row["title"],
        width_of(row),
        str(row["resolution"]),
        format_bytes(row["flash_bytes"]),
        note if is_compiled else format_bytes(row["ram_bytes"]),
        stored_in(row),
        note if is_compiled else f"{time_of(row)}{note}",
        stopped_by(row),
    )


def table(content: dict[str, Any]) -> str:
    """The README's table with its notes."""
    used = {mark(row) for row in content["rows"]}
    notes = [f"{sign} {text}" for sign, text in NOTES.items() if sign in used]
    return "\n\n".join((markdown(HEAD, map(cells, content["rows"])), *notes))


def main() -> None:
    """Print the table, and write the figures if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help=f"write {PATH.name} too")
    options = parser.parse_args()
    content = run()
    if options.json:
        write(PATH, content)
    print(table(content))


if __name__ == "__main__":
    main()
