"""Shows what takes long as a bar on stderr, where someone is there to look at it.

Work of more than a second or two is done inside of `working`. Its bar appears after a
second, leaves nothing to see, and is not there at all where stderr is neither a
terminal nor a notebook's, in continuous integration (the environment has `CI`, as all
its services set it), inside `silent` and after `show_progress(False)`. Imports no
TensorFlow and no Keras.
"""

import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from keras_omv.notebook_bars import NotebookBars

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
        silences: How many `silent` are open, in all threads.
        bars: Those that are shown, all together: two sets would overwrite each other.
    """

    is_silent: bool = False
    silences: int = 0
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
        """Whether there is a terminal or a notebook that it is for."""
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

    They appear while something takes long, on a terminal's stderr and below the cell of
    a notebook.

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
    _STATE.silences += when
    try:
        yield
    finally:
        _STATE.silences -= when


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
    from keras_omv.progress import working

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
    if _STATE.bars is not None or _STATE.is_silent or _STATE.silences:
        yield _STATE.bars
        return
    # That of this moment: later sys.stderr may be one that captures.
    stream = sys.stderr if file is None else file
    if not _is_watched(stream):
        yield None
        return
    _STATE.bars = bars = _bars(stream)
    delay = threading.Timer(DELAY_SECONDS, bars.start)
    delay.daemon = True
    delay.start()
    try:
        with _above(bars, "stdout"), _above(bars, "stderr", when=file is None):
            yield bars
    finally:
        _STATE.bars = None
        delay.cancel()
        delay.join()
        bars.stop()


def _is_watched(stream: TextIO) -> bool:
    if os.environ.get("CI"):
        return False
    # Rich takes a pipe for a terminal where the environment has FORCE_COLOR.
    is_terminal = _is_terminal(stream) and Console(file=stream).is_interactive
    return is_terminal or _is_notebook(stream)


def _is_notebook(stream: TextIO) -> bool:
    # Rich asks where it is, not what the stream is: that may be one that captures.
    is_kernels = type(stream).__module__.partition(".")[0] == "ipykernel"
    return is_kernels and Console(file=stream).is_jupyter


def _bars(stream: TextIO) -> Progress:
    kind = NotebookBars if _is_notebook(stream) else Progress
    return kind(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeRemainingColumn(),
        console=Console(file=stream, force_jupyter=False),
        transient=True,
        speed_estimate_period=_SPEED_SECONDS,
        # Rich would swap the streams as the bars appear, in the timer's thread, and
        # put back what another thread or a `with` of the caller has taken away since.
        redirect_stdout=False,
        redirect_stderr=False,
    )


class _AboveBars:
    """A stream whose lines go above the bars while they are shown.

    Without them it is the stream itself, however long somebody keeps it.
    """

    def __init__(self, bars: Progress, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # Rich asks by this name what is below.
        self._bars = bars
        self._lines = FileProxy(bars.console, stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        is_shown = self._bars.live.is_started
        (self._lines if is_shown else self.rich_proxied_file).write(text)
        return len(text)

    def flush(self) -> None:
        self._lines.flush()
        self.rich_proxied_file.flush()


@contextlib.contextmanager
def _above(bars: Progress, name: str, *, when: bool = True) -> Iterator[None]:
    """Lets what others print to `sys.<name>` go above the bars."""
    stream = getattr(sys, name)
    # Never from a pipe to the terminal.
    if not when or not _is_terminal(stream):
        yield
        return
    above = _AboveBars(bars, stream)
    setattr(sys, name, above)
    try:
        yield
    finally:
        # Another one may have been set since, and not been taken back yet.
        if getattr(sys, name) is above:
            setattr(sys, name, stream)
        above.flush()


def _is_terminal(stream: Any) -> bool:
    # A stream that somebody made may have `write` and `flush` alone.
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and not getattr(stream, "closed", False) and isatty())
