"""Inference through the view computes what TFLM computes, to the bit."""

import copy
import dataclasses
import importlib.util

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_omv as omv
from keras_omv import fixed_point, trained, verify
from keras_omv.convert import lower
from keras_omv.folding import integer_weights
from keras_omv.graph import FIXED
from keras_omv.scales import (
    Quantization,
    activation_quantization,
    range_quantization,
)
from keras_omv.view import QuantizedView

needs_tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="the tflite-micro wheel exists for Linux on x86-64 only",
)
FINAL_OPS = ("SOFTMAX", "LOGISTIC")
quiet = hypothesis.settings(max_examples=60, deadline=None)


def device_logits(network, images):
    """What TFLM has before the last softmax or sigmoid, int8."""
    cut = max(i for i, op in enumerate(network.ops) if op.kind in FINAL_OPS)
    logits = network.ops[cut].inputs[0]
    network = dataclasses.replace(network, ops=network.ops[:cut], outputs=(logits,))
    scores = verify.run_network(network, images).values
    return scores.reshape(len(images), -1), network.tensors[logits]


def view_logits(view, inputs):
    """What the view has before its last softmax or sigmoid, real numbers."""
    fixed = [step for step in view.graph.steps if step.kind in FIXED]
    ends = fixed and view.graph.output_kind in FIXED
    output = fixed[-1].inputs[0] if ends else view.graph.output
    headless = copy.copy(view)
    headless.graph = dataclasses.replace(view.graph, output=output)
    return tf.function(headless)(inputs).numpy().reshape(len(inputs), -1)


def assert_same_logits(view, network, inputs, pixels):
    expected, tensor = device_logits(network, pixels)
    steps = view_logits(view, inputs) / tensor.scales[0]
    found = np.rint(steps).astype(int)
    np.testing.assert_allclose(steps, found, atol=1e-3)
    np.testing.assert_array_equal(found + tensor.zero_points[0], expected)
    assert len(np.unique(expected)) > 3


# Whole networks


@needs_tflm
@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_gives_the_devices_logits_to_the_bit(name):
    case = models.prepared(name)
    assert_same_logits(case.view, case.network, case.inputs, case.pixels)


@needs_tflm
@pytest.mark.parametrize("name", ["single_sigmoid", "convolutional_classifier"])
def test_probabilities_are_the_devices_up_to_one_step_in_a_thousand(name):
    case = models.prepared(name)
    device = verify.run_network(case.network, case.pixels).values.astype(int)
    found = tf.function(case.view)(case.inputs).numpy() * 256
    steps = np.where(found < 0.5, 0, np.rint(found)).astype(int) - 128
    assert np.abs(steps - device).max() <= 1
    assert np.mean(steps != device) <= 0.001


def test_a_probability_of_zero_steps_is_given_as_it_is():
    x = models.image()
    model = keras.Model(x, models.scores(layers.Conv2D(4, 3)(x)))
    head = model.get_layer("scores")
    head.kernel.assign(np.zeros((4, 4)))
    head.bias.assign([0.0, 1.0, 3.0, 9.0])
    view = QuantizedView(model, input_range=models.UNIT)
    images = models.as_inputs(models.pixels(4, (12, 12, 3)), models.UNIT)
    view.calibrate([images])
    scores = view(images).numpy()[0]
    exact = tf.nn.softmax([0.0, 1.0, 3.0, 9.0]).numpy()
    np.testing.assert_allclose(scores[:2], exact[:2], rtol=0.05)
    np.testing.assert_allclose(scores[2:] * 256, [1, 255])


@needs_tflm
def test_sums_beyond_float32_are_exact():
    x = models.image()
    y = layers.Conv2D(9, 3, padding="same", activation="relu")(x)
    y = layers.Conv2D(4, 12, activation="relu6")(y)
    model = keras.Model(x, models.scores(layers.Flatten()(y), activation=None))
    conv = model.layers[2]
    assert np.prod(conv.kernel.shape[:3]) == 1296
    kernel = np.abs(np.asarray(conv.kernel)) * [1, -1, 1, 1]
    conv.kernel.assign(kernel)
    view = QuantizedView(model, input_range=models.UNIT)
    images = models.pixels(100, (12, 12, 3))
    inputs = models.as_inputs(images, models.UNIT)
    view.calibrate([inputs])
    assert_same_logits(view, lower(view), inputs, images)


@needs_tflm
def test_accuracy_during_fit_is_the_devices():
    images = models.pixels(120, (12, 12, 3))
    means = images.astype("float32").mean(axis=(1, 2))
    labels = np.argmax(means - means.mean(axis=0), axis=1)
    x = models.image()
    y = models.conv(models.rescaled(x), 6)
    model = keras.Model(x, models.scores(y, classes=3))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        images,
        labels,
        epochs=2,
        batch_size=30,
        verbose=0,
        validation_data=(images, labels),
        callbacks=[omv.QuantizationAwareTraining()],
    )
    network = lower(trained.trained_view(model))
    answers = verify.run_network(network, images).classes
    accuracy = np.mean(answers == labels)
    assert history.history["val_accuracy"][-1] == pytest.approx(accuracy, abs=1e-6)


# Weights and ranges


def fold(step, source_scale, output_scale):
    weights = integer_weights(step, source_scale, output_scale)
    return weights.kernel, weights.scales, weights.bias


@pytest.mark.parametrize("name", ["zero_and_negative_gammas", "dense_with_batch_norm"])
def test_a_compiled_graph_folds_to_the_bits_of_the_file(name):
    case = models.prepared(name)
    tensors = {t.name: t for t in case.network.tensors}
    for step in case.view.graph.steps:
        if step.kind not in ("conv", "depthwise", "dense", "affine"):
            continue
        quantizations = case.view.quantizations()
        scales = [quantizations[v].scale for v in (step.inputs[0], step.output)]
        weights = tf.function(fold)(step, *scales)
        kernel, weight_scales, bias = (tensor.numpy() for tensor in weights)
        written = tensors[f"{step.name}/weights"]
        np.testing.assert_array_equal(weight_scales, written.scales)
        np.testing.assert_array_equal(bias, tensors[f"{step.name}/bias"].data)
        found, expected = (np.sort(x, axis=None) for x in (kernel, written.data))
        np.testing.assert_array_equal(found, expected)


@tf.function
def compiled_range(low, high):
    quantization = range_quantization(low, high)
    return quantization.scale, quantization.zero_point


@hypothesis.given(
    low=st.floats(-1e4, 0, width=32), width=st.floats(0.0009765625, 1e4, width=32)
)
@quiet
def test_ranges_on_tensors_are_those_of_the_file(low, width):
    low, high = np.float32(low), np.maximum(np.float32(low + width), np.float32(0))
    hypothesis.assume(high - low > 1e-3)
    scale, zero_point = activation_quantization(low, high)
    found = compiled_range(tf.constant(low), tf.constant(high))
    assert (found[0].numpy(), found[1].numpy()) == (scale, zero_point)


# TFLM's arithmetic, in Python's integers


def multiplier_and_shift(real):
    fraction, shift = np.frexp(real)
    multiplier = int(np.floor(fraction * 2**31 + 0.5))
    return (2**30, int(shift) + 1) if multiplier == 2**31 else (multiplier, int(shift))


def divide_away_from_zero(x, exponent):
    half = (1 << exponent) >> 1
    return (abs(x) + half >> exponent) * (1 if x >= 0 else -1)


def scaled(x, multiplier, shift):
    high = ((x << max(shift, 0)) * multiplier + 2**30) >> 31
    return divide_away_from_zero(high, max(-shift, 0))


factors = st.one_of(
    st.floats(2.0**-20, 8.0),
    st.integers(-20, 3).map(lambda power: 2.0**power),
    st.integers(1, 2**12).map(lambda steps: steps * 2.0**-14),
)
sums = hnp.arrays("int64", 64, elements=st.integers(-(2**22), 2**22))


@hypothesis.given(real=factors, sums=sums, bias=st.integers(-(2**20), 2**20))
@quiet
def test_sums_are_scaled_as_in_integers(real, sums, bias):
    expected = [scaled(int(x) + bias, *multiplier_and_shift(real)) for x in sums]
    by = fixed_point.factor(tf.constant(real, tf.float64))
    found = fixed_point.scale_sums(sums, by, tf.cast(bias, tf.float64)).numpy()
    np.testing.assert_array_equal(found, expected)
    found = fixed_point.scale_sums(sums, by, tf.cast(bias, tf.float64), signed=False)
    np.testing.assert_array_equal(np.maximum(found, 0), np.maximum(expected, 0))


def test_halves_move_away_from_zero_and_what_rounds_to_a_half_does_too():
    by = fixed_point.factor(tf.constant(0.25, tf.float64))
    found = fixed_point.scale_sums([-10, -6, -2, -1, 1, 2, 6, 10], by)
    # A quarter is a half to the first rounding, which makes it 1, and half of that 1.
    np.testing.assert_array_equal(found, [-3, -2, -1, 0, 1, 1, 2, 3])
    real = 0.5 * (1 - 2.0**-26) / 2**10
    assert scaled(2**10, *multiplier_and_shift(real)) == 1
    by = fixed_point.factor(tf.constant(real, tf.float64))
    np.testing.assert_array_equal(fixed_point.scale_sums([2**10], by), [1])


@hypothesis.given(
    real=st.floats(0.01, 4.0),
    side=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**31),
)
@quiet
def test_means_are_those_of_integers(real, side, seed):
    values = np.random.default_rng(seed).integers(-255, 256, (4, *side, 3))
    count = side[0] * side[1]
    multiplier, shift = multiplier_and_shift(real)
    widening = count.bit_length() - 1
    multiplier, shift = (multiplier << widening) // count, shift - widening
    expected = [
        scaled(int(x), multiplier, shift) for x in values.sum(axis=(1, 2)).ravel()
    ]
    found = fixed_point.mean(
        tf.constant(values, tf.float32), (3,), tf.constant(real, tf.float64),
        Quantization(1.0, 0.0),
    )  # fmt: skip
    np.testing.assert_array_equal(found.numpy().ravel(), np.clip(expected, -128, 127))


@hypothesis.given(
    count=st.integers(1, 400), zero_point=st.integers(-128, 127), data=st.data()
)
@quiet
def test_averages_are_those_of_integers(count, zero_point, data):
    total = data.draw(st.integers(-128 * count, 127 * count))
    sign = 1 if total > 0 else -1
    expected = sign * ((abs(total) + count // 2) // count)
    average = np.float32(total - zero_point * count) / np.float32(count)
    output = Quantization(1.0, float(zero_point))
    found = fixed_point.round_average(average, output).numpy()
    assert found + zero_point == expected
