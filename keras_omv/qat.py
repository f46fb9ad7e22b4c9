"""Quantization-aware training, as a callback of `model.fit`."""

from typing import Any

import keras

from keras_omv import trained
from keras_omv.routing import route, unroute
from keras_omv.view import QuantizedView


class QuantizationAwareTraining(keras.callbacks.Callback):
    """Trains with int8 rounding from an epoch of the running `fit` on.

    From `start_epoch` on the model computes through a quantized view of itself:
    weights rounded to int8 per output channel (dense layers per tensor), activations
    rounded to 256 levels over ranges that follow the batches. The model itself, its
    weights, the optimizer's state and the other callbacks stay as they are; the
    training step is traced once more. After `fit` the model is plain again, and
    `omv.export` finds the trained ranges. A fit that was interrupted leaves the model
    rounding until the next fit with a callback of this package, or `omv.export`.

    Args:
        start_epoch: Epoch, counted from 0, to begin at. Defaults to `0`.
        freeze_epochs: For how many of the last epochs the ranges are kept still.
            Defaults to `1`; never in the first epoch with rounding.
        input_range: The values `(low, high)` that pixels 0 and 255 have where they
            enter the model. Defaults to `None`: (0, 255) where the model rescales
            its input itself, else taken from the first batch.
        momentum: Of the moving average that ranges follow. Defaults to `0.99`.

    Raises:
        ValueError: If `fit` ends before `start_epoch`.
        UnsupportedModelError: If the model cannot run on the camera.

    Example:

    ```python
    model.fit(images, labels, epochs=30, callbacks=[
        omv.QuantizationAwareTraining(start_epoch=20),
    ])
    ```
    """

    def __init__(
        self,
        start_epoch: int = 0,
        *,
        freeze_epochs: int = 1,
        input_range: tuple[float, float] | None = None,
        momentum: float = 0.99,
    ) -> None:
        super().__init__()
        _check_count("start_epoch", start_epoch)
        _check_count("freeze_epochs", freeze_epochs)
        self.start_epoch = start_epoch
        self.freeze_epochs = freeze_epochs
        self.input_range = input_range
        self.momentum = momentum

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        unroute(self.model)
        if self.start_epoch >= self.params["epochs"]:
            raise ValueError(
                "Invalid value received for argument `start_epoch`. Expected an epoch "
                f"before the last of this fit, 0 to {self.params['epochs'] - 1}. "
                f"Received: start_epoch={self.start_epoch}. Train for more epochs or "
                "start earlier."
            )
        view = QuantizedView(
            self.model, input_range=self.input_range, momentum=self.momentum
        )
        trained.begin(self.model, view)
        self._first_epoch: int | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        view = trained.in_training(self.model)
        if view is None or epoch < self.start_epoch:
            return
        if self._first_epoch is None:
            self._first_epoch = epoch
            route(self.model, view)
        elif epoch >= self.params["epochs"] - self.freeze_epochs:
            view.freeze()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        view = trained.in_training(self.model)
        if view is None:
            return
        _ = view.pixels.range  # Raises where the first batch had no usual range.
        trained.note_epoch(self.model, quantized=self._first_epoch is not None)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        unroute(self.model)


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 0:
        raise ValueError(
            f"Invalid value received for argument `{name}`. Expected a whole number "
            f"of epochs, 0 or more. Received: {name}={value!r}"
        )
