"""Knowledge distillation: a float model teaches the one that is being quantized."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_omv.view import QuantizedView

_PROBE_IMAGES = 8
_KINDS = {
    keras.activations.softmax: "softmax",
    keras.activations.sigmoid: "sigmoid",
    keras.activations.linear: "",
}
_PASSING = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Reshape,
)
"""Layers that pass scores on."""


def check_options(teacher: Any, weight: float, temperature: float) -> None:
    """Raises a `ValueError` where the options of distillation cannot be right."""
    if teacher is not None and not isinstance(teacher, keras.Model):
        raise ValueError(
            "Invalid value received for argument `teacher`. Expected a keras.Model "
            f"or None. Received: teacher={teacher!r}. Load a file with "
            "keras.models.load_model."
        )
    for name, value in (("distillation_weight", weight), ("temperature", temperature)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(
                f"Invalid value received for argument `{name}`. Expected a positive "
                f"number. Received: {name}={value}"
            )


class Distillation:
    """The loss that draws a model's scores towards those of a teacher.

    The divergence of the softened probabilities, `weight * temperature**2 *
    KL(teacher || model)`, averaged over the batch. Both may give logits,
    probabilities of a softmax or those of sigmoids.

    Args:
        teacher: A Keras model of the same input and classes. It is only read.
        model: The model in training.
        view: The view of it.
        weight: Of this loss, beside 1 for the model's own.
        temperature: What logits are divided by; higher is softer.

    Raises:
        ValueError: If the teacher does not fit the model.

    Reference:
        Hinton, Vinyals and Dean, 2015, arXiv:1503.02531. The square of the
        temperature keeps the size of the gradients.
    """

    def __init__(
        self,
        teacher: Any,
        model: Any,
        view: QuantizedView,
        *,
        weight: float,
        temperature: float,
    ) -> None:
        if teacher is model:
            raise ValueError(
                "Invalid value received for argument `teacher`. Expected another "
                "model than the one in training. Received: the same. Pass a copy: "
                "teacher = keras.models.clone_model(model), then "
                "teacher.set_weights(model.get_weights())."
            )
        self._teacher = teacher
        self._weight = weight
        self._temperature = temperature
        answers = self._probe(view)
        self._teacher_kind = _kind_of(teacher, answers)
        self._kind = view.graph.output_kind
        units = view.graph.output_units
        self._is_binary = units == 1 or "sigmoid" in (self._kind, self._teacher_kind)

    def _probe(self, view: QuantizedView) -> np.ndarray:
        """The teacher's scores for noise; raises where they cannot be used."""
        shape = (_PROBE_IMAGES, *view.graph.input_shape)
        low, high = view.pixels.range or (0.0, 1.0)
        noise = np.random.default_rng(0).uniform(low, high, shape).astype("float32")
        try:
            answers = np.asarray(self._teacher(noise, training=False))
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                "Invalid value received for argument `teacher`. Expected a model that "
                f"takes images of shape {view.graph.input_shape}, as the model in "
                f"training does. Received: {self._teacher.name!r}, which does not: "
                f"{error} Put a keras.layers.Resizing in front of the teacher."
            ) from error
        expected = (_PROBE_IMAGES, view.graph.output_units)
        if answers.shape != expected:
            raise ValueError(
                "Invalid value received for argument `teacher`. Expected a model of "
                f"{expected[1]} scores per image, as the model in training. Received: "
                f"{self._teacher.name!r}, which gives {answers.shape[1:]}. Train the "
                "teacher for the same classes."
            )
        return answers

    def __call__(self, images: Any, scores: Any) -> Any:
        """The loss of a batch.

        Args:
            images: Shape `(batch, height, width, channels)`, as the model in training
                saw them.
            scores: What it gave, shape `(batch, classes)`.

        Returns:
            A scalar; of a replica, its share: `tf.distribute` adds them up.
        """
        answers = tf.stop_gradient(self._teacher(images, training=False))
        taught = self._soften(answers, self._teacher_kind)
        learnt = self._soften(scores, self._kind)
        divergence = keras.losses.kl_divergence(taught, learnt)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        weight = self._weight * self._temperature**2 / replicas
        return weight * tf.reduce_mean(divergence)

    def _soften(self, scores: Any, kind: str) -> Any:
        logits = _logits(scores, kind) / self._temperature
        if not self._is_binary:
            return tf.nn.softmax(logits)
        return tf.stack([tf.sigmoid(logits), tf.sigmoid(-logits)], axis=-1)


def _kind_of(teacher: Any, answers: np.ndarray) -> str:
    """What makes a model's scores: `"softmax"`, `"sigmoid"` or `""` for logits.

    As its last layer says it; of a subclassed model, or where something of another
    kind stands there, as some answers look.
    """
    kind, seen = _declared_kind(teacher), _seen_kind(answers)
    return seen if kind is None or (kind and not seen) else kind


def _declared_kind(model: Any) -> str | None:
    """What the last layer is said to make, `None` where it says nothing."""
    if isinstance(model, keras.Model):
        # In the order of computing; a Functional model's may be plain functions too.
        parts = getattr(model, "operations", model.layers)
        if not getattr(model, "outputs", None):
            return None
        last = next((p for p in reversed(parts) if not isinstance(p, _PASSING)), None)
        return _declared_kind(last)
    if isinstance(model, keras.layers.Softmax):
        return "softmax"
    return _KINDS.get(getattr(model, "activation", None))


def _seen_kind(answers: np.ndarray) -> str:
    """What scores look like. Logits may all lie in [0, 1] too."""
    if answers.min() < 0 or answers.max() > 1:
        return ""
    sums = answers.sum(axis=1)
    sums_to_one = answers.shape[1] > 1 and np.allclose(sums, 1, atol=1e-3)
    return "softmax" if sums_to_one else "sigmoid"


def _logits(scores: Any, kind: str) -> Any:
    if kind not in ("softmax", "sigmoid"):
        return scores
    tiny = keras.config.epsilon()
    scores = tf.clip_by_value(scores, tiny, 1.0 - tiny)
    logs = tf.math.log(scores)
    return logs if kind == "softmax" else logs - tf.math.log1p(-scores)
