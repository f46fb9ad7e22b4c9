"""A .tflite file of any types becomes a Keras model and ships with its integers."""

import contextlib
import dataclasses
import io
import warnings

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_omv as omv
from keras_omv import flatbuffer, old_models, sandbox, trained, verify
from keras_omv.accuracy import range_of
from keras_omv.frames import as_inputs
from keras_omv.network import Network, Op, Tensor
from keras_omv.old_tflite import to_keras
from keras_omv.report_check import check_folder

SHAPE = (16, 16, 3)
PIXELS = models.pixels(48, SHAPE)
IMAGES = models.as_inputs(PIXELS, models.UNIT)
NAMES = ["a", "b", "c", "d"]
PER_TENSOR = "_experimental_disable_per_channel_quantization_for_dense_layers"
BOARD = omv.get_board("openmv-h7-plus")


def build(*, flat):
    """A classifier with every kind of layer that TensorFlow's converter writes.

    For `Flatten` it writes a SHAPE, a STRIDED_SLICE and a PACK besides.
    """
    image = models.image(size=16)
    x = models.conv(layers.ZeroPadding2D(1)(image), padding="valid", strides=2)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.Add()([x, models.conv(y, 6, 1, activation=None)])
    x = layers.Concatenate()([x, models.conv(x, 4, 1, activation="relu")])
    x = layers.AveragePooling2D(2, padding="same")(layers.MaxPooling2D(2)(x))
    if flat:
        x = layers.Dense(10, activation="relu6")(layers.Flatten()(x))
    model = keras.Model(image, models.scores(x))
    models.randomize(model)
    models.settle(model, IMAGES)
    models.spread(model, IMAGES)
    return model


BOTH_INT8 = {"inference_input_type": tf.int8, "inference_output_type": tf.int8}
BOTH_UINT8 = {"inference_input_type": tf.uint8, "inference_output_type": tf.uint8}


def convert(model, *, images=None, **options):
    """A file as TensorFlow's converter writes it."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if images is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
    for name, value in options.items():
        setattr(converter, name, value)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return converter.convert()


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build(flat=True)


@pytest.fixture(scope="module")
def pooling():
    keras.utils.set_random_seed(0)
    return build(flat=False)


@pytest.fixture(scope="module")
def int8(pooling):
    return convert(pooling, images=IMAGES, **BOTH_INT8, **{PER_TENSOR: True})


def save(data, tmp_path):
    path = tmp_path / "old.tflite"
    path.write_bytes(data)
    return path


def export(path, **options):
    options = {"board": BOARD, "class_names": NAMES, **options}
    return omv.export(path, path.parent / "camera", **options)


def shipped(report):
    return flatbuffer.read((report.directory / "model.tflite").read_bytes())


def answers(network):
    return verify.run_network(network, PIXELS).values


def test_float_file_computes_the_same_as_its_model(model):
    found, ranges = to_keras(flatbuffer.read(convert(model)))
    expected = model.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(found.predict(IMAGES, verbose=0), expected, atol=1e-4)
    assert ranges == {}


@pytest.mark.parametrize("types", [[], [tf.float16]], ids=["int8", "float16"])
def test_file_of_smaller_weights_computes_nearly_the_same(model, types):
    target = tf.lite.TargetSpec(supported_types=types)
    optimizations = [tf.lite.Optimize.DEFAULT]
    data = convert(model, optimizations=optimizations, target_spec=target)
    found, ranges = to_keras(flatbuffer.read(data))
    expected = model.predict(IMAGES, verbose=0).argmax(axis=1)
    assert np.mean(found.predict(IMAGES, verbose=0).argmax(axis=1) == expected) > 0.9
    assert ranges == {}


def test_float_file_is_exported_with_ranges_of_images(model, tmp_path):
    path = save(convert(model), tmp_path)
    with pytest.raises(omv.ExportError, match="Pass representative_data"):
        export(path)
    labels = model.predict(IMAGES, verbose=0).argmax(axis=1)
    report = export(path, representative_data=IMAGES, evaluation_data=(IMAGES, labels))
    assert report.quantization == "calibrated"
    assert report.accuracy.float32 == 1.0
    assert report.accuracy.int8 > 0.85
    assert check_folder(report.directory, evaluation_data=(IMAGES, labels)) == ()


def test_int8_file_ships_its_own_integers_in_fewer_bytes(pooling, int8, tmp_path):
    labels = pooling.predict(IMAGES, verbose=0).argmax(axis=1)
    evaluation = (IMAGES, labels)
    path = save(int8, tmp_path)
    report = export(path, representative_data=IMAGES, evaluation_data=evaluation)
    assert report.cost.flash_bytes < 0.7 * len(int8)
    assert [one.quantization for one in report.candidates] == ["trained"]
    written, given = shipped(report), flatbuffer.read(int8)
    assert [op.kind for op in written.ops] == [op.kind for op in given.ops]
    for one, other in zip(written.tensors, given.tensors, strict=True):
        np.testing.assert_array_equal(one.data, other.data)
    np.testing.assert_array_equal(answers(written), run(int8))
    assert check_folder(report.directory, evaluation_data=evaluation) == ()


def test_file_of_a_model_that_rescales_is_read(tmp_path):
    image = models.image()
    model = keras.Model(image, models.scores(models.conv(models.rescaled(image), 4)))
    pixels = models.pixels(32, (12, 12, 3)).astype("float32")
    data = convert(model, images=pixels, **BOTH_INT8, **{PER_TENSOR: True})
    loaded = old_models.load(save(data, tmp_path))
    assert trained.trained_view(loaded) is not None
    np.testing.assert_allclose(
        loaded.predict(pixels, verbose=0), model.predict(pixels, verbose=0), atol=0.02
    )


def test_a_model_that_was_trained_on_ships_its_new_weights(pooling, int8, tmp_path):
    model = old_models.load(save(int8, tmp_path))
    assert old_models.own_network(model, BOARD) is not None
    kernel = model.trainable_variables[0]
    kernel.assign(kernel * 1.5)
    assert old_models.own_network(model, BOARD) is None


def run(data, dtype="int8"):
    """What TFLM answers to a file as it is."""
    inputs = as_inputs(PIXELS, dtype)[:, None]
    runtime = "tflm" if sandbox.has_tflm() else "litert"
    answer = sandbox.run([sandbox.Job(data, (inputs,))], runtime=runtime)[0]
    assert not answer.failure
    return answer.outputs[0][:, 0]


def test_uint8_file_loses_its_conversions_and_keeps_its_answers(pooling, tmp_path):
    data = convert(pooling, images=IMAGES, **BOTH_UINT8, **{PER_TENSOR: True})
    given = [op.kind for op in flatbuffer.read(data).ops]
    assert given[0] == given[-1] == "QUANTIZE"
    report = export(save(data, tmp_path))
    network = shipped(report)
    assert (network.ops[0].kind, network.ops[-1].kind) == (given[1], given[-2])
    assert network.input.dtype == network.output.dtype == "int8"
    assert report.input_range == (0.0, 1.0)
    expected = run(data, dtype="uint8").astype(int) - 128
    np.testing.assert_allclose(answers(network), expected, atol=4)


def test_per_channel_dense_becomes_one_that_old_firmware_loads(model, tmp_path):
    data = convert(model, images=IMAGES, **BOTH_INT8)
    path = save(data, tmp_path)
    old = omv.get_board("openmv-h7-plus", firmware="4.8.1")
    problems = omv.firmware_problems(flatbuffer.read(data), firmware="4.8.1")
    assert any("per channel" in problem for problem in problems)
    with pytest.raises(omv.UnsupportedModelError, match="keras-omv export"):
        omv.estimate(path, board=old)
    network = shipped(export(path, board=old))
    assert omv.firmware_problems(network, firmware="4.8.1") == ()
    same = answers(network).argmax(axis=1) == run(data).argmax(axis=1)
    assert np.mean(same) > 0.9


def test_input_range_that_is_no_pixels_is_pinned_anew(model, tmp_path, caplog):
    data = convert(model, images=0.1 + 0.7 * IMAGES, **BOTH_INT8)
    path = save(data, tmp_path)
    assert flatbuffer.read(data).input.scales[0] < 0.9 / 255
    report = export(path, representative_data=IMAGES)
    assert "its input range is none" in caplog.text
    assert report.quantization == "calibrated"
    assert report.network_input_range == (0.0, pytest.approx(1.0))


def test_model_of_an_int8_file_knows_its_ranges(int8, tmp_path):
    view = trained.trained_view(old_models.load(save(int8, tmp_path)))
    assert range_of(view) == (0.0, 1.0)
    scores = np.rint(view.predict(IMAGES) * 256 - 128)
    np.testing.assert_allclose(scores, run(int8), atol=1)


def as_uint8(network):
    """The same network in the types of TensorFlow 1's quantization."""
    tensors = (
        dataclasses.replace(
            tensor,
            dtype="uint8",
            zero_points=tensor.zero_points + 128,
            data=None
            if tensor.data is None
            else (tensor.data.astype("int16") + 128).astype("uint8"),
        )
        if tensor.dtype == "int8"
        else tensor
        for tensor in network.tensors
    )
    return dataclasses.replace(network, tensors=tuple(tensors))


def test_uint8_kernels_of_tensorflow_1_become_int8(int8, tmp_path):
    old = as_uint8(flatbuffer.read(int8))
    path = save(flatbuffer.write(old, desktop=True), tmp_path)
    with pytest.raises(omv.UnsupportedModelError, match="uint8"):
        omv.estimate(path, board=BOARD)
    np.testing.assert_array_equal(answers(shipped(export(path))), run(int8))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n: {"ops": (*n.ops, another("HARD_SWISH", n))}, "HARD_SWISH has no"),
        (lambda n: {"outputs": (*n.outputs, n.inputs[0])}, "1 inputs and 2 outputs"),
        (lambda n: {"inputs": n.outputs}, r"shape \(1, 4\) takes no image"),
        (lambda n: {"file_problems": ("it is sparse",)}, "it is sparse"),
    ],
)
def test_what_no_keras_layer_does_is_told(int8, change, reason):
    network = flatbuffer.read(int8)
    network = dataclasses.replace(network, **change(network))
    with pytest.raises(omv.UnsupportedModelError, match=reason):
        to_keras(network)


def another(kind, network):
    return dataclasses.replace(network.ops[-1], kind=kind)


def constant(name, values, dtype="float32"):
    values = np.asarray(values, dtype)
    return Tensor(name, values.shape, dtype, data=values)


def arithmetic(kind, shape, *, number_first=False, activation="NONE", beta=1.0):
    """Arithmetic with a constant, a mean, a softmax; as many channels as rows."""
    numbers = np.random.default_rng(0).uniform(1, 2, shape)
    result = np.broadcast_shapes((1, 3, 3, 3), shape)
    tensors = (
        Tensor("image", (1, 3, 3, 3), "float32"),
        constant("numbers", numbers),
        Tensor("result", result, "float32"),
        constant("axes", [1, 2], "int32"),
        Tensor("mean", (1, 3), "float32"),
        Tensor("scores", (1, 3), "float32"),
    )
    sources = (1, 0) if number_first else (0, 1)
    ops = (
        Op(kind, sources, (2,), {"activation": activation}),
        Op("MEAN", (2, 3), (4,), {"keep_dims": False}),
        Op("SOFTMAX", (4,), (5,), {"beta": beta}),
    )
    return Network(tensors=tensors, ops=ops, inputs=(0,), outputs=(5,)), numbers


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


FUNCTIONS = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide}


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 1, 1, 3)])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_arithmetic_with_a_constant_of_the_channels_is_right(kind, shape):
    images = IMAGES[:, :3, :3]
    for number_first in (False, True)[: 1 + (kind != "DIV")]:
        network, numbers = arithmetic(kind, shape, number_first=number_first)
        pair = (numbers, images) if number_first else (images, numbers)
        expected = softmax(FUNCTIONS[kind](*pair).mean(axis=(1, 2)))
        found = to_keras(network)[0].predict(images, verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize(
    "shape", [(3, 1, 1), (1, 3, 1), (1, 3, 1, 1), (3, 3, 3), (3, 1), (1, 1, 1, 1, 3)]
)
def test_arithmetic_with_a_constant_of_places_is_refused(kind, shape):
    match = rf"{kind} has a constant of shape .* one for each channel"
    with pytest.raises(omv.UnsupportedModelError, match=match):
        to_keras(arithmetic(kind, shape)[0])


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (arithmetic("ADD", (3,), beta=0.5), r"SOFTMAX has beta=0\.5"),
        (arithmetic("MUL", (3,), activation="RELU"), "of a constant has an activation"),
        (arithmetic("DIV", (3,), number_first=True), "above the line"),
    ],
)
def test_what_keras_computes_otherwise_is_refused(network, reason):
    with pytest.raises(omv.UnsupportedModelError, match=reason):
        to_keras(network[0])


def changed(network, index, **changes):
    tensors = list(network.tensors)
    tensors[index] = dataclasses.replace(tensors[index], **changes)
    return dataclasses.replace(network, tensors=tuple(tensors))


def with_first(network, kind, inputs, **options):
    first = Op(kind, inputs, network.ops[0].outputs, options)
    return dataclasses.replace(network, ops=(first, *network.ops[1:]))


def test_odd_operands_are_refused():
    network, _ = arithmetic("DIV", (3,))
    zeros = changed(network, 1, data=np.array([1, 0, 2], "float32"))
    whole = changed(network, 2, shape=(3, 3, 3))
    narrow = changed(network, 1, shape=(5, 3), data=np.ones((5, 3), "float32"))
    for odd, reason in (
        (zeros, "DIV is by zero"),
        (with_first(network, "CONCATENATION", (0, 1), axis=-1), "constant 'numbers'"),
        (with_first(whole, "SQUEEZE", (0,)), "does not keep the batch's axis"),
        (with_first(narrow, "FULLY_CONNECTED", (0, 1)), "weights for 3 inputs"),
    ):
        with pytest.raises(omv.UnsupportedModelError, match=reason):
            to_keras(odd)


def test_missing_file_is_told():
    with pytest.raises(omv.ModelFileError, match="does not exist"):
        old_models.load("nowhere.tflite")
