"""What every public layer promises, and what each one adds."""

import json

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_omv as omv
from keras_omv.averaging import MINIMUM_RANGE
from keras_omv.scales import activation_quantization

LAYERS = {
    omv.FakeQuantize: {"momentum": 0.75},
    omv.PixelQuantize: {"input_range": (-1.0, 1.0), "scale": 0.5, "offset": 0.25},
}
IMAGES = np.random.default_rng(0).uniform(0, 1, (4, 6, 6, 3)).astype("float32")

every_layer = pytest.mark.parametrize("kind", LAYERS)


def values_of(layer):
    return [variable.numpy() for variable in layer.variables]


def model_with(layer):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layer,
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    model.compile("sgd", "mse", jit_compile=False)
    return model


@every_layer
def test_arguments_are_attributes_of_the_same_name(kind):
    layer = kind(**LAYERS[kind])
    assert {name: getattr(layer, name) for name in LAYERS[kind]} == LAYERS[kind]


@every_layer
def test_the_default_construction_computes(kind):
    layer = kind()
    result = layer(IMAGES, training=True)
    assert result.shape == IMAGES.shape
    np.testing.assert_allclose(result, IMAGES, atol=0.5 / 255 + 1e-6)


@every_layer
def test_the_configuration_gives_the_same_layer_back(kind):
    layer = kind(name="mine", **LAYERS[kind])
    config = json.loads(json.dumps(layer.get_config()))
    restored = kind.from_config(config)
    assert json.loads(json.dumps(restored.get_config())) == config
    layer(IMAGES, training=True)
    restored.build(IMAGES.shape)
    restored.set_weights(layer.get_weights())
    np.testing.assert_array_equal(restored(IMAGES), layer(IMAGES))


@every_layer
def test_a_saved_model_predicts_the_same(kind, tmp_path):
    model = model_with(kind(**LAYERS[kind]))
    model.fit(IMAGES, np.zeros((4, 2)), verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert type(restored.layers[0]) is kind
    np.testing.assert_array_equal(
        restored.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0)
    )


@every_layer
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_compiled_training_step_moves_the_state(kind, jit_compile):
    layer = kind()
    layer.build(IMAGES.shape)
    before = values_of(layer)
    step = tf.function(lambda x: layer(x, training=True), jit_compile=jit_compile)
    step(tf.constant(IMAGES))
    assert values_of(layer) != before


@every_layer
def test_evaluation_inside_fit_leaves_the_state_alone(kind):
    layer = kind()
    model = model_with(layer)
    model.fit(IMAGES, np.zeros((4, 2)), verbose=0)
    after_training = values_of(layer)
    model.evaluate(100 * IMAGES - 3, np.zeros((4, 2)), verbose=0)
    assert values_of(layer) == after_training


@every_layer
def test_the_layer_adds_nothing_to_train(kind):
    layer = kind()
    layer.build(IMAGES.shape)
    assert layer.trainable_variables == []


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_fake_quantize_refuses_a_momentum_that_never_settles(momentum):
    with pytest.raises(ValueError, match=r"`momentum`.*\[0, 1\).*Received"):
        omv.FakeQuantize(momentum=momentum)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_pixel_quantize_refuses_a_scale_that_is_not_positive(scale):
    with pytest.raises(ValueError, match=r"`scale`.*positive number.*Received"):
        omv.PixelQuantize(scale=scale)


@pytest.mark.parametrize("input_range", [(1, 1), (255, 0)])
def test_pixel_quantize_refuses_an_empty_range(input_range):
    with pytest.raises(ValueError, match=r"`input_range`.*pixels 0 and 255"):
        omv.PixelQuantize(input_range=input_range)


def test_ranges_are_the_mean_of_the_first_extremes_then_a_moving_average():
    layer = omv.FakeQuantize(momentum=0.75)
    seen = []
    for step, top in enumerate([4.0, 8.0, 6.0, 2.0, 10.0, 1.0]):
        layer(np.array([[-top / 2, top]], "float32"), training=True)
        keep = min(0.75, step / (step + 1))
        seen.append(keep * (seen[-1] if seen else 0.0) + (1 - keep) * top)
        assert layer.range == pytest.approx((-seen[-1] / 2, seen[-1]))
    assert seen[:3] == pytest.approx([4.0, 6.0, 6.0])


def test_a_range_always_holds_zero():
    layer = omv.FakeQuantize()
    layer(np.full((2, 3), 5.0, "float32"), training=True)
    assert layer.range == (0.0, 5.0)
    layer(np.full((2, 3), -5.0, "float32"), training=True)
    assert layer.range == (-2.5, 2.5)


def test_activations_of_zero_keep_a_range_that_int8_can_hold():
    layer = omv.FakeQuantize()
    result = layer(np.zeros((2, 3), "float32"), training=True)
    assert layer.range == pytest.approx((0.0, MINIMUM_RANGE))
    np.testing.assert_array_equal(result, 0)


def test_frozen_ranges_stay_through_training():
    layer = omv.FakeQuantize()
    layer(IMAGES, training=True)
    before = layer.range
    layer.frozen.assign(1.0)
    layer(50 * IMAGES, training=True)
    assert layer.range == before


@hypothesis.given(
    low=st.floats(-100, 0, width=32),
    high=st.floats(0.015625, 100, width=32),
    seed=st.integers(0, 2**31),
)
@hypothesis.settings(max_examples=50, deadline=None)
def test_fake_quantize_rounds_to_the_steps_that_the_file_gets(low, high, seed):
    layer = omv.FakeQuantize()
    layer.build(None)
    layer.minimum.assign(low)
    layer.maximum.assign(high)
    scale, zero_point = activation_quantization(*layer.range)
    real = np.random.default_rng(seed).uniform(low, high, 200).astype("float32")
    steps = layer(np.append(real, 0)).numpy() / scale + zero_point
    np.testing.assert_allclose(steps, np.rint(steps), atol=2e-4)
    assert steps.min() > -128.5
    assert steps.max() < 127.5
    assert steps[-1] == zero_point
    inside = (steps[:-1] > -127.5) & (steps[:-1] < 126.5)
    error = np.abs(real / scale + zero_point - steps[:-1])
    assert error[inside].max(initial=0) <= 0.5 + 1e-4


def test_fake_quantize_passes_the_gradient_inside_the_range_only():
    layer = omv.FakeQuantize()
    layer(np.array([[-1.0, 1.0]], "float32"), training=True)
    x = tf.constant([[-3.0, -0.5, 0.1, 0.7, 3.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    np.testing.assert_array_equal(tape.gradient(y, x), [[0, 1, 1, 1, 0]])


def test_an_average_of_two_steps_moves_away_from_int8_zero():
    layer = omv.FakeQuantize()
    layer(np.array([[-128.0, 127.0]], "float32"), training=True)
    halves = np.array([-100.5, -0.5, 0.5, 1.5, 99.5, 1.4, -1.4], "float32")
    np.testing.assert_array_equal(
        layer.round_average(halves), [-101, -1, 1, 2, 100, 1, -1]
    )


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 255, (0, 255)), (0, 1, (0, 1)), (-1, 1, (-1, 1)), (10, 200, (0, 255))],
)
def test_pixel_quantize_recognizes_the_usual_ranges(low, high, expected):
    layer = omv.PixelQuantize()
    layer(np.linspace(low, high, 12, dtype="float32")[None], training=True)
    assert layer.range == expected


def test_pixel_quantize_knows_no_range_before_the_first_training_batch():
    layer = omv.PixelQuantize()
    layer.build(None)
    assert layer.range is None


def test_pixel_quantize_keeps_the_range_of_the_first_batch():
    layer = omv.PixelQuantize()
    layer(IMAGES, training=True)
    layer(255 * IMAGES, training=True)
    assert layer.range == (0, 1)


def test_values_of_no_usual_range_are_refused():
    layer = omv.PixelQuantize()
    layer(np.array([[-2.1, 0.0, 2.6]], "float32"), training=True)
    with pytest.raises(ValueError, match=r"\[0, 255\], \[0, 1\] or \[-1, 1\].*below"):
        _ = layer.range


@pytest.mark.parametrize("input_range", [(0, 255), (0, 1), (-1, 1), (-2, 3)])
def test_pixel_quantize_gives_256_grey_levels_that_the_file_holds(input_range):
    low, high = input_range
    layer = omv.PixelQuantize(input_range=input_range)
    grey = np.arange(256)
    seen = layer((grey / 255 * (high - low) + low).astype("float32")[None]).numpy()[0]
    scale, zero_point = layer.quantization
    np.testing.assert_allclose(seen / scale + zero_point, grey - 128, atol=1e-4)
