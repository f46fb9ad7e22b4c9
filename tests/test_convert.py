"""The int8 network: what stands in it, what it answers, how large its file is."""

import dataclasses
import importlib.util
import math

import hypothesis
import hypothesis.strategies as st
import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import interpreter as litert
from keras import layers

from keras_omv import flatbuffer, verify
from keras_omv.architecture import Levers, network_of_levers
from keras_omv.convert import lower
from keras_omv.errors import TrainingDivergedError
from keras_omv.graph import FIXED, PASSING
from keras_omv.mobilenet import MobileNetV2
from keras_omv.scales import activation_quantization, fake_quantize_kernel
from keras_omv.view import QuantizedView

SHALLOW = [name for name in models.MODELS if name != models.DEEP]
FIXED_QUANTIZATION = {
    "SOFTMAX": (1 / 256, -128),
    "LOGISTIC": (1 / 256, -128),
    "TANH": (1 / 128, 0),
}
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# TFLM's kernels for these take and give one quantization.
PASSING_OPS = ("MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD", "RESHAPE", "REDUCE_MAX")

every_model = pytest.mark.parametrize("name", models.MODELS)
every_shallow_model = pytest.mark.parametrize("name", SHALLOW)


def quantization(tensor):
    return float(tensor.scales[0]), int(tensor.zero_points[0])


def weights_of(network, name):
    return next(t for t in network.tensors if t.name == f"{name}/weights")


def small_network(*middle):
    """The network of a convolution, a dense layer and what lies between them."""
    x = models.image()
    y = layers.Conv2D(4, 3, name="first")(x)
    for layer in middle:
        y = layer(y)
    model = keras.Model(x, models.scores(y))
    models.randomize(model)
    return model


def calibrated(model, input_range=models.BYTES):
    view = QuantizedView(model, input_range=input_range)
    images = models.pixels(16, model.input_shape[1:])
    view.calibrate([models.as_inputs(images, input_range)])
    return view


def real_scores(network, images):
    scores = verify.run_network(network, images).values.astype("float64")
    scale, zero_point = quantization(network.output)
    return (scores - zero_point) * scale


def probabilities(view, inputs):
    """What the view answers, with the softmax or sigmoid that the network adds."""
    output = tf.function(view)(inputs).numpy()
    kinds = [s.kind for s in view.graph.steps if s.kind not in ("identity", "reshape")]
    if kinds[-1] in FIXED:
        return output
    return (tf.sigmoid if output.shape[1] == 1 else tf.nn.softmax)(output).numpy()


# What stands in the network


@every_model
def test_every_tensor_is_int8_and_every_bias_int32(name):
    network = models.prepared(name).network
    biases = {op.inputs[2] for op in network.ops if op.kind in WEIGHTED}
    for index, tensor in enumerate(network.tensors):
        plain_number = tensor.name in ("axes", "shape", "paddings")
        expected = "int32" if index in biases or plain_number else "int8"
        assert tensor.dtype == expected, tensor.name
        if tensor.data is not None:
            assert tensor.data.dtype == expected
            assert tensor.data.shape == tensor.shape


@every_model
def test_images_go_in_and_probabilities_come_out_as_int8(name):
    case = models.prepared(name)
    assert case.network.input.shape == (1, *case.model.input_shape[1:])
    assert case.network.output.shape == (1, case.model.output_shape[1])
    assert case.network.input.dtype == case.network.output.dtype == "int8"
    assert quantization(case.network.output) == (1 / 256, -128)


@every_model
def test_dense_layers_are_quantized_per_tensor_and_convolutions_per_channel(name):
    network = models.prepared(name).network
    for op in network.ops:
        if op.kind in WEIGHTED:
            weights, bias = (network.tensors[index] for index in op.inputs[1:])
            dense = op.kind == "FULLY_CONNECTED"
            assert weights.scales.size == (1 if dense else bias.shape[0])
            assert weights.shape[weights.axis] == bias.shape[0]
            assert np.all(weights.zero_points == 0)


@every_model
def test_a_bias_has_the_scale_of_its_products(name):
    network = models.prepared(name).network
    for op in network.ops:
        if op.kind in WEIGHTED:
            source, weights, bias = (network.tensors[index] for index in op.inputs)
            expected = source.scales[0] * weights.scales
            np.testing.assert_array_equal(bias.scales, expected)
            assert np.abs(bias.data).max() < 2**30 + 2**10


@every_model
def test_every_range_of_the_file_is_the_trained_one(name):
    case = models.prepared(name)
    expected, found = {}, {}
    for step in case.view.graph.steps:
        if step.kind not in PASSING | FIXED:
            low, high = case.view.get_ranges()[case.view.owners[step.output]]
            exact = activation_quantization(low, high)
            expected.setdefault(step.name, []).append((float(exact[0]), exact[1]))
    for tensor in case.network.tensors:
        if tensor.name in expected and tensor.data is None:
            found.setdefault(tensor.name, []).append(quantization(tensor))
    assert found == expected
    used = {q for quantizations in found.values() for q in quantizations}
    ranges = [activation_quantization(*r) for r in case.view.get_ranges().values()]
    assert {(float(scale), zero_point) for scale, zero_point in ranges} == used


@every_model
def test_kernels_that_do_not_requantize_have_one_quantization(name):
    network = models.prepared(name).network
    for op in network.ops:
        tensors = [network.tensors[index] for index in (*op.inputs, *op.outputs)]
        activations = [quantization(t) for t in tensors if t.data is None]
        if op.kind in (*PASSING_OPS, "CONCATENATION"):
            assert len(set(activations)) == 1, op.kind
        if op.kind in FIXED_QUANTIZATION:
            assert activations[-1] == FIXED_QUANTIZATION[op.kind]
        assert op.kind != "RELU6"


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("logits", "CONV_2D MEAN FULLY_CONNECTED SOFTMAX"),
        ("single_logit", "CONV_2D MEAN FULLY_CONNECTED LOGISTIC"),
        ("single_sigmoid", "CONV_2D MEAN FULLY_CONNECTED LOGISTIC"),
        ("softmax_layer", "CONV_2D MEAN FULLY_CONNECTED SOFTMAX"),
        ("convolutional_classifier", "CONV_2D MEAN CONV_2D SOFTMAX RESHAPE"),
        (
            "dense_with_batch_norm",
            "CONV_2D MAX_POOL_2D RESHAPE RESHAPE CONV_2D RESHAPE FULLY_CONNECTED "
            "RESHAPE DEPTHWISE_CONV_2D RESHAPE FULLY_CONNECTED SOFTMAX",
        ),
        (
            "concat_with_image",
            "CONV_2D MAX_POOL_2D QUANTIZE QUANTIZE CONCATENATION CONV_2D MEAN "
            "FULLY_CONNECTED SOFTMAX",
        ),
        (
            "relu6_after_concat",
            "CONV_2D CONV_2D CONCATENATION DEPTHWISE_CONV_2D MAX_POOL_2D RELU MEAN "
            "FULLY_CONNECTED SOFTMAX",
        ),
        (
            "padding_unlike_same",
            "PAD CONV_2D PAD MAX_POOL_2D RESHAPE FULLY_CONNECTED SOFTMAX",
        ),
    ],
)
def test_a_model_becomes_these_operations(name, operations):
    ops = models.prepared(name).network.ops
    assert " ".join(op.kind for op in ops) == operations


def test_mobilenet_v2_becomes_65_operations_without_a_requantization():
    ops = [op.kind for op in models.prepared(models.DEEP).network.ops]
    assert len(ops) == 65
    assert "QUANTIZE" not in ops


# The input


@pytest.mark.parametrize(
    ("first", "input_range", "values"),
    [
        ([], models.UNIT, (0, 1)),
        ([], models.SIGNED, (-1, 1)),
        ([], models.BYTES, (0, 255)),
        ([layers.Rescaling(1 / 255)], models.BYTES, (0, 1)),
        ([layers.Rescaling(1 / 127.5, offset=-1)], models.BYTES, (-1, 1)),
        ([layers.Rescaling(2, offset=-1)], models.UNIT, (-1, 1)),
        ([keras.applications.mobilenet_v2.preprocess_input], models.BYTES, (-1, 1)),
        ([lambda x: x / 255 - 0.5], models.BYTES, (-0.5, 0.5)),
        ([layers.Normalization(mean=100.0, variance=2500.0)], models.BYTES, (-2, 3.1)),
        (
            [layers.Rescaling(1 / 255), layers.Normalization(mean=0.5, variance=0.04)],
            models.BYTES,
            (-2.5, 2.5),
        ),
        ([layers.RandomFlip(), layers.Rescaling(1 / 255)], models.BYTES, (0, 1)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_camera_pixel_becomes_itself_less_128(first, input_range, values, channels):
    x = y = models.image(channels)
    for layer in first:
        fresh = isinstance(layer, layers.Layer)
        y = (type(layer).from_config(layer.get_config()) if fresh else layer)(y)
    model = keras.Model(x, models.scores(layers.Conv2D(2, 3)(y)))
    network = lower(calibrated(model, input_range))
    scale, zero_point = quantization(network.input)
    low, high = values
    assert scale == pytest.approx((high - low) / 255, rel=1e-6)
    real = (np.arange(256) - 128 - zero_point) * scale
    preprocessed = np.linspace(low, high, 256)
    assert np.abs(real - preprocessed).max() <= 0.5001 * scale
    if low == 0:
        assert zero_point == -128
    if low == -high:
        assert zero_point == -1


# The weights


@every_shallow_model
def test_the_int8_weights_are_those_of_the_training(name):
    case = models.prepared(name)
    names = [step.name for step in case.view.graph.weighted_steps]
    for step in case.view.graph.weighted_steps:
        if names.count(step.name) > 1:
            continue
        tensor = weights_of(case.network, step.name)
        kernel = np.asarray(step.kernel)
        axes = {"conv": (0, 1, 2), "depthwise": (0, 1), "dense": (0, 1)}[step.kind]
        axes = (0,) if step.kind == "dense" and step.per_channel else axes
        limits = np.abs(kernel).max(axis=axes, keepdims=True)
        expected = np.rint(kernel / (limits / np.float32(127)))
        rounded = fake_quantize_kernel(kernel, axes).numpy() / (limits / 127)
        np.testing.assert_allclose(rounded, expected, atol=1e-3)
        if step.kind == "depthwise":
            expected = expected.reshape(1, *kernel.shape[:2], -1)
        elif step.kind == "conv":
            expected = expected.transpose(3, 0, 1, 2)
        else:
            expected = expected.T.reshape(tensor.shape)
        gamma = getattr(step.batch_norm, "gamma", None)
        if gamma is not None:
            shape = [1] * expected.ndim
            shape[tensor.axis] = -1
            expected = expected * np.sign(np.asarray(gamma)).reshape(shape)
        np.testing.assert_array_equal(tensor.data, expected, err_msg=step.name)


def test_weights_and_biases_carry_the_batch_normalization():
    case = models.prepared("zero_and_negative_gammas")
    conv_step, depthwise_step = list(case.view.graph.weighted_steps)[:2]
    for step, shape in ((conv_step, (3, 3, 3, 6)), (depthwise_step, (3, 3, 12))):
        norm = step.batch_norm
        gamma, beta, mean, variance = (np.asarray(w) for w in norm.weights)
        gain = gamma / np.sqrt(variance + norm.epsilon)
        kernel = np.asarray(step.kernel).reshape(shape) * gain
        shift = beta - mean * gain
        if step.bias is not None:
            shift = shift + np.asarray(step.bias) * gain
        op = next(
            op
            for op in case.network.ops
            if case.network.tensors[op.outputs[0]].name == step.name
        )
        _, weights, bias = (case.network.tensors[index] for index in op.inputs)
        real = np.moveaxis(weights.data.astype("f8"), weights.axis, -1) * weights.scales
        error = np.abs(real.reshape(shape) - kernel)
        assert np.all(error <= 0.5001 * np.abs(weights.scales))
        np.testing.assert_allclose(
            bias.data * bias.scales, shift, atol=bias.scales.max()
        )
        assert gamma[0] == 0
        assert np.all(gain[1:3] < 0)


def test_a_gamma_of_zero_gives_a_constant_channel():
    case = models.prepared("zero_and_negative_gammas")
    weights = weights_of(case.network, next(case.view.graph.weighted_steps).name)
    np.testing.assert_array_equal(weights.data[0], 0)
    assert weights.scales[0] > 0


@pytest.mark.parametrize("name", ["inverted_residual", "separable", "dense_blocks"])
def test_weights_of_zero_are_int8_zeros(name):
    model, input_range = models.MODELS[name]()
    models.randomize(model)
    view = QuantizedView(model, input_range=input_range)
    generator = np.random.default_rng(0)
    for step in view.graph.weighted_steps:
        kernel = np.asarray(step.kernel)
        step.kernel.assign(kernel * (generator.random(kernel.shape) < 0.3))
    view.calibrate([models.as_inputs(models.pixels(8, (12, 12, 3)), input_range)])
    network = lower(view)
    for step in view.graph.weighted_steps:
        zeros = np.sum(np.asarray(step.kernel) == 0)
        data = weights_of(network, step.name).data
        small = np.sum(data == 0) - zeros
        assert 0 <= small < 0.02 * data.size


def test_a_layer_of_zeros_gives_its_bias():
    model = small_network()
    model.get_layer("scores").kernel.assign(np.zeros((4, 4)))
    bias = np.float32([1.0, -2.0, 0.5, 0.0])
    model.get_layer("scores").bias.assign(bias)
    view = calibrated(model)
    images = models.pixels(3, (12, 12, 3))
    expected = np.tile(tf.nn.softmax(bias), (3, 1))
    np.testing.assert_allclose(real_scores(lower(view), images), expected, atol=0.01)


@pytest.mark.parametrize("magnitude", [1e-9, 1e-4, 1e4])
def test_a_bias_far_larger_than_the_weights_does_not_overflow(magnitude):
    model = small_network()
    first = model.get_layer("first")
    first.kernel.assign(first.kernel * 1e-6)
    first.bias.assign(magnitude * np.float32([1, -2, 3, -4]))
    head = model.get_layer("scores")
    head.kernel.assign(head.kernel / magnitude)
    images = models.pixels(8, (12, 12, 3))
    view = calibrated(model)
    expected = model(images.astype("float32"))
    tolerance = 0.03 if magnitude > 1e-3 else 1
    scores = real_scores(lower(view), images)
    np.testing.assert_allclose(scores, expected, atol=tolerance)


def test_a_bias_below_everything_that_a_relu_lets_through_does_not_overflow():
    model = small_network(layers.ReLU())
    model.get_layer("first").bias.assign([-1e9, 1.0, -1.0, 0.0])
    images = models.pixels(8, (12, 12, 3))
    inputs = models.as_inputs(images, models.UNIT)
    scores = real_scores(lower(calibrated(model, models.UNIT)), images)
    np.testing.assert_allclose(scores, model(inputs), atol=0.03)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("weight", ["kernel", "bias", "gamma"])
def test_weights_that_are_no_numbers_are_refused(value, weight):
    model = small_network(layers.BatchNormalization(name="norm"))
    view = calibrated(model)
    layer = model.get_layer("norm" if weight == "gamma" else "first")
    variable = getattr(layer, weight)
    values = np.array(variable)
    values.flat[0] = value
    variable.assign(values)
    with pytest.raises(TrainingDivergedError, match=r"finite.*'first'.*learning rate"):
        lower(view)


def test_a_range_that_is_no_number_is_refused():
    view = calibrated(small_network())
    view.set_ranges({next(iter(view.quantizers)): (float("nan"), 1.0)})
    with pytest.raises(TrainingDivergedError, match="an activation range"):
        lower(view)


# What the network answers


@every_shallow_model
def test_the_camera_answers_as_the_view_does(name):
    case = models.prepared(name)
    view_scores = probabilities(case.view, case.inputs)
    camera_scores = real_scores(case.network, case.pixels)
    assert np.abs(view_scores - camera_scores).mean() < 0.015
    if case.network.output.shape[1] > 1:
        same = np.argmax(view_scores, 1) == np.argmax(camera_scores, 1)
        assert np.mean(same) >= 0.97


def test_spread_out_classes_agree_in_99_of_100_images():
    agreements = []
    for name in ("plain", "residual", "inverted_residual", "separable", "concat"):
        case = models.prepared(name)
        view_classes = np.argmax(probabilities(case.view, case.inputs), axis=1)
        counts = np.bincount(view_classes, minlength=models.CLASSES)
        assert np.sum(counts >= 10) >= 3
        camera = verify.run_network(case.network, case.pixels)
        agreements.append(np.mean(view_classes == camera.classes))
    assert np.mean(agreements) >= 0.99


@every_model
def test_a_desktop_interpreter_runs_the_desktop_file(name):
    case = models.prepared(name)
    file = flatbuffer.write(case.network, desktop=True)
    interpreter = litert.Interpreter(model_content=file)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    target = interpreter.get_output_details()[0]
    assert source["name"] == "image"
    scores = []
    for image in case.pixels[:5]:
        interpreter.set_tensor(source["index"], (image ^ 128).view("int8")[None])
        interpreter.invoke()
        scores.append(interpreter.get_tensor(target["index"])[0])
    reference = verify.run_reference(case.network, case.pixels[:5]).values
    difference = np.abs(np.stack(scores).astype(int) - reference)
    assert name == models.DEEP or difference.mean() < 8


@pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="the tflite-micro wheel exists for Linux on x86-64 only",
)
@pytest.mark.parametrize("name", ["inverted_residual", "dense_with_batch_norm"])
def test_camera_file_and_desktop_file_give_the_same_scores(name, tmp_path):
    from tflite_micro import runtime

    case = models.prepared(name)
    scores = []
    for desktop in (False, True):
        path = tmp_path / f"{desktop}.tflite"
        path.write_bytes(flatbuffer.write(case.network, desktop=desktop))
        interpreter = runtime.Interpreter.from_file(str(path))
        answers = []
        for image in case.pixels[:40]:
            interpreter.set_input((image ^ 128).view("int8")[None], 0)
            interpreter.invoke()
            answers.append(interpreter.get_output(0).copy())
        scores.append(np.concatenate(answers))
    np.testing.assert_array_equal(*scores)


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning")
def test_tensorflows_own_converter_is_no_more_accurate():
    case = models.prepared("inverted_residual")
    truth = np.argmax(case.model(case.inputs), axis=1)
    converter = tf.lite.TFLiteConverter.from_keras_model(case.model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([x[None]] for x in case.inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    theirs = litert.Interpreter(
        model_content=converter.convert(),
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
    )
    theirs.allocate_tensors()
    source, target = theirs.get_input_details()[0], theirs.get_output_details()[0]
    classes = []
    for image in case.inputs:
        theirs.set_tensor(source["index"], image[None])
        theirs.invoke()
        classes.append(np.argmax(theirs.get_tensor(target["index"])[0]))
    their_accuracy = np.mean(classes == truth)
    ours = verify.run_network(case.network, case.pixels)
    our_accuracy = np.mean(ours.classes == truth)
    assert our_accuracy >= 0.95
    assert our_accuracy >= their_accuracy - 0.02


# The file


@every_model
def test_a_network_is_read_back_as_it_was_written(name):
    network = models.prepared(name).network
    again = flatbuffer.read(flatbuffer.write(network, desktop=True))
    assert again.inputs == network.inputs
    assert again.outputs == network.outputs
    assert [op.kind for op in again.ops] == [op.kind for op in network.ops]
    for op, written in zip(again.ops, network.ops, strict=True):
        assert (op.inputs, op.outputs) == (written.inputs, written.outputs)
        assert op.options == written.options
    for tensor, written in zip(again.tensors, network.tensors, strict=True):
        assert (tensor.name, tensor.shape, tensor.dtype, tensor.axis) == (
            written.name,
            written.shape,
            written.dtype,
            written.axis,
        )
        np.testing.assert_array_equal(tensor.scales, written.scales)
        zero_points = np.broadcast_to(written.zero_points, tensor.zero_points.shape)
        np.testing.assert_array_equal(tensor.zero_points, zero_points)
        if written.data is None:
            assert tensor.data is None
        else:
            np.testing.assert_array_equal(tensor.data, written.data)


@every_model
def test_a_file_repeats_byte_for_byte(name):
    case = models.prepared(name)
    file = flatbuffer.write(case.network)
    assert flatbuffer.write(case.network) == file
    assert flatbuffer.write(lower(case.view)) == file
    assert flatbuffer.write(flatbuffer.read(file)) == file


@every_model
def test_the_camera_file_is_the_smaller_one(name):
    network = models.prepared(name).network
    camera, desktop = (len(flatbuffer.write(network, desktop=d)) for d in (False, True))
    assert camera < desktop


def test_weights_are_aligned_as_the_schema_demands():
    network = models.prepared("inverted_residual").network
    file = flatbuffer.write(network)
    for tensor in network.tensors:
        if tensor.data is not None and tensor.data.nbytes >= 64:
            assert file.index(tensor.data.tobytes()) % flatbuffer.DATA_ALIGNMENT == 0


@pytest.fixture(scope="module")
def changeable():
    made = {}
    for name in ("residual", "concat", "separable", "zero_and_negative_gammas"):
        model, input_range = models.MODELS[name]()
        made[name] = model, QuantizedView(model, input_range=input_range)
    return made


@hypothesis.given(
    name=st.sampled_from(
        ["residual", "concat", "separable", "zero_and_negative_gammas"]
    ),
    seed=st.integers(0, 2**31),
    zeros=st.sampled_from([0.0, 0.5, 1.0]),
    magnitude=st.integers(-6, 6),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_the_size_of_a_file_depends_on_the_architecture_alone(
    changeable, name, seed, zeros, magnitude
):
    model, view = changeable[name]
    size = len(flatbuffer.write(models.prepared(name).network))
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        values = generator.normal(size=weight.shape) * 10.0**magnitude
        values[generator.random(weight.shape) < zeros] = 0
        weight.assign(np.abs(values) if "variance" in weight.name else values)
    for value in view.quantizers:
        low, high = generator.uniform(0, 10, 2) * (-1, 1) * 10.0**magnitude
        view.set_ranges({value: (low, high)})
    network = lower(view, compacted=False)  # Zero channels would be left out.
    assert len(flatbuffer.write(network)) == size
    assert all(np.all(np.isfinite(t.scales)) for t in network.tensors)


@pytest.mark.parametrize(
    "levers",
    [
        Levers(alpha=0.35, resolution=32, classes=4),
        Levers(alpha=0.1, resolution=48, classes=2, channels=1, depth=5),
        Levers(alpha=0.5, resolution=33, classes=10, head_channels=320, depth=9),
        Levers(alpha=1.4, resolution=32, classes=3, depth=2),
        Levers(alpha=0.2, resolution=32, classes=3, depth=1, head_channels=24),
    ],
    ids=lambda levers: f"alpha {levers.alpha}, depth {levers.depth}",
)
def test_the_network_of_levers_is_that_of_the_keras_model(levers):
    model = MobileNetV2(
        (levers.resolution, levers.resolution, levers.channels),
        levers.classes,
        alpha=levers.alpha,
        head_channels=levers.head_channels,
        depth=levers.depth,
    )
    real, promised = lower(QuantizedView(model)), network_of_levers(levers)
    for ours, theirs in zip(promised.ops, real.ops, strict=True):
        assert dataclasses.astuple(ours) == dataclasses.astuple(theirs)
    for ours, theirs in zip(promised.tensors, real.tensors, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        assert (ours.scales.size, ours.axis) == (theirs.scales.size, theirs.axis)
    assert len(flatbuffer.write(promised)) == len(flatbuffer.write(real))
    assert (promised.macs, promised.parameters) == (real.macs, real.parameters)


def test_the_network_of_levers_has_the_size_of_keras_applications():
    real = models.prepared(models.DEEP).network
    levers = Levers(alpha=0.35, resolution=32, classes=models.CLASSES)
    promised = network_of_levers(levers)
    # Keras pads its 1x1 convolutions "same", which pads nothing and is written
    # differently.
    paddings = [op.options.get("padding") for op in promised.ops]
    ops = tuple(
        dataclasses.replace(op, options={**op.options, "padding": padding})
        if padding
        else op
        for op, padding in zip(real.ops, paddings, strict=True)
    )
    real = dataclasses.replace(real, ops=ops)
    assert len(flatbuffer.write(promised)) == len(flatbuffer.write(real))
    assert (promised.macs, promised.parameters) == (real.macs, real.parameters)


def test_macs_are_those_counted_by_hand():
    network = models.prepared("plain").network
    first, second = 6 * 6 * 6 * 3 * 3 * 3, 3 * 3 * 6 * models.CLASSES
    assert network.macs == first + second
    weights = 3 * 3 * 3 * 6 + 6 + second + models.CLASSES
    assert network.parameters == weights
    assert math.prod(network.input.shape) == network.input.size_bytes == 432
