"""What the pictures of this package share: an empty figure, colours, units.

Figures belong to no window and need no display: they are made by
`matplotlib.figure.Figure`, not by pyplot. matplotlib is the extra `plots`; without it
this module can be imported, but draws nothing.

Colours are Okabe and Ito's, which people tell apart who are blind to red or green
(Okabe and Ito 2008, "Color Universal Design", jfly.uni-koeln.de/color).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, PURPLE = "#0072B2", "#E69F00", "#CC79A7"
VERMILION = "#D55E00"
GREY, BLACK = "#999999", "#222222"
_GRID = "#E4E4E4"
_KIB, _MIB = 1024, 1024 * 1024


def new_chart(title: str) -> "tuple[Figure, Axes]":
    """An empty figure, 9 x 5.6 inches, and its axes.

    Args:
        title: What it shows.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Expected matplotlib for pictures. Received: an environment without it. "
            'Next step: pip install "keras-omv[plots]".'
        ) from error
    figure = Figure(figsize=(9, 5.6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=13, pad=12)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def legend_below(axes: "Axes", columns: int) -> None:
    """Puts the legend under the horizontal axis, where it covers nothing."""
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=columns, frameon=False
    )


def bytes_unit(largest_bytes: int) -> tuple[int, str]:
    """What bytes on an axis are divided by, and the name of that unit.

    Example:

    >>> bytes_unit(300_000)
    (1024, 'KiB')
    """
    return (_MIB, "MiB") if largest_bytes >= 2 * _MIB else (_KIB, "KiB")
