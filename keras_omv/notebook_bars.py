"""Progress bars below the cell of a notebook.

Rich draws them there in a widget that takes in whatever the cell prints meanwhile, and
loses it as it closes. These are text, put in place of the text before: prints stay
where they are, and no widgets are needed. Imports no TensorFlow.
"""

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
        self._shown: Any = None
        self._ended = threading.Event()
        self._drawing = threading.Thread(target=self._draw, daemon=True)

    def start(self) -> None:
        """Shows the bars."""
        # There where a notebook is.
        from IPython.display import display

        self._shown = display(  # type: ignore[no-untyped-call]
            _plain(""), raw=True, display_id=True
        )
        self._drawing.start()

    def stop(self) -> None:
        """Takes the bars away."""
        if self._shown is None:
            return
        self._ended.set()
        self._drawing.join()
        self._shown.update(_plain(""), raw=True)
        self._shown = None

    def _draw(self) -> None:
        while True:
            console = Console(file=io.StringIO(), width=_WIDTH, force_jupyter=False)
            with console.capture() as captured:
                console.print(self.get_renderable())
            self._shown.update(_plain(captured.get()), raw=True)
            if self._ended.wait(_SECONDS):
                return


def _plain(text: str) -> dict[str, str]:
    return {"text/plain": text}
