"""TensorFlow's camera against NumPy's, bit for bit, everywhere TensorFlow runs it."""

import json

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_omv as omv
from keras_omv import camera

SIDES = st.integers(1, 50)
SEEDS = st.integers(0, 2**32 - 1)
CHANNELS = st.sampled_from([1, 3])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def in_dataset(images, view, *, batched=False):
    dataset = tf.data.Dataset.from_tensor_slices(images)
    dataset = dataset.batch(2).map(view).unbatch() if batched else dataset.map(view)
    return np.stack(list(dataset.as_numpy_iterator()))


def compiled(layer, *, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def run(images):
        return layer(images)

    return run


# ------------------------------------------------------------------- bit equality


@hypothesis.given(
    frame=st.tuples(SIDES, SIDES),
    size=st.one_of(SIDES, st.tuples(SIDES, SIDES)),
    given=CHANNELS,
    channels=CHANNELS,
    as_float=st.booleans(),
    seed=SEEDS,
)
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
def test_function_and_layer_give_the_pixels_of_numpy(
    frame, size, given, channels, as_float, seed
):
    images = noise(3, *frame, given, seed=seed)
    expected = camera.see(images, size, channels)
    inputs = images.astype(np.float32) if as_float else images
    view = omv.camera_view(size, channels=channels, dtype="uint8")
    np.testing.assert_array_equal(view(inputs), expected)
    layer = omv.CameraView(size, channels)
    np.testing.assert_array_equal(layer(inputs), expected)
    assert layer.compute_output_shape(inputs.shape) == expected.shape


@pytest.mark.parametrize("batched", [False, True])
@hypothesis.given(
    frame=st.tuples(SIDES, SIDES), size=SIDES, given=CHANNELS, channels=CHANNELS
)
@hypothesis.settings(max_examples=4, deadline=None, derandomize=True)
def test_a_dataset_gives_the_pixels_of_numpy(batched, frame, size, given, channels):
    images = noise(3, *frame, given)
    expected = camera.see(images, size, channels)
    for view in (
        omv.camera_view(size, channels=channels),
        omv.CameraView(size, channels),
    ):
        seen = in_dataset(images, view, batched=batched)
        assert seen.dtype == np.float32
        np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("size", "channels"), [(24, 3), ((9, 17), 1), (40, 3)])
def test_a_compiled_layer_gives_the_pixels_of_numpy(jit_compile, size, channels):
    images = noise(2, 40, 40, 3)
    run = compiled(omv.CameraView(size, channels), jit_compile=jit_compile)
    np.testing.assert_array_equal(run(images), camera.see(images, size, channels))


@pytest.mark.parametrize("resolution", [1, 63, 96, 128, 224])
def test_images_of_unknown_size_are_read_at_the_firmwares_positions(resolution):
    view = tf.function(
        omv.camera_view((1, resolution), channels=1, dtype="uint8"),
        input_signature=[tf.TensorSpec((None, None, 1), tf.uint8)],
    )
    for side in [*range(1, 60), 127, 128, 239, 240, 241, 479, 480, 1000]:
        row = noise(2, side, 1)
        window = camera.cut_window(row, (1, resolution))
        expected = camera.resize_bilinear(window, (1, resolution))
        np.testing.assert_array_equal(view(row), expected)


def test_floats_are_rounded_and_kept_in_range():
    images = np.random.default_rng(0).uniform(-9, 270, (2, 8, 8, 3)).astype("float32")
    whole = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(omv.CameraView(5)(images), camera.see(whole, 5))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "uint8"])
def test_short_types_hold_every_pixel(policy):
    images = noise(2, 30, 30, 3)
    seen = omv.CameraView(12, dtype=policy)(images.astype(np.float32))
    assert seen.dtype == tf.as_dtype(keras.DTypePolicy(policy).compute_dtype)
    np.testing.assert_array_equal(tf.cast(seen, tf.uint8), camera.see(images, 12))


# --------------------------------------------------------------------- in a dataset


def test_labels_and_weights_are_passed_on():
    images, labels, weights = noise(4, 6, 9, 3), np.arange(4), np.linspace(0, 1, 4)
    dataset = tf.data.Dataset.from_tensor_slices((images, labels, weights))
    seen = next(dataset.map(omv.camera_view(4)).batch(4).as_numpy_iterator())
    np.testing.assert_array_equal(seen[0], camera.see(images, 4))
    np.testing.assert_array_equal(seen[1], labels)
    np.testing.assert_array_equal(seen[2], weights)


def test_pictures_of_different_sizes_become_one_batch():
    pictures = [noise(*size, 3) for size in ((7, 9), (20, 5), (4, 4))]
    dataset = tf.data.Dataset.from_generator(
        lambda: pictures, output_signature=tf.TensorSpec((None, None, 3), tf.uint8)
    )
    dataset = dataset.map(omv.camera_view(6, dtype="uint8"))
    assert dataset.element_spec == tf.TensorSpec((6, 6, 3), tf.uint8)
    for picture, seen in zip(pictures, dataset.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(seen, camera.see(picture[np.newaxis], 6)[0])


# ----------------------------------------------------------------------- in a model


def test_the_configuration_gives_the_same_layer_back():
    layer = omv.CameraView((5, 7), channels=1, name="eyes")
    config = json.loads(json.dumps(layer.get_config()))
    restored = omv.CameraView.from_config(config)
    assert json.loads(json.dumps(restored.get_config())) == config
    images = noise(2, 9, 9, 3)
    np.testing.assert_array_equal(restored(images), layer(images))


def small_model(shape):
    return keras.Sequential(
        [
            keras.Input(shape),
            omv.CameraView(8),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(2, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_model_trains_behind_it(jit_compile):
    keras.utils.set_random_seed(0)
    images = noise(16, 20, 20, 3) // 4
    images[8:] += 128
    labels = np.repeat([0, 1], 8)
    model = small_model((20, 20, 3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, jit_compile=jit_compile)
    losses = model.fit(images, labels, epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_a_saved_model_sees_the_same(tmp_path):
    model = small_model((None, None, 3))
    assert model.layers[0].output.shape == (None, 8, 8, 3)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    images = noise(2, 11, 13, 3)
    np.testing.assert_array_equal(restored(images), model(images))


# ------------------------------------------------------------------------- errors


@pytest.mark.parametrize("kind", [omv.camera_view, omv.CameraView])
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"resolution": 0}, "resolution"),
        ({"resolution": 4.5}, "resolution"),
        ({"resolution": 4, "channels": 2}, "channels"),
    ],
)
def test_a_bad_argument_is_named(kind, arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`.*Expected.*Received"):
        kind(**arguments)


def test_another_type_than_the_two_is_refused():
    with pytest.raises(ValueError, match=r"argument `dtype`.*float32 or uint8.*'int8'"):
        omv.camera_view(4, dtype="int8")


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (1, 1, 4, 4, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"1 or 3 channels\. Received: shape"):
        omv.camera_view(2)(np.zeros(shape, np.uint8))


def test_an_image_without_a_known_shape_is_refused_with_the_way_out():
    view = tf.function(
        omv.camera_view(2), input_signature=[tf.TensorSpec(None, tf.uint8)]
    )
    with pytest.raises(ValueError, match=r"shape <unknown>.*tf\.ensure_shape"):
        view.get_concrete_function()


def model_with_a_view(side):
    image = keras.Input((side, side, 3))
    x = omv.CameraView(16)(image)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(2)(x))


def test_a_view_in_a_model_is_left_to_the_camera_when_it_is_exported(tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, 16, 16, 3)).astype("float32")
    report = omv.export(
        model_with_a_view(16),
        tmp_path / "camera",
        board="openmv-h7",
        class_names=["cat", "dog"],
        representative_data=images,
        evaluation_data=(images, np.arange(8) % 2),
    )
    assert report.accuracy.agreement == 1


def test_a_view_that_scales_belongs_into_the_dataset(tmp_path):
    with pytest.raises(omv.UnsupportedModelError, match=r"put it into the dataset"):
        omv.estimate(model_with_a_view(48))
