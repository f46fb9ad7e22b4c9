"""Progress bars below the cell of a notebook.

Rich draws them there in a widget that takes in whatever the cell prints meanwhile, and
loses it as it closes. These are plain text, put in place of the text before: prints
stay where they are, and no widgets are needed. Imports no TensorFlow.
"""

import functools
import io
import threading
from typing import Any

from rich.console import Console
from rich.progress import Progress

_SECONDS = 0.25
"""Between two drawings."""
_WIDTH = 80


class NotebookBars(Progress):
    """Rich's bars, shown as plain text by IPython.

    Args:
        *columns: As for `rich.progress.Progress`.
        **options: As for `rich.progress.Progress`.
    """

    def __init__(self, *columns: Any, **options: Any) -> None:
        super().__init__(*columns, **options)
        self._ended = threading.Event()
        self._drawing: threading.Thread | None = None

    def start(self) -> None:
        """Shows the bars."""
        # There where a notebook is.
        from IPython import get_ipython

        place = _place(get_ipython().execution_count)
        drawing = threading.Thread(target=self._draw, args=(place,), daemon=True)
        drawing.start()
        self._drawing = drawing

    def stop(self) -> None:
        """Takes the bars away."""
        if self._drawing is not None:
            self._ended.set()
            self._drawing.join()

    def _draw(self, place: Any) -> None:
        while True:
            _show(place, self._as_text())
            if self._ended.wait(_SECONDS):
                break
        _show(place, "")

    def _as_text(self) -> str:
        file = io.StringIO()
        console = Console(
            file=file,
            width=_WIDTH,
            no_color=True,
            color_system=None,
            force_jupyter=False,
            force_terminal=False,
        )
        console.print(self.get_renderable())
        return file.getvalue()


# One place for all bars of a cell: an output cannot be taken away, only emptied.
@functools.lru_cache(maxsize=1)
def _place(cell: int) -> Any:
    from IPython.display import display

    return display(  # type: ignore[no-untyped-call]
        {"text/plain": ""}, raw=True, display_id=True
    )


def _show(place: Any, text: str) -> None:
    if place is not None:  # A shell that cannot change what it showed has none.
        place.update({"text/plain": text}, raw=True)
