"""Shows a fit as one bar, or as one line an epoch where there is no terminal."""

import contextlib
import math
from typing import Any

import keras
from rich.console import Console

from keras_omv.progress import Bar, print_line, working


class FitProgress(keras.callbacks.Callback):
    """Shows epoch, loss and accuracy while `model.fit(..., verbose=0)` runs.

    Open it as a context around the fit: the bar then stays until what follows the
    last epoch, such as the export, is done as well, and goes if anything fails.

    Args:
        console: Where lines go if no bar is shown; a quiet one prints nothing.
        start_epoch: The epoch, counted from 0, from which int8 rounding is on.

    Example:

    ```python
    from rich.console import Console

    from keras_omv.fit_progress import FitProgress

    with FitProgress(Console(), start_epoch=18) as progress:
        model.fit(images, labels, epochs=24, verbose=0, callbacks=[progress])
    ```
    """

    def __init__(self, console: Console, *, start_epoch: int) -> None:
        super().__init__()
        self.console = console
        self.start_epoch = start_epoch
        self._opened = contextlib.ExitStack()
        self._bar: Bar | None = None
        self._steps_done = 0

    def __enter__(self) -> "FitProgress":
        # Lines that go elsewhere may come back to the terminal, as through `tee`.
        if self.console.is_terminal:
            bar = self._opened.enter_context(working("Epoch 1"))
            self._bar = bar if bar.is_shown else None
        return self

    def __exit__(self, *error: object) -> None:
        self._bar = None
        self._opened.close()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._steps_done += 1
        if self._bar is not None:
            steps = self.params.get("steps") or 1
            self._bar(self._steps_done, self.params["epochs"] * steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        text = self._describe(epoch, logs or {})
        if self._bar is None:
            print_line(text, self.console)
        else:
            self._bar.rename(text)

    def _describe(self, epoch: int, logs: dict[str, Any]) -> str:
        rounding = ", int8 rounding" if epoch >= self.start_epoch else ""
        return (
            f"Epoch {epoch + 1}/{self.params['epochs']}{rounding}: "
            f"loss {logs.get('loss', math.nan):.3f}, "
            f"accuracy on images held back {logs.get('val_accuracy', math.nan):.1%}"
        )
