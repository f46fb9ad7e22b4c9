"""Batch normalization in training: Keras' numbers from fused kernels."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_omv.normalization import BatchStatistics, can_normalize

IMAGES = np.random.default_rng(0).normal(1.5, 2.0, (6, 5, 4, 3)).astype("float32")


def built(x=IMAGES, **options):
    layer = layers.BatchNormalization(**options)
    layer.build((None, *x.shape[1:]))
    generator = np.random.default_rng(1)
    layer.set_weights([generator.uniform(0.5, 2, w.shape) for w in layer.weights])
    return layer


def run(normalize, layer, x):
    """Output, gradients of the input and the weights, weights after a step."""
    x = tf.constant(x)
    upstream = np.random.default_rng(2).normal(size=x.shape)
    weights = [weight.value for weight in layer.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = normalize(layer, x)
        loss = tf.reduce_sum(y * tf.constant(upstream, tf.float32))
    gradients = tape.gradient(loss, [x, *weights])
    return [y, *gradients, *layer.get_weights()]


def ours(layer, x, statistics=None):
    statistics = statistics or BatchStatistics(0.99)
    return statistics.begin_step().normalize(layer, tf.convert_to_tensor(x))


def keras_own(layer, x):
    return layer(x, training=True)


def assert_same(found, expected):
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, other, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.3},
        {"epsilon": 1e-7},
        {"center": False},
        {"scale": False},
        {"center": False, "scale": False},
        {"trainable": False},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "x", [IMAGES, IMAGES[:, 0, 0], IMAGES[:1, :1, :1]], ids=["4d", "2d", "one pixel"]
)
def test_a_step_gives_what_the_layer_gives(x, options):
    expected = run(keras_own, built(x, **options), x)
    layer = built(x, **options)
    assert can_normalize(layer, tf.constant(x))
    assert_same(run(ours, layer, x), expected)


def test_frozen_statistics_normalize_as_inference_does_and_stay():
    layer, statistics = built(), BatchStatistics(0.99)
    statistics.freeze(True)
    expected = run(lambda layer, x: layer(x, training=False), built(), IMAGES)
    assert_same(run(lambda *a: ours(*a, statistics), layer, IMAGES), expected)
    statistics.freeze(False)
    ours(layer, IMAGES, statistics)
    moved = built()
    moved(IMAGES, training=True)
    assert_same(layer.get_weights(), moved.get_weights())


def test_an_estimate_is_the_mean_over_batches_whatever_the_layers_momentum():
    layer, statistics = built(momentum=0.999), BatchStatistics(0.99)
    statistics.estimate()
    for count, batch in enumerate([IMAGES, 2 * IMAGES, IMAGES - 3], start=1):
        ours(layer, batch, statistics)
        batches = [IMAGES, 2 * IMAGES, IMAGES - 3][:count]
        means = np.mean([b.mean(axis=(0, 1, 2)) for b in batches], axis=0)
        variances = np.mean([b.var(axis=(0, 1, 2)) for b in batches], axis=0)
        np.testing.assert_allclose(layer.moving_mean, means, rtol=1e-4)
        np.testing.assert_allclose(layer.moving_variance, variances, rtol=1e-4)


def test_an_estimate_follows_at_last_with_its_momentum():
    layer, statistics = built(), BatchStatistics(0.5)
    statistics.estimate()
    tops = [4.0, 8.0, 1.0]
    for top in tops:
        ours(layer, np.full_like(IMAGES, top), statistics)
    expected = 0.5 * (0.5 * 4 + 0.5 * 8) + 0.5 * 1
    np.testing.assert_allclose(layer.moving_mean, [expected] * 3, rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_compiled_step_freezes_without_a_retrace(jit_compile):
    layer, statistics, traces = built(), BatchStatistics(0.99), []

    @tf.function(jit_compile=jit_compile)
    def step(x):
        traces.append(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(ours(layer, x, statistics) ** 2)
        return tape.gradient(loss, x)

    step(tf.constant(IMAGES))
    before = layer.get_weights()
    statistics.freeze(True)
    found = step(tf.constant(IMAGES))
    assert len(traces) == 1
    assert_same(layer.get_weights(), before)
    gamma, beta, mean, variance = before
    gain = gamma / np.sqrt(variance + layer.epsilon)
    expected = 2 * ((IMAGES - mean) * gain + beta) * gain
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@keras.saving.register_keras_serializable(package="tests")
class Louder(layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training)


def renorm_layers():
    """One with `renorm`, which Keras has since 3.14."""
    options = inspect.signature(layers.BatchNormalization.__init__).parameters
    return [layers.BatchNormalization(renorm=True)] if "renorm" in options else []


@pytest.mark.parametrize(
    "layer",
    [
        Louder(),
        *renorm_layers(),
        layers.BatchNormalization(synchronized=True),
        layers.BatchNormalization(axis=1),
        layers.BatchNormalization(activity_regularizer="l2"),
        layers.BatchNormalization(dtype="mixed_float16"),
        layers.ReLU(),
    ],
    ids=lambda layer: layer.name,
)
def test_what_is_not_plain_batch_normalization_is_left_to_keras(layer):
    layer.build(IMAGES.shape)
    assert not can_normalize(layer, tf.constant(IMAGES))
