"""Where a model's RAM goes, as a picture.

From left to right the operations of one inference; from bottom to top the arena's
addresses, as `keras_omv.arena` planned them: nothing is computed here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_omv.arena import Arena, Buffer
from keras_omv.boards import Board, Budget, as_board
from keras_omv.charts import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    bytes_unit,
    legend_below,
    new_chart,
)
from keras_omv.cost import Cost
from keras_omv.memory_map import SHOWN_LIMIT
from keras_omv.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_memory(cost: Cost, board: Board | Budget | str | None = None) -> "Figure":
    """Draws where a model's RAM goes, over the operations of one inference.

    Each block is a tensor: its width is how long it lives, its height its bytes, its
    place where TFLM's planner puts it. Above them lies what stays. The operation that
    holds the most is named, and the camera's limit is a line; a limit far above the
    model is in the legend only.

    Args:
        cost: From `omv.estimate`.
        board: A `Board`, its name or a `Budget`, for the limit. Defaults to `None`:
            no limit.

    Returns:
        The figure. RAM is in KiB or MiB.

    Raises:
        ValueError: If the cost has no arena.
        ImportError: If matplotlib is not installed.

    Example:

    ```python
    cost = omv.estimate(model, board="openmv-h7")
    omv.plot_memory(cost, "openmv-h7").savefig("memory.png")
    ```
    """
    arena = cost.arena
    if arena is None:
        raise ValueError(
            "Expected a cost with its arena. Received: one without, such as those of "
            "omv.feasible_points. Next step: omv.estimate(levers, board=board)."
        )
    figure, axes = new_chart(f"{format_bytes(cost.ram_bytes)} of RAM in one inference")
    scale, unit = bytes_unit(cost.ram_bytes)
    axes.set(xlabel="operation", ylabel=f"RAM ({unit})", xlim=(0, _op_count(arena)))
    _draw_tensors(axes, arena, scale)
    _draw_rest(axes, cost.ram_bytes, arena, scale)
    if board is not None:
        _draw_limit(axes, as_board(board), cost, scale)
    _name_peak(axes, arena, scale)
    axes.set_ylim(0, 1.06 * axes.dataLim.ymax)
    legend_below(axes, columns=2)
    return figure


def _op_count(arena: Arena) -> int:
    # The network's output lives to the last operation.
    return 1 + max(buffer.last_op for buffer in arena.buffers)


def _draw_tensors(axes: "Axes", arena: Arena, scale: int) -> None:
    activations = [buffer for buffer in arena.buffers if not buffer.is_scratch]
    scratch = [buffer for buffer in arena.buffers if buffer.is_scratch]
    _draw_blocks(axes, activations, scale, "activations", BLUE)
    _draw_blocks(axes, scratch, scale, "scratch of a kernel", ORANGE)


def _draw_blocks(
    axes: "Axes", buffers: Sequence[Buffer], scale: int, label: str, colour: str
) -> None:
    # The network's input is there before the first operation.
    lefts = [max(0, buffer.first_op) for buffer in buffers]
    axes.bar(
        lefts,
        [buffer.size_bytes / scale for buffer in buffers],
        [b.last_op + 1 - left for b, left in zip(buffers, lefts, strict=True)],
        [buffer.offset / scale for buffer in buffers],
        align="edge",
        color=colour,
        edgecolor="white",
        linewidth=0.6,
        label=label,
    )


def _draw_rest(axes: "Axes", ram_bytes: int, arena: Arena, scale: int) -> None:
    axes.bar(
        0,
        (ram_bytes - arena.head_bytes) / scale,
        _op_count(arena),
        arena.head_bytes / scale,
        align="edge",
        color=GREY,
        label="stays: per-channel data, structures",
    )


def _draw_limit(axes: "Axes", board: Board | Budget, cost: Cost, scale: int) -> None:
    limit_bytes = board.fit(cost).ram_limit_bytes
    if limit_bytes is None:
        return
    label = f"limit of {board.label}: {format_bytes(limit_bytes)}"
    if limit_bytes > SHOWN_LIMIT * cost.ram_bytes:
        axes.plot([], [], color=VERMILION, linewidth=2, label=f"{label}, far above")
        return
    axes.axhline(limit_bytes / scale, color=VERMILION, linewidth=2, label=label)


def _name_peak(axes: "Axes", arena: Arena, scale: int) -> None:
    """Names the fullest operation, by what it writes, on the side that has room."""
    op = arena.peak_op
    alive_bytes = arena.peak_activation_bytes + arena.peak_scratch_bytes
    written = [b.name for b in arena.buffers if b.first_op == op and not b.is_scratch]
    axes.bar(
        op, alive_bytes / scale, 1, align="edge", fill=False, edgecolor=BLACK, ls="--"
    )
    is_left = op < _op_count(arena) / 2
    axes.annotate(
        f"peak: {', '.join(written)}, {format_bytes(alive_bytes)} alive",
        (op + is_left, alive_bytes / scale),
        xytext=(18 if is_left else -18, -14),
        textcoords="offset points",
        ha="left" if is_left else "right",
        va="top",
        bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": GREY},
    )
