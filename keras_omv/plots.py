"""Pictures of a search and of what fits a camera.

The numbers are those of `keras_omv.results` and `screening`; the pictures are
matplotlib figures without a window, see `keras_omv.charts`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from keras_omv.architecture import BLOCKS, Levers
from keras_omv.boards import Board, Budget, as_board
from keras_omv.charts import (
    BLUE,
    GREY,
    ORANGE,
    PURPLE,
    bytes_unit,
    legend_below,
    new_chart,
)
from keras_omv.errors import SearchError
from keras_omv.results import TrialResult
from keras_omv.space import ALPHAS, RESOLUTIONS
from keras_omv.space_map import BOTH, FITS, FLASH, RAM, STOPS, stop_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AREA = 44
"""Of a marker, in square points."""


class Search(Protocol):
    """What `plot_pareto` needs of a tuner."""

    def results(self) -> tuple[TrialResult, ...]: ...

    def pareto(self, cost: str) -> tuple[TrialResult, ...]: ...


_MARKERS = {
    FITS: (BLUE, "o"),
    FLASH: (ORANGE, "s"),
    RAM: (PURPLE, "^"),
    BOTH: (GREY, "x"),
}
"""How a candidate is drawn, by what stops it."""
_Judged = dict[str, list[tuple[int, int]]]
"""Sides and rows of candidates, by what stops them."""


def plot_pareto(tuner: Search, cost: str = "flash_bytes") -> "Figure":
    """Draws what the trials of a search found: int8 accuracy against a cost.

    The line is the front: the most accurate trial up to each cost. Its trials are
    labelled with alpha and resolution. None is too large for the camera: a search
    never tries such a one.

    Args:
        tuner: An `omv.MobileNetV2Tuner` with finished trials.
        cost: `"flash_bytes"`, `"ram_bytes"`, `"macs"` or `"latency_ms"`. Defaults to
            `"flash_bytes"`.

    Returns:
        The figure. Costs are in KiB or MiB, in millions, or in milliseconds.

    Raises:
        SearchError: If no trial is finished.
        ValueError: If the cost is unknown.
        ImportError: If matplotlib is not installed.

    Example:

    ```python
    tuner.search(train, validation_data=validation)
    omv.plot_pareto(tuner, cost="latency_ms").savefig("pareto.png")
    ```
    """
    front, results = tuner.pareto(cost), tuner.results()
    if not results:
        raise SearchError(
            "Expected finished trials to draw. Received: none. "
            "Next step: tuner.search(train, validation_data=validation)."
        )
    scale, label = _cost_axis(cost, max(getattr(one, cost) for one in results))
    figure, axes = new_chart("Trials of the search: accuracy against cost")
    _draw_others(axes, [one for one in results if one not in front], cost, scale)
    _draw_front(axes, front, cost, scale)
    axes.set(xlabel=label, ylabel="int8 accuracy on the validation data")
    axes.margins(x=0.16, y=0.1)
    axes.yaxis.set_major_formatter(_percent)
    axes.legend(loc="lower right")
    return figure


def plot_space(
    board: Board | Budget | str,
    *,
    classes: int,
    channels: int = 3,
    alphas: Sequence[float] = ALPHAS,
    resolutions: Sequence[int] = RESOLUTIONS,
    head_channels: int | None = None,
    depth: int = BLOCKS,
) -> "Figure":
    """Draws which MobileNetV2s fit a camera, and what stops the others.

    Args:
        board: A `Board`, its name or a `Budget`.
        classes: Number of classes.
        channels: 1 for grey, 3 for RGB. Defaults to `3`.
        alphas: Width multipliers, one row each. Defaults to 15 from 0.05 to 1.4.
        resolutions: Sides of the image in pixels. Defaults to 32 to 224 in steps
            of 8.
        head_channels: Width of the last convolution. Defaults to `None`, the paper's.
        depth: How many of the 17 blocks are kept. Defaults to all.

    Returns:
        The figure. What stops a point is what `Board.fit` says: what is over in the
        storage that it exceeds least. A smaller file may stop where a larger one
        fits: the firmware reads into the heap what the heap takes, beside the arena.

    Raises:
        ValueError: For a lever without a meaning.
        ImportError: If matplotlib is not installed.

    Example:

    ```python
    omv.plot_space("openmv-h7", classes=5).savefig("space.png")
    ```
    """
    board = as_board(board)
    rows, sides = sorted(alphas), sorted(resolutions)
    points = _judge(
        board,
        rows,
        sides,
        channels=channels,
        classes=classes,
        head_channels=head_channels,
        depth=depth,
    )
    figure, axes = new_chart(f"Which MobileNetV2s fit {board.label}")
    _draw_verdicts(axes, points)
    label = _sides_label(channels, classes, head_channels, depth)
    axes.set(xlabel=label, ylabel="alpha")
    axes.set_xticks(sides[:: max(1, len(sides) // 6)])
    axes.set_yticks(range(len(rows)), [f"{alpha:g}" for alpha in rows])
    legend_below(axes, columns=len(STOPS))
    return figure


def _judge(
    board: Board | Budget, rows: Sequence[float], sides: Sequence[int], **others: Any
) -> _Judged:
    """Where candidates lie, a row for each alpha, by what stops them."""
    points: _Judged = {stop: [] for stop in STOPS}
    for row, alpha in enumerate(rows):
        for side in sides:
            levers = Levers(alpha=alpha, resolution=side, **others)
            points[stop_of(board, levers)].append((side, row))
    return points


def _draw_verdicts(axes: "Axes", points: _Judged) -> None:
    for stop, (colour, marker) in _MARKERS.items():
        xs, ys = [side for side, _ in points[stop]], [row for _, row in points[stop]]
        name = f"{STOPS[stop]} ({len(xs)})"
        axes.scatter(xs, ys, _AREA, colour, marker=marker, label=name)


def _sides_label(channels: int, classes: int, head: int | None, depth: int) -> str:
    return (
        f"resolution in pixels ({'grey' if channels == 1 else 'RGB'}, {classes} "
        f"classes, depth {depth}, last convolution {head or 'as in the paper'})"
    )


def _cost_axis(cost: str, largest: float) -> tuple[float, str]:
    """What a cost is divided by, and the name of its axis."""
    if cost == "latency_ms":
        return 1, "estimated time of one inference (ms)"
    if cost == "macs":
        return 1e6, "multiply-accumulates of one inference (millions)"
    scale, unit = bytes_unit(int(largest))
    return scale, f"{'flash' if cost == 'flash_bytes' else 'RAM'} ({unit})"


def _percent(share: float, position: float) -> str:
    return f"{100 * share:g} %"


def _points(
    results: Sequence[TrialResult], cost: str, scale: float
) -> tuple[list[float], list[float]]:
    costs = [getattr(result, cost) / scale for result in results]
    return costs, [result.int8_accuracy for result in results]


def _draw_others(
    axes: "Axes", results: Sequence[TrialResult], cost: str, scale: float
) -> None:
    stopped = [result for result in results if result.stopped]
    beaten = [result for result in results if not result.stopped]
    if stopped:
        xs, ys = _points(stopped, cost, scale)
        label = "stopped early"
        axes.scatter(xs, ys, _AREA, facecolors="none", edgecolors=GREY, label=label)
    if beaten:
        xs, ys = _points(beaten, cost, scale)
        axes.scatter(xs, ys, _AREA, GREY, label="beaten by another trial")


def _draw_front(
    axes: "Axes", front: Sequence[TrialResult], cost: str, scale: float
) -> None:
    xs, ys = _points(front, cost, scale)
    axes.plot(xs, ys, color=BLUE, drawstyle="steps-post")
    axes.scatter(xs, ys, _AREA, BLUE, zorder=3, label="the front: alpha / pixels")
    for result, x, y in zip(front, xs, ys, strict=True):
        # Above and to the left of the front's points there are no others.
        axes.annotate(
            f"{result.levers.alpha:g} / {result.levers.resolution}",
            (x, y),
            xytext=(-5, 4),
            textcoords="offset points",
            ha="right",
        )
