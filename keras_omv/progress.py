"""Shows what takes long as a bar on stderr, where someone is there to look at it.

Work of more than a second or two is done inside of `working`. Its bar appears after a
second, leaves nothing behind, and is not there at all where stderr is no terminal, in
continuous integration (the environment has `CI`, as all its services set it), inside
`silent` and after `show_progress(False)`. Imports no TensorFlow and no Keras.
"""

import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

DELAY_SECONDS = 1.0
"""What is done sooner shows no bar."""
_SPEED_SECONDS = 3600.0
"""Over which the time left is estimated: an epoch, one step of a search, is long."""
_Item = TypeVar("_Item")


@dataclasses.dataclass(slots=True)
class _State:
    """Of this process.

    Attributes:
        is_silent: Whether no bar is wanted.
        bars: Those that are shown, all together: two sets would overwrite each other.
    """

    is_silent: bool = False
    bars: Progress | None = None


_STATE = _State()


class Bar:
    """What `working` gives: call it with how much is done and how much there is.

    Args:
        bars: Where it is shown, `None` for nowhere.
        title: What is being done.
    """

    def __init__(self, bars: Progress | None, title: str) -> None:
        self._bars = bars
        self._task = TaskID(0) if bars is None else bars.add_task(title, total=None)

    @property
    def is_shown(self) -> bool:
        """Whether there is a terminal that it is for."""
        return self._bars is not None

    def __call__(self, done: float, total: float) -> None:
        """Shows how far the work is.

        Args:
            done: How much is done.
            total: How much there is.
        """
        if self._bars is not None:
            self._bars.update(self._task, completed=done, total=total)

    def rename(self, title: str) -> None:
        """Shows that something else is being done.

        Args:
            title: What.
        """
        if self._bars is not None:
            self._bars.update(self._task, description=title)

    def over(self, items: Sequence[_Item]) -> Iterator[_Item]:
        """Goes over items and shows how many are done."""
        for done, item in enumerate(items):
            self(done, len(items))
            yield item

    def close(self) -> None:
        """Takes the bar away."""
        if self._bars is not None:
            self._bars.remove_task(self._task)


def show_progress(shown: bool = True) -> None:
    """Switches the progress bars of keras_omv on or off; they are on at first.

    They appear on stderr while something takes long, and only on a terminal.

    Args:
        shown: Whether bars are wanted. Defaults to `True`.

    Example:

    >>> import keras_omv as omv
    >>> omv.show_progress(False)
    """
    _STATE.is_silent = not shown


@contextlib.contextmanager
def silent(when: bool = True) -> Iterator[None]:
    """Lets no new bar appear; those inside of one that is there still do.

    Args:
        when: Whether that is so. Defaults to `True`.
    """
    before, _STATE.is_silent = _STATE.is_silent, _STATE.is_silent or when
    try:
        yield
    finally:
        _STATE.is_silent = before


@contextlib.contextmanager
def working(title: str, *, file: TextIO | None = None) -> Iterator[Bar]:
    """Shows a bar while something is done that may take long.

    Inside of another one it stands below that. It moves to and fro until the amount
    of work is known.

    Args:
        title: What is being done.
        file: Where to. Defaults to `None`, stderr.

    Yields:
        What to call as the work goes on; a callable `(done, total)`.

    Example:

    ```python
    with working("Reading images") as progress:
        for done, path in enumerate(paths):
            progress(done, len(paths))
            read(path)
    ```
    """
    with _shown(file) as bars:
        bar = Bar(bars, title)
        try:
            yield bar
        finally:
            bar.close()


def print_line(text: str, console: Console) -> None:
    """Prints a line as it is, above the bars if there are some.

    Args:
        text: The line.
        console: Where to while there is no bar.
    """
    where = console if _STATE.bars is None else _STATE.bars.console
    where.print(text, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _shown(file: TextIO | None) -> Iterator[Progress | None]:
    """The bars on the screen: those that are there, or new ones."""
    if _STATE.bars is not None or _STATE.is_silent:
        yield _STATE.bars
        return
    console = Console(file=file, stderr=file is None)
    if not _is_watched(console):
        yield None
        return
    _STATE.bars = bars = _bars(console)
    delay = threading.Timer(DELAY_SECONDS, bars.start)
    delay.daemon = True
    delay.start()
    try:
        yield bars
    finally:
        _STATE.bars = None
        delay.cancel()
        delay.join()
        bars.stop()


def _is_watched(console: Console) -> bool:
    # Rich takes a pipe for a terminal where the environment has FORCE_COLOR.
    is_terminal = console.is_interactive and console.file.isatty()
    return is_terminal and not os.environ.get("CI")


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        speed_estimate_period=_SPEED_SECONDS,
        # What others print goes above the bars, but never from a pipe to stderr.
        redirect_stdout=_is_terminal(sys.stdout),
        redirect_stderr=console.stderr,
    )


def _is_terminal(file: Any) -> bool:
    return file is not None and not file.closed and file.isatty()
