"""The quantized view: a model's own computation with int8 rounding."""

import time

import hypothesis
import hypothesis.strategies as st
import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_omv.batches import batches_of
from keras_omv.errors import UnsupportedModelError
from keras_omv.scales import (
    fake_quantize_kernel,
    kernel_axes,
    weight_quantization,
)
from keras_omv.view import QuantizedView

SHALLOW = [name for name in models.MODELS if name != models.DEEP]


def probabilities(output):
    output = np.asarray(output)
    if output.shape[-1] == 1:
        inside = output.min() >= 0 and output.max() <= 1
        return output if inside else 1 / (1 + np.exp(-output))
    if np.allclose(output.sum(axis=-1), 1, atol=0.02):  # In steps of 1/256.
        return output
    return np.asarray(tf.nn.softmax(output))


def fresh(name):
    """A model that the test may change, its images and its view."""
    model, input_range = models.MODELS[name]()
    images = models.pixels(32, model.input_shape[1:])
    inputs = models.as_inputs(images, input_range)
    return model, inputs, QuantizedView(model, input_range=input_range)


@pytest.mark.parametrize("name", SHALLOW)
def test_the_view_computes_what_the_model_computes_within_rounding(name):
    case = models.prepared(name)
    float_scores = probabilities(case.model(case.inputs, training=False))
    view_scores = probabilities(tf.function(case.view)(case.inputs))
    assert np.abs(float_scores - view_scores).mean() < 0.04


def test_the_view_of_mobilenet_v2_is_prepared_in_two_seconds():
    model, input_range = models.MODELS[models.DEEP]()
    begin = time.process_time()
    QuantizedView(model, input_range=input_range)
    assert time.process_time() - begin < 2


def test_the_model_and_its_weights_stay_as_they_are():
    model, inputs, _ = fresh("functional_backbone")
    before = [weight.path for weight in model.weights]
    values = model.get_weights()
    predicted = model.predict(inputs, verbose=0)
    view = QuantizedView(model)
    view.calibrate([inputs])
    view(inputs)
    assert [weight.path for weight in model.weights] == before
    for value, now in zip(values, model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, now)
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), predicted)


def test_the_view_follows_the_weights_of_the_model():
    model, inputs, view = fresh("plain")
    view.calibrate([inputs])
    before = view(inputs)
    head = model.get_layer("scores")
    head.kernel.assign(-head.kernel)
    assert np.abs(view(inputs) - before).max() > 0.01


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"image": x}])
def test_images_are_taken_in_every_form_that_keras_takes(dtype, wrap):
    _, inputs, view = fresh("bytes_without_rescaling")
    expected = view(inputs)
    np.testing.assert_array_equal(view(wrap(inputs.astype(dtype))), expected)


# Weights


@hypothesis.given(
    kind=st.sampled_from(["conv", "depthwise", "dense", "dense per channel"]),
    seed=st.integers(0, 2**31),
    magnitude=st.integers(-12, 12),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_weights_are_rounded_to_127_symmetric_steps(kind, seed, magnitude):
    generator = np.random.default_rng(seed)
    shape = (9, 5) if kind.startswith("dense") else (3, 3, 4, 5)
    kernel = (generator.normal(size=shape) * 10.0**magnitude).astype("float32")
    kernel[generator.random(shape) < 0.3] = 0
    axes = kernel_axes(kind.split()[0], per_channel=kind != "dense")
    values, scales = (x.numpy() for x in weight_quantization(kernel, axes))
    rounded = fake_quantize_kernel(kernel, axes).numpy()
    largest = np.abs(kernel).max(axis=axes, keepdims=True)
    np.testing.assert_allclose(scales * 127, largest, rtol=1e-6)
    np.testing.assert_allclose(rounded, values * scales, rtol=1e-5)
    assert np.all(np.abs(rounded - kernel) <= scales * 0.5001)
    assert np.all(np.abs(values.astype(int)) <= 127)
    assert np.all(values[kernel == 0] == 0)
    assert np.all(rounded[kernel == 0] == 0)
    channels = {"dense": 1, "dense per channel": 5, "conv": 5, "depthwise": 20}
    assert scales.size == channels[kind]


def test_a_channel_of_zeros_stays_zero():
    kernel = np.ones((3, 3, 2, 2), "float32")
    kernel[..., 1] = 0
    values, scales = (x.numpy() for x in weight_quantization(kernel, (0, 1, 2)))
    np.testing.assert_array_equal(scales.ravel(), np.float32([1 / 127, 0]))
    np.testing.assert_array_equal(values[..., 1], 0)
    np.testing.assert_array_equal(fake_quantize_kernel(kernel, (0, 1, 2)), kernel)


# Training


def test_gradients_pass_straight_through_to_every_weight():
    model, inputs, view = fresh("inverted_residual")
    with tf.GradientTape() as tape:
        scores = view(inputs, training=True)
        loss = -tf.reduce_mean(tf.math.log(scores[:, 0]))
    weights = [weight.value for weight in model.trainable_variables]
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        assert gradient is not None, weight.name
        assert np.any(gradient != 0), weight.name


def test_the_gradient_of_a_rounded_kernel_is_the_kernels_own():
    kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 2, 4)), tf.float32)
    factors = tf.constant(np.random.default_rng(1).normal(size=kernel.shape), "float32")
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        y = tf.reduce_sum(fake_quantize_kernel(kernel, (0, 1, 2)) * factors)
    np.testing.assert_allclose(tape.gradient(y, kernel), factors, rtol=1e-6)


def test_batch_statistics_move_as_in_the_models_own_training():
    statistics = []
    for through_view in (False, True):
        keras.utils.set_random_seed(3)
        model, inputs, view = fresh("residual")
        view.calibrate([inputs])
        before = np.concatenate([w.ravel() for w in model.get_weights()])
        for _ in range(5):
            (view if through_view else model)(inputs, training=True)
        statistics.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    assert np.abs(statistics[0] - before).max() > 0.2
    np.testing.assert_allclose(statistics[1], statistics[0], atol=0.02)


def test_a_frozen_backbone_keeps_its_statistics():
    model, inputs, view = fresh("functional_backbone")
    backbone = model.get_layer("backbone")
    before = backbone.get_weights()
    view(inputs, training=True)
    for value, now in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(value, now)


def test_statistics_of_an_unfrozen_backbone_move_where_keras_moves_them():
    moved = []
    for through_view in (False, True):
        model, inputs, view = fresh("functional_backbone")
        model.get_layer("backbone").trainable = True
        before = model.get_weights()
        (view if through_view else model)(inputs, training=True)
        pairs = zip(before, model.get_weights(), strict=True)
        moved.append([not np.array_equal(value, now) for value, now in pairs])
    assert moved[1] == moved[0]
    assert any(moved[0])


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dropout(0.5),
        layers.SpatialDropout2D(0.5),
        layers.GaussianNoise(1.0),
        layers.RandomFlip(),
        layers.RandomTranslation(0.4, 0.4),
    ],
)
@pytest.mark.parametrize("place", ["input", "middle"])
def test_dropout_noise_and_augmentation_work_in_training_only(layer, place):
    x = y = models.image()
    y = layer(y) if place == "input" else y
    y = layers.Conv2D(4, 3)(y)
    y = layer(y) if place == "middle" else y
    logits = models.scores(layers.Flatten()(y), activation=None)
    images = models.as_inputs(models.pixels(16, (12, 12, 3)), models.UNIT)
    view = QuantizedView(keras.Model(x, logits), input_range=models.UNIT)
    view(images, training=True)
    view.freeze()
    still = view(images)
    np.testing.assert_array_equal(view(images), still)
    assert np.abs(view(images, training=True) - still).max() > 0.01


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_compiled_step_trains_and_moves_the_ranges(jit_compile):
    model, inputs, view = fresh("separable")
    optimizer = keras.optimizers.SGD(0.05)
    labels = np.arange(len(inputs)) % models.CLASSES
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=jit_compile)
    def step(images, labels):
        with tf.GradientTape() as tape:
            scores = view(images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, scores)
            loss = tf.reduce_mean(losses)
        weights = model.trainable_variables
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        optimizer.apply(gradients, weights)
        return loss

    losses = [float(step(inputs, labels)) for _ in range(12)]
    assert losses[-1] < losses[0]
    assert all(high > low for low, high in view.get_ranges().values())
    eager = view(inputs)
    compiled = tf.function(view, jit_compile=jit_compile)(inputs)
    np.testing.assert_allclose(compiled, eager, atol=0.03)


# Ranges


def test_ranges_are_known_after_the_first_training_batch():
    _, inputs, view = fresh("plain")
    view(inputs)
    assert not view.has_ranges
    view(inputs, training=True)
    assert view.has_ranges


def test_ranges_follow_training_batches_and_never_others():
    _, inputs, view = fresh("residual")
    view(inputs[:16], training=True)
    trained = view.get_ranges()
    view(inputs)
    view(5 * inputs, training=False)
    assert view.get_ranges() == trained
    view(inputs[16:], training=True)
    now = view.get_ranges()
    assert all(now[value] != trained[value] for value in trained)


def test_frozen_ranges_stay_and_thawed_ones_move():
    _, inputs, view = fresh("plain")
    view(inputs[:16], training=True)
    frozen = view.get_ranges()
    view.freeze()
    view(inputs[16:], training=True)
    assert view.get_ranges() == frozen
    view.freeze(False)
    view(inputs[16:], training=True)
    assert view.get_ranges() != frozen


def test_ranges_can_be_put_back():
    _, inputs, view = fresh("plain")
    view(inputs, training=True)
    kept, scores = view.get_ranges(), view(inputs)
    view(inputs[:3], training=True)
    assert view.get_ranges() != kept
    view.set_ranges(kept)
    assert view.get_ranges() == kept
    np.testing.assert_array_equal(view(inputs), scores)


def test_calibration_takes_the_extremes_of_all_batches():
    x = models.image()
    hidden = layers.Conv2D(4, 3, activation="relu", name="hidden")(x)
    model = keras.Model(x, models.scores(hidden, activation=None))
    images = models.pixels(24, (12, 12, 3)).astype("float32")
    view = QuantizedView(model, input_range=models.BYTES)
    assert view.calibrate([images[:8], images[8:16], images[16:]]) == 24
    values = keras.Model(x, [hidden, model.output]).predict(images, verbose=0)
    ranges = [view.get_ranges()[step.output] for step in view.graph.weighted_steps]
    for (low, high), real in zip(ranges, values, strict=True):
        assert low == pytest.approx(min(real.min(), 0), rel=1e-4, abs=1e-4)
        assert high == pytest.approx(real.max(), rel=1e-4)


def test_calibration_forgets_what_was_seen_before():
    _, inputs, view = fresh("plain")
    view.calibrate([3 * inputs])
    view.calibrate([inputs])
    again = view.get_ranges()
    view.reset_ranges()
    assert not view.has_ranges
    view.calibrate([inputs])
    assert view.get_ranges() == again


def test_calibration_leaves_batch_statistics_alone():
    model, inputs, view = fresh("residual")
    before = model.get_weights()
    view.calibrate([inputs])
    for value, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, now)


def test_what_a_concatenation_reads_shares_its_range():
    _, _, view = fresh("concat_in_concat")
    steps = {step.kind: step for step in view.graph.steps}
    outer = [step for step in view.graph.steps if step.kind == "concat"][-1]
    joined = [s.output for s in view.graph.steps if s.kind in ("conv", "concat")]
    assert {view.owners[value] for value in joined} == {outer.output}
    assert view.owners[steps["dense"].output] == steps["dense"].output


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("concat_with_image", "max_pool"),
        ("dense_blocks", "conv"),
        ("concat_of_activations", "tanh"),
    ],
)
def test_what_others_read_too_keeps_its_own_range(name, kind):
    _, _, view = fresh(name)
    concat = next(step for step in view.graph.steps if step.kind == "concat")
    producers = {step.output: step for step in view.graph.steps}
    source = producers[concat.inputs[0]] if kind != "max_pool" else None
    source = source or producers[concat.inputs[2]]
    assert source.kind == kind
    assert view.owners[source.output] != view.owners[concat.output]


def test_a_relu6_of_its_own_keeps_a_range_that_ends_at_six():
    x = models.image()
    y = layers.Concatenate()([x, x])
    clipped = layers.ReLU(6.0)(y)
    y = layers.Concatenate()([clipped, layers.Conv2D(2, 1)(x)])
    view = QuantizedView(keras.Model(x, models.scores(y)), input_range=models.BYTES)
    view.calibrate([models.pixels(8, (12, 12, 3)).astype("float32")])
    relu = next(step for step in view.graph.steps if step.kind == "relu")
    assert view.get_ranges()[view.owners[relu.output]] == (0.0, 6.0)


# Input


@pytest.mark.parametrize("input_range", [models.UNIT, models.SIGNED, models.BYTES])
def test_the_input_range_is_taken_from_the_first_batch(input_range):
    model, _ = models.MODELS["grey_signed"]()
    view = QuantizedView(model)
    assert view.pixels.range is None
    view(models.as_inputs(models.pixels(8, (12, 12, 1)), input_range), training=True)
    assert view.pixels.range == input_range


def test_a_model_that_rescales_takes_camera_pixels():
    for name in ("residual", "arithmetic_preprocessing", "sequential_backbone"):
        assert QuantizedView(models.MODELS[name]()[0]).pixels.range == models.BYTES


def test_the_user_decides_about_the_input_range():
    model, _ = models.MODELS["plain"]()
    assert QuantizedView(model, input_range=(-2, 3)).pixels.range == (-2, 3)


def test_pixels_that_a_model_rescales_once_more_are_refused():
    model, _ = models.MODELS["residual"]()
    with pytest.raises(UnsupportedModelError, match=r"become -1 to -0\.99"):
        QuantizedView(model, input_range=(0, 1))


def test_images_of_no_usual_range_are_refused():
    model, _ = models.MODELS["plain"]()
    view = QuantizedView(model)
    images = np.random.default_rng(0).normal(0, 2, (8, 12, 12, 3)).astype("float32")
    view.calibrate([images])
    with pytest.raises(
        ValueError, match=r"\[0, 255\], \[0, 1\] or \[-1, 1\].*input_range"
    ):
        _ = view.pixels.range


# Batches


def test_batches_come_from_arrays_pairs_and_datasets_alike():
    images, labels = np.arange(70.0).reshape(70, 1), np.zeros(70)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
    alone = dataset.map(lambda image, label: image)
    for data in (images, (images, labels), [images, labels], dataset, alone):
        batches = [np.asarray(batch) for batch in batches_of(data, limit=70)]
        np.testing.assert_array_equal(np.concatenate(batches), images)
    for data in (dataset, alone):
        batches = [np.asarray(batch) for batch in batches_of(data, limit=40)]
        np.testing.assert_array_equal(np.concatenate(batches), images[:40])


def test_some_images_of_an_array_are_from_all_over_it():
    labels = np.arange(1000)
    taken = np.concatenate([*batches_of(labels[:, None], batch_size=30, limit=500)])
    assert len(np.unique(taken)) == 500
    # Sorted by class, and with classes that take turns.
    for classes in (taken // 100, taken % 10):
        assert np.bincount(classes.ravel()).min() > 30


def test_few_images_give_one_batch_and_none_give_none():
    assert [len(batch) for batch in batches_of(np.zeros((3, 2)))] == [3]
    assert list(batches_of(np.zeros((0, 2)))) == []


def test_predictions_follow_the_weights_and_the_ranges_of_the_moment():
    model, inputs, view = fresh("functional_backbone")
    view.calibrate([inputs])
    first = view.predict(inputs)
    np.testing.assert_array_equal(first, view.predict(inputs, batch_size=7))
    np.testing.assert_array_equal(first, np.asarray(view(inputs)))
    model.set_weights([1.5 * weight for weight in model.get_weights()])
    assert not np.array_equal(view.predict(inputs), first)
    np.testing.assert_array_equal(view.predict(inputs), np.asarray(view(inputs)))
    with_other_weights = view.predict(inputs)
    view.calibrate([inputs])
    assert not np.array_equal(view.predict(inputs), with_other_weights)
