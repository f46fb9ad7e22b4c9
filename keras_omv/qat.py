"""Quantization-aware training, as a callback of `model.fit`."""

import copy
from typing import Any

import keras
import tensorflow as tf

from keras_omv import trained
from keras_omv.distillation import Distillation, check_options
from keras_omv.routing import route, unroute
from keras_omv.view import QuantizedView

SETTLED_RATE = 0.1
"""The share of a fit's highest learning rate below which weights move little enough for
the statistics of an epoch to hold in the next."""


class QuantizationAwareTraining(keras.callbacks.Callback):
    """Trains with int8 rounding from an epoch of the running `fit` on.

    From `start_epoch` on the model computes through a quantized view of itself:
    weights rounded to int8 per output channel (dense layers per tensor), activations
    rounded to 256 levels over ranges that follow the batches. The model itself, its
    weights, the optimizer's state and the other callbacks stay as they are; the
    training step is traced once more. After `fit` the model is plain again, and
    `omv.export` finds the trained ranges. A fit that was interrupted leaves the model
    rounding until the next fit with a callback of this package, or `omv.export`.

    Ranges are averages of the batches' extremes, not learned: the optimizer is built
    for the model's own variables, and stays as it is.

    For the last `freeze_epochs` the ranges stand still. So do the statistics of batch
    normalizations where the learning rate has decayed to a tenth of the fit's highest
    or less: in the epoch before they are estimated anew, from the quantized network,
    and then training normalizes with them, as the camera does, so that the network it
    improves is the one that ships. At a higher rate the weights would move away from
    them, and Keras' own rule stays. `trainable=False` layers keep theirs, as in Keras;
    `renorm=True`, `synchronized=True` and subclasses train as without this callback.

    Args:
        start_epoch: Epoch, counted from 0, to begin at. Defaults to `0`.
        freeze_epochs: For how many of the last epochs the ranges are kept still, and
            perhaps the batch statistics. Defaults to `1`; never in the first epoch
            with rounding.
        input_range: The values `(low, high)` that pixels 0 and 255 have where they
            enter the model. Defaults to `None`: (0, 255) where the model rescales
            its input itself, else taken from the first batch.
        momentum: Of the moving average that ranges follow. Defaults to `0.99`.
        teacher: A Keras model of the same input and classes, the float one usually,
            whose scores the quantized model learns too. It sees the same augmented
            images, is never changed, and copies of the callback share it. Defaults to
            `None`.
        distillation_weight: Of the teacher's loss, which is added to the model's own
            (Hinton et al. 2015, arXiv:1503.02531). Defaults to `0.5`.
        temperature: By which both models' logits are divided in it; higher shows more
            of how classes resemble each other. Defaults to `2.0`.

    Raises:
        ValueError: If `fit` ends before `start_epoch`, or the teacher does not fit.
        UnsupportedModelError: If the model cannot run on the camera.

    Example:

    ```python
    model.fit(images, labels, epochs=30, callbacks=[
        omv.QuantizationAwareTraining(start_epoch=20),
    ])
    # A model that is trained already, fine-tuned with its float self as the teacher:
    teacher = keras.models.clone_model(model)
    teacher.set_weights(model.get_weights())
    model.fit(images, labels, epochs=5, callbacks=[
        omv.QuantizationAwareTraining(teacher=teacher),
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
        teacher: Any = None,
        distillation_weight: float = 0.5,
        temperature: float = 2.0,
    ) -> None:
        super().__init__()
        _check_count("start_epoch", start_epoch)
        _check_count("freeze_epochs", freeze_epochs)
        check_options(teacher, distillation_weight, temperature)
        self.start_epoch = start_epoch
        self.freeze_epochs = freeze_epochs
        self.input_range = input_range
        self.momentum = momentum
        self.teacher = teacher
        self.distillation_weight = distillation_weight
        self.temperature = temperature

    def __deepcopy__(self, memo: dict[int, Any]) -> "QuantizationAwareTraining":
        # A teacher is only read: each of a tuner's trials can do with the same.
        memo[id(self.teacher)] = self.teacher
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        for name, value in vars(self).items():
            setattr(made, name, copy.deepcopy(value, memo))
        return made

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
        self._distillation = self._make_distillation(view)
        trained.begin(self.model, view)
        self._first_epoch: int | None = None
        self._highest_rate = 0.0
        self._estimates = False

    def _make_distillation(self, view: QuantizedView) -> Distillation | None:
        if self.teacher is None:
            return None
        return Distillation(
            self.teacher,
            self.model,
            view,
            weight=self.distillation_weight,
            temperature=self.temperature,
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Not float(rate): a strategy of several devices mirrors the variable.
        rate = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))
        self._highest_rate = max(self._highest_rate, rate)
        view = trained.in_training(self.model)
        if view is None or epoch < self.start_epoch:
            return
        if self._first_epoch is None:
            self._first_epoch = epoch
            route(self.model, view, self._distillation)
        epochs = self.params["epochs"]
        freeze_epoch = max(self._first_epoch + 1, epochs - self.freeze_epochs)
        if epoch >= freeze_epoch:
            view.freeze()
            view.statistics.freeze(self._estimates)
        elif epoch == freeze_epoch - 1 and freeze_epoch < epochs:
            self._estimates = rate <= SETTLED_RATE * self._highest_rate
            if self._estimates:
                view.statistics.estimate()

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
