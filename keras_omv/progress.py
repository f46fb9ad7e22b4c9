"""Shows a fit as one bar, or as one line an epoch where there is no terminal."""

import math
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class FitProgress(keras.callbacks.Callback):
    """Shows epoch, loss and accuracies while `model.fit(..., verbose=0)` runs.

    Args:
        console: Where to; a quiet console shows nothing.
        start_epoch: The epoch, counted from 0, from which int8 rounding is on.
    """

    def __init__(self, console: Console, *, start_epoch: int) -> None:
        super().__init__()
        self.console = console
        self.start_epoch = start_epoch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        epochs, steps = self.params["epochs"], self.params.get("steps") or 1
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("Epoch 1", total=epochs * steps)
        self._bar.start()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        self._bar.advance(self._task)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        text = self._describe(epoch, logs or {})
        self._bar.update(self._task, description=text)
        if not self.console.is_terminal:
            self.console.print(text)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._bar.stop()

    def _describe(self, epoch: int, logs: dict[str, Any]) -> str:
        rounding = ", int8 rounding" if epoch >= self.start_epoch else ""
        return (
            f"Epoch {epoch + 1}/{self.params['epochs']}{rounding}: "
            f"loss {logs.get('loss', math.nan):.3f}, "
            f"accuracy {logs.get('val_accuracy', math.nan):.1%}"
        )
