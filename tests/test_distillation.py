"""A teacher beside quantization-aware training."""

import copy
import json
import pathlib
import subprocess
import sys

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_omv as omv
from keras_omv.distillation import Distillation
from keras_omv.view import QuantizedView

MIRRORED_FIT = pathlib.Path(__file__).parent / "mirrored_fit.py"
SHAPE = (12, 12, 3)
IMAGES = models.pixels(48, SHAPE)
LABELS = np.arange(48) % 3


def make_model(activation="softmax", *, classes=3, augment=()):
    x = models.image()
    y = x
    for layer in augment:
        y = layer(y)
    y = models.conv(models.rescaled(y), 6, strides=2)
    return keras.Model(x, models.scores(y, classes=classes, activation=activation))


def compiled(model, **options):
    model.compile("sgd", "sparse_categorical_crossentropy", **options)
    return model


def fit(model, callback, **options):
    options = {"epochs": 2, "batch_size": 16, "verbose": 0, **options}
    return model.fit(IMAGES, LABELS, callbacks=[callback], **options)


def distillation(teacher, model, **options):
    options = {"weight": 1.0, "temperature": 1.0, **options}
    return Distillation(teacher, model, QuantizedView(model), **options)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def kl(p, q):
    return np.sum(p * np.log(p / q), axis=-1)


FORMS = {None: lambda x: x, "softmax": softmax, "sigmoid": sigmoid}


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("form", [None, "softmax"])
@pytest.mark.parametrize("teachers_form", [None, "softmax"])
def test_the_loss_is_hintons_for_logits_and_probabilities(
    temperature, form, teachers_form
):
    teacher = make_model(teachers_form)
    teacher.layers[-1].kernel.assign(4 * teacher.layers[-1].kernel)
    answers = np.asarray(teacher(IMAGES, training=False))
    taught = np.log(answers) if teachers_form else answers
    scores = np.random.default_rng(0).normal(0, 2, (48, 3)).astype("float32")
    loss = distillation(teacher, make_model(form), weight=0.5, temperature=temperature)
    expected = kl(softmax(taught / temperature), softmax(scores / temperature)).mean()
    found = loss(IMAGES.astype("float32"), tf.constant(FORMS[form](scores)))
    assert float(found) == pytest.approx(0.5 * temperature**2 * expected, rel=1e-3)


@pytest.mark.parametrize("units", [1, 4])
def test_the_loss_of_sigmoids_is_that_of_each_alone(units):
    teacher = make_model("sigmoid", classes=units)
    answers = np.asarray(teacher(IMAGES, training=False))
    scores = np.random.default_rng(0).uniform(0.1, 0.9, (48, units)).astype("float32")
    both = [np.stack([p, 1 - p], axis=-1) for p in (answers, scores)]
    loss = distillation(teacher, make_model("sigmoid", classes=units))
    found = loss(IMAGES.astype("float32"), tf.constant(scores))
    assert float(found) == pytest.approx(kl(*both).mean(), rel=1e-3)


def small_logits():
    """A teacher whose logits look like the probabilities of sigmoids."""
    teacher = make_model(None)
    teacher.layers[-1].kernel.assign(0.01 * teacher.layers[-1].kernel)
    teacher.layers[-1].bias.assign([0.2, 0.9, 0.4])
    return teacher


def ends(teacher, *last):
    x = teacher.output
    for layer in last:
        x = layer(x)
    return keras.Model(teacher.input, x)


class Subclassed(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, inputs, training=None):
        return keras.ops.softmax(self.inner(inputs))


TEACHERS = {
    "logits in [0, 1]": (small_logits, False),
    "nested": (lambda: keras.Sequential([small_logits(), layers.Identity()]), False),
    "dropped": (lambda: ends(small_logits(), layers.Dropout(0.5)), False),
    "activation": (lambda: ends(small_logits(), layers.Activation("softmax")), True),
    "softmax": (lambda: ends(small_logits(), layers.Softmax()), True),
    "reshaped": (
        lambda: ends(small_logits(), layers.Softmax(), layers.Reshape((3,))),
        True,
    ),
    "function": (lambda: ends(small_logits(), keras.ops.softmax), True),
    "subclass": (lambda: Subclassed(small_logits()), True),
    "custom": (lambda: ends(small_logits(), layers.Lambda(tf.nn.softmax)), True),
}


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teachers_last_layer_says_what_its_scores_are(name):
    make, gives_probabilities = TEACHERS[name]
    teacher = make()
    answers = np.asarray(teacher(IMAGES, training=False))
    assert answers.min() >= 0
    assert answers.max() <= 1
    taught = np.log(answers) if gives_probabilities else answers
    scores = np.random.default_rng(0).normal(0, 2, (48, 3)).astype("float32")
    loss = distillation(teacher, make_model(None))
    found = loss(IMAGES.astype("float32"), tf.constant(scores))
    expected = kl(softmax(taught), softmax(scores)).mean()
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_two_devices_learn_what_one_does():
    command = [sys.executable, "-W", "ignore", str(MIRRORED_FIT)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(process.stdout.splitlines()[-1])
    # The ranges follow halves of batches there: rounding is a little different.
    assert found["two"]["loss"] == pytest.approx(found["one"]["loss"], rel=0.05)
    assert found["two"]["bias"] == pytest.approx(found["one"]["bias"], abs=0.03)
    assert max(map(abs, found["one"]["bias"])) > 0.1


def test_a_teacher_that_agrees_costs_nothing_and_never_learns():
    model, teacher = make_model(), make_model()
    loss = distillation(teacher, model)
    images = IMAGES.astype("float32")
    scores = teacher(images, training=False)
    with tf.GradientTape() as tape:
        value = loss(images, scores)
    assert float(value) == pytest.approx(0, abs=1e-6)
    weights = [weight.value for weight in teacher.trainable_variables]
    assert tape.gradient(value, weights) == [None] * len(weights)


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_the_model_moves_towards_its_teacher_while_rounding_is_on(options):
    keras.utils.set_random_seed(0)
    model = make_model()
    teacher = make_model()
    teacher.layers[-1].bias.assign([4.0, -4.0, 0.0])
    before = [weight.copy() for weight in teacher.get_weights()]
    answers = np.asarray(teacher(IMAGES, training=False))
    far = kl(answers, np.asarray(model(IMAGES, training=False))).mean()
    compiled(model, **options)
    model.optimizer.learning_rate = 0.1
    callback = omv.QuantizationAwareTraining(teacher=teacher, distillation_weight=20.0)
    history = fit(model, callback, epochs=4)
    near = kl(answers, model.predict(IMAGES, verbose=0)).mean()
    assert near < 0.3 * far
    assert history.history["loss"][-1] < history.history["loss"][0]
    for value, now in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(value, now)


def test_the_teacher_sees_the_augmented_images_unscaled():
    seen = []

    class Watching(keras.Model):
        def call(self, inputs, training=None):
            if len(inputs) == 16:
                seen.append((np.asarray(inputs), training))
            return tf.tile([[0.2, 0.3, 0.5]], (len(inputs), 1))

    model = compiled(
        make_model(augment=[layers.RandomFlip("horizontal", seed=1)]), run_eagerly=True
    )
    fit(
        model,
        omv.QuantizationAwareTraining(teacher=Watching()),
        epochs=1,
        shuffle=False,
    )
    images = np.concatenate([batch for batch, _ in seen])
    assert not any(training for _, training in seen)
    assert images.shape == IMAGES.shape
    flipped = 0
    for image, original in zip(images, IMAGES.astype("float32"), strict=True):
        straight = np.allclose(image, original, atol=1e-2)
        assert straight or np.allclose(image, original[:, ::-1], atol=1e-2)
        flipped += not straight
    assert 0 < flipped < len(images)


def test_validation_and_the_plain_model_have_no_loss_of_the_teacher():
    model = compiled(make_model(), metrics=["sparse_categorical_crossentropy"])
    callback = omv.QuantizationAwareTraining(teacher=make_model())
    history = fit(model, callback, validation_data=(IMAGES, LABELS)).history
    own = history["val_sparse_categorical_crossentropy"]
    assert history["val_loss"] == pytest.approx(own, rel=1e-4)
    evaluated = model.evaluate(IMAGES, LABELS, verbose=0)
    assert evaluated[0] == pytest.approx(evaluated[1], rel=1e-4)


def test_copies_of_the_callback_share_the_teacher():
    teacher = make_model()
    callback = omv.QuantizationAwareTraining(1, teacher=teacher, temperature=3.0)
    both = copy.deepcopy({"first": callback, "teacher": callback, "other": [1]})
    made = both["first"]
    assert made is both["teacher"]
    assert made is not callback
    assert made.teacher is teacher
    assert (made.start_epoch, made.temperature) == (1, 3.0)
    fit(compiled(make_model()), made)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"teacher": "teacher.keras"}, r"`teacher`.*keras\.models\.load_model"),
        ({"temperature": 0}, r"`temperature`.*positive.*temperature=0"),
        ({"distillation_weight": -1}, r"`distillation_weight`.*positive"),
        ({"distillation_weight": float("nan")}, r"`distillation_weight`.*positive"),
    ],
)
def test_options_that_cannot_be_right_are_refused_at_once(options, match):
    with pytest.raises(ValueError, match=match):
        omv.QuantizationAwareTraining(**options)


def test_a_teacher_that_does_not_fit_is_refused_before_training():
    model = compiled(make_model())
    wide = keras.Sequential(
        [keras.Input((24, 24, 3)), layers.Flatten(), layers.Dense(3)]
    )
    for teacher, match in (
        (model, r"clone_model"),
        (make_model(classes=5), r"3 scores.*\(5,\).*same classes"),
        (wide, r"(?s)\(12, 12, 3\).*Resizing"),
    ):
        with pytest.raises(ValueError, match=match):
            fit(model, omv.QuantizationAwareTraining(teacher=teacher))
    assert int(model.optimizer.iterations) == 0
