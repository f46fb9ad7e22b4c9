"""Which steps a model takes on the camera, and which models are refused."""

import keras
import models
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from models import conv, image, scores

from keras_omv.calls import layer_affine
from keras_omv.errors import UnsupportedModelError
from keras_omv.fusion import build_graph
from keras_omv.view import QuantizedView

STEPS = {
    "plain": "conv max_pool reshape dense softmax",
    "grey_signed": "conv conv mean dense softmax",
    "bytes_without_rescaling": "affine conv mean dense softmax",
    "residual": "conv conv conv add mean dense softmax",
    "inverted_residual": "conv conv depthwise conv add mean dense softmax",
    "separable": "depthwise conv depthwise conv mean dense softmax",
    "dilated_and_multiplied": "conv depthwise conv mean dense softmax",
    "concat": "conv conv conv max_pool concat conv mean dense softmax",
    "concat_with_image": "conv max_pool concat conv mean dense softmax",
    "concat_of_activations": ("conv tanh conv sigmoid concat relu mean dense softmax"),
    "preactivation": "conv affine conv add affine mean dense softmax",
    "dense_blocks": (
        "conv affine conv concat affine conv concat affine conv average_pool mean "
        "dense softmax"
    ),
    "concat_in_concat": "conv conv conv concat concat global_max dense softmax",
    "relu_after_concat": "conv conv concat relu mean dense softmax",
    "relu6_after_concat": ("conv conv concat affine max_pool relu mean dense softmax"),
    "functional_backbone": "conv conv add mean identity dense softmax",
    "sequential_backbone": "conv mean dense softmax",
    "nested_twice": "conv max_pool mean dense softmax",
    "functional_at_the_end": "conv mean dense softmax",
    "cut_from_a_larger_model": "conv mean dense softmax",
    "logits": "conv mean dense",
    "single_sigmoid": "conv mean dense sigmoid",
    "single_logit": "conv mean dense",
    "softmax_layer": "conv mean dense softmax",
    "convolutional_classifier": "conv mean conv softmax reshape",
    "global_pools_that_keep_dimensions": ("conv global_max conv reshape dense softmax"),
    "average_pools": "conv average_pool conv average_pool reshape dense softmax",
    "pool_first": "max_pool average_pool conv mean dense softmax",
    "padding_equal_to_same": "conv depthwise mean dense softmax",
    "padding_unlike_same": "pad conv pad max_pool reshape dense softmax",
    "dense_with_batch_norm": (
        "conv max_pool reshape dense identity dense affine dense softmax"
    ),
    "normalization_per_channel": "affine conv mean dense softmax",
    "normalization_of_all_channels": "conv mean dense softmax",
    "rescaling_per_channel_further_on": "conv affine conv mean dense softmax",
    "arithmetic_preprocessing": "conv mean dense softmax",
    "augmented": "conv identity identity mean dense softmax",
    "activation_before_batch_norm": "conv affine conv mean dense softmax",
    "batch_norm_without_scale_or_center": "conv conv mean dense softmax",
    "shared_layer": "conv conv add mean dense softmax",
    "sum_of_three": "conv conv conv add add mean dense softmax",
    "operators": "conv conv add conv concat mean dense",
    "zero_and_negative_gammas": "conv depthwise mean dense softmax",
}


class Custom(layers.Layer):
    def call(self, x):
        return x


class Unserializable(layers.Layer):
    def __init__(self, thing, **options):
        super().__init__(**options)
        self.thing = thing

    def call(self, x):
        return x


class OwnConvolution(layers.Conv2D):
    pass


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.Dense(3)

    def call(self, x):
        return self.head(layers.Flatten()(x))


class OwnConstructor(keras.Model):
    def __init__(self, **options):
        x = image()
        super().__init__(x, scores(x), **options)


class OwnCall(keras.Model):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


class OwnTrainStep(keras.Model):
    def train_step(self, data):
        return {}


def relu(x):
    """A function of the user's that is called like another."""
    return -x


def classifier(*middle, shape=(12, 12, 3), first=()):
    """A model with some layers or functions between two usual ones."""
    x = y = keras.Input(shape)
    for layer in first:
        y = layer(y)
    y = layers.Conv2D(4, 3, name="first_conv")(y)
    for layer in middle:
        y = layer(y)
    return keras.Model(x, scores(y))


def kinds(model):
    return " ".join(step.kind for step in build_graph(model).steps)


def refused(model, match):
    with pytest.raises(UnsupportedModelError, match=match):
        build_graph(model)


@pytest.mark.parametrize("name", STEPS)
def test_a_model_becomes_these_steps(name):
    assert kinds(models.MODELS[name]()[0]) == STEPS[name]


def test_every_small_model_has_its_steps_written_down():
    assert set(models.MODELS) - {models.DEEP} == set(STEPS)


def test_mobilenet_v2_is_35_convolutions_17_depthwise_and_10_sums():
    steps = build_graph(models.MODELS[models.DEEP]()[0]).steps
    found = [step.kind for step in steps]
    counts = {kind: found.count(kind) for kind in set(found)}
    weighted = {"conv": 35, "depthwise": 17, "dense": 1}
    assert counts == {**weighted, "add": 10, "mean": 1, "softmax": 1}
    convolutions = [s for s in steps if s.kind in ("conv", "depthwise")]
    assert all(step.batch_norm is not None for step in convolutions)


@pytest.mark.parametrize(
    ("name", "activations"),
    [
        ("residual", ["relu6", "relu6", "linear", "relu"]),
        ("preactivation", ["linear", "relu", "linear", "linear", "relu"]),
        ("operators", ["linear", "linear", "relu6", "relu", "linear"]),
        ("activation_before_batch_norm", ["relu", "linear", "linear"]),
    ],
)
def test_relus_join_what_they_follow(name, activations):
    steps = build_graph(models.MODELS[name]()[0]).steps
    assert [step.activation for step in steps][: len(activations)] == activations


def test_an_activation_that_others_read_before_it_does_not_join():
    x = image()
    y = layers.Conv2D(4, 3, name="read_twice")(x)
    z = layers.Add()([y, layers.ReLU()(y)])
    steps = build_graph(keras.Model(x, scores(z))).steps
    assert [(s.kind, s.activation) for s in steps][:3] == [
        ("conv", "linear"),
        ("relu", "relu"),
        ("add", "linear"),
    ]


def test_a_batch_norm_joins_only_what_no_other_layer_reads():
    x = image()
    y = layers.Conv2D(4, 3)(x)
    z = layers.Add()([y, layers.BatchNormalization()(y)])
    assert kinds(keras.Model(x, scores(z))).startswith("conv affine add")


@pytest.mark.parametrize(
    ("size", "strides", "kernel", "dilation", "pads", "joined"),
    [
        (12, 2, 3, 1, ((0, 1), (0, 1)), True),
        (12, 2, 3, 1, ((1, 0), (1, 0)), False),
        (12, 2, 3, 1, ((1, 1), (1, 1)), False),
        (11, 2, 3, 1, ((1, 1), (1, 1)), True),
        (12, 1, 3, 1, ((1, 1), (1, 1)), True),
        (12, 1, 5, 1, ((2, 2), (2, 2)), True),
        (12, 1, 5, 1, ((1, 1), (1, 1)), False),
        (12, 1, 3, 2, ((2, 2), (2, 2)), True),
        (12, 1, (1, 3), 1, ((0, 0), (1, 1)), True),
        (12, 1, (1, 3), 1, ((1, 1), (1, 1)), False),
    ],
)
def test_padding_joins_a_convolution_where_it_equals_same(
    size, strides, kernel, dilation, pads, joined
):
    x = image(size=size)
    y = layers.ZeroPadding2D(pads)(x)
    y = layers.Conv2D(4, kernel, strides=strides, dilation_rate=dilation)(y)
    model = keras.Model(x, scores(y))
    first = build_graph(model).steps[0]
    assert (first.kind, first.padding) == (
        ("conv", "same") if joined else ("pad", "valid")
    )
    images = models.as_inputs(models.pixels(4, (size, size, 3)), models.UNIT)
    view = QuantizedView(model, input_range=models.UNIT)
    view.calibrate([images])
    np.testing.assert_allclose(view(images), model(images), atol=0.02)


def test_padding_that_two_layers_read_stays():
    x = image()
    y = layers.ZeroPadding2D(1)(x)
    z = layers.Add()([layers.Conv2D(4, 3)(y), layers.Conv2D(4, 3)(y)])
    assert kinds(keras.Model(x, scores(z))).startswith("pad conv conv add")


@pytest.mark.parametrize(
    ("preprocessing", "scale", "offset"),
    [
        ([layers.Rescaling(1 / 255)], 1 / 255, 0),
        ([layers.Rescaling(1 / 127.5, offset=-1)], 1 / 127.5, -1),
        ([lambda x: x / 127.5, lambda x: x - 1], 1 / 127.5, -1),
        ([lambda x: 2 * (x - 127.5)], 2, -255),
        ([lambda x: keras.ops.multiply(x, 0.5), lambda x: 1 + x], 0.5, 1),
        ([keras.applications.mobilenet_v2.preprocess_input], 1 / 127.5, -1),
        ([layers.Normalization(mean=0.5, variance=0.25)], 2, -1),
        ([layers.Normalization(mean=1, variance=4, invert=True)], 2, 1),
        (
            [layers.RandomFlip(), layers.Rescaling(2), layers.RandomZoom(0.1)],
            2,
            0,
        ),
        ([layers.Rescaling(2), layers.Rescaling(3, offset=1)], 6, 1),
    ],
)
def test_rescaling_and_augmentation_at_the_input_become_its_scale(
    preprocessing, scale, offset
):
    graph = build_graph(classifier(first=preprocessing))
    assert graph.steps[0].kind == "conv"
    assert graph.input_scale == pytest.approx(scale, rel=1e-6)
    assert graph.input_offset == pytest.approx(offset, rel=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Rescaling([1.0, 2.0, 3.0], offset=[0.5, 0.0, -0.5]),
        layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]),
        layers.Normalization(
            mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0], invert=True
        ),
    ],
)
def test_scale_and_offset_of_a_layer_are_what_it_computes(layer):
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    layer(x)
    models.randomize(keras.Sequential([layer]))
    scale, offset = layer_affine(layer)
    np.testing.assert_allclose(layer(x), x * scale + offset, atol=1e-5)


def test_names_of_nested_layers_say_where_they_lie():
    model, _ = models.MODELS["functional_backbone"]()
    names = [step.name for step in build_graph(model).weighted_steps]
    assert names[0].startswith("backbone/conv2d")
    assert names[-1] == "scores"


def test_a_shared_layer_is_one_kernel_in_two_steps():
    steps = list(build_graph(models.MODELS["shared_layer"]()[0]).weighted_steps)
    assert steps[0].kernel is steps[1].kernel


def test_a_model_with_a_train_step_of_its_own_is_listed():
    x = image()
    assert kinds(OwnTrainStep(x, scores(conv(x)))) == "conv mean dense softmax"


def test_a_model_loaded_from_a_file_has_the_same_steps(tmp_path):
    model, _ = models.MODELS["sum_of_three"]()
    model.save(tmp_path / "model.keras")
    assert kinds(keras.models.load_model(tmp_path / "model.keras")) == kinds(model)


def test_activations_of_tensorflow_are_the_keras_ones():
    model = classifier(layers.Conv2D(3, 3, activation=tf.nn.relu6))
    assert build_graph(model).steps[1].activation == "relu6"


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (layers.Lambda(lambda x: 2 * x, name="bad"), "Lambda"),
        (layers.LeakyReLU(name="bad"), "LeakyReLU"),
        (layers.Conv2DTranspose(3, 3, name="bad"), "Conv2DTranspose"),
        (layers.UpSampling2D(name="bad"), "UpSampling2D"),
        (Custom(name="bad"), "custom Custom"),
        (OwnConvolution(3, 3, name="bad"), "custom OwnConvolution"),
        (lambda x: layers.Multiply(name="bad")([x, x]), "Multiply"),
        (lambda x: keras.ops.reshape(x, (-1, 400)), "keras.ops Reshape"),
        (lambda x: x * np.ones(4, "float32"), "keras.ops Multiply"),
    ],
)
def test_a_layer_that_cannot_run_on_the_camera_is_named(layer, named):
    name = getattr(layer, "name", ".*")
    refused(classifier(layer), rf"Received: '{name}' \({named}\)\. Replace or remove")


def test_lstm_is_named():
    model = keras.Sequential(
        [image(), layers.Reshape((12, 36)), layers.LSTM(4, name="memory")]
    )
    refused(model, r"Received: 'memory' \(LSTM\)")


def test_all_unsupported_layers_stand_in_one_error():
    model = classifier(
        layers.LeakyReLU(name="one"),
        Custom(name="two"),
        layers.UpSampling2D(name="three"),
    )
    refused(
        model,
        r"'one' \(LeakyReLU\), 'two' \(custom Custom\), 'three' \(UpSampling2D\)",
    )


def test_supported_layers_are_listed_in_the_error():
    refused(classifier(layers.LeakyReLU()), "Conv2D,.*ReLU,.*ZeroPadding2D, Random")


@pytest.mark.filterwarnings("error")
def test_a_custom_layer_without_a_configuration_is_named():
    model = classifier(Unserializable(object(), name="bad"))
    refused(model, r"Keras' own layers.*'bad' \(Unserializable\)")


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (layers.Conv2D(4, 3, groups=2, name="bad"), "groups=1.*'bad'.*groups=2"),
        (
            layers.MaxPooling2D(2, data_format="channels_first", name="bad"),
            "channels_last.*'bad'",
        ),
        (layers.Conv2D(4, 3, activation="gelu", name="bad"), "'gelu' in 'bad'"),
        (layers.Activation("swish", name="bad"), "'silu' in 'bad'"),
        (layers.Conv2D(4, 3, activation=lambda x: x, name="bad"), "<lambda>.*'bad'"),
        (layers.Conv2D(4, 3, activation=relu, name="bad"), "'relu' in 'bad'"),
        (layers.ReLU(1.0, name="bad"), "max_value=6.*'bad' with max_value=1.0"),
        (layers.ReLU(negative_slope=0.1, name="bad"), "'bad'.*negative_slope=0.1"),
        (layers.Softmax(axis=1, name="bad"), r"axis=-1.*'bad'.*axis=1"),
        (layers.BatchNormalization(axis=1, name="bad"), "axis=-1.*'bad'.*axis=1"),
        (layers.Concatenate(axis=1, name="bad"), "axis=-1.*'bad'.*axis=1"),
        (layers.Dense(3, name="bad"), "flat features.*'bad'"),
        (layers.Dense(3, dtype="mixed_float16", name="bad"), "'bad'.*mixed_float16"),
        (layers.Conv2D(3, 3, dtype="float64", name="bad"), "'bad'.*float64"),
        (lambda x: x * 2.0, "directly at the model's input.*Multiply"),
        (lambda x: x - 1, "directly at the model's input.*Subtract"),
        (
            lambda x: x + layers.GlobalAveragePooling2D(keepdims=True)(x),
            r"one shape.*\(10, 10, 4\), \(1, 1, 4\)",
        ),
    ],
)
def test_what_a_layer_cannot_do_is_said_with_its_name(layer, match):
    if isinstance(layer, layers.Concatenate):
        refused(classifier(lambda x: layer([x, x])), match)
    else:
        refused(classifier(layer), match)


def test_lora_is_refused():
    model = classifier()
    model.get_layer("scores").enable_lora(2)
    refused(model, "plain kernels.*'scores' with LoRA")


def test_keras_own_quantization_is_refused():
    model = classifier()
    model.get_layer("scores").quantize("int8")
    refused(model, "'scores'.*int8_from_float32")


@pytest.mark.parametrize(
    ("preprocessing", "match"),
    [
        (lambda x: 255 - x, r"bright pixels bright.*-1\.0"),
        (layers.Rescaling(-1 / 255, offset=1), "bright pixels bright"),
        (layers.Resizing(10, 10, name="bad"), r"'bad' \(Resizing\)"),
        (keras.applications.resnet50.preprocess_input, r"'get_item\w*'"),
    ],
)
def test_preprocessing_that_the_camera_does_not_do_is_refused(preprocessing, match):
    refused(classifier(first=[preprocessing]), match)


@pytest.mark.parametrize("offset", [1.0, -2.0])
def test_preprocessing_without_a_zero_for_padding_is_refused(offset):
    model = classifier(first=[layers.Rescaling(1 / 255, offset=offset)])
    with pytest.raises(UnsupportedModelError, match=r"level 0.*Received: pixels"):
        QuantizedView(model)


@pytest.mark.parametrize("shape", [(None, None, 3), (12, None, 3), (12, 12, 2)])
def test_an_input_that_is_no_image_of_fixed_size_is_refused(shape):
    refused(classifier(shape=shape), "fixed height and width and 1 .grey. or 3 .RGB.")


def test_a_flat_input_is_refused():
    model = keras.Sequential([keras.Input((10,)), layers.Dense(3)])
    refused(model, r"\(batch, height, width, channels\).*\(batch, 10\)")


def test_an_output_that_is_no_list_of_scores_is_refused():
    x = image()
    refused(keras.Model(x, conv(x)), r"\(batch, classes\).*\(None, 12, 12, 6\)")


def test_two_inputs_are_refused():
    first, second = image(), keras.Input((12, 12, 3))
    both = layers.Add()([first, second])
    refused(keras.Model([first, second], scores(both)), "2 inputs and 1 outputs")


def test_two_outputs_are_refused():
    x = image()
    y = layers.Flatten()(x)
    model = keras.Model(x, [layers.Dense(2)(y), layers.Dense(3)(y)])
    refused(model, "1 inputs and 2 outputs")


def test_a_nested_model_with_two_outputs_is_refused():
    inner = image()
    pair = keras.Model(inner, [layers.ReLU()(inner), layers.Softmax()(inner)])
    x = image()
    refused(
        keras.Model(x, scores(layers.Add()(pair(x)))),
        "nested models to have one input and one output.*with 2",
    )


def test_a_model_without_weights_is_refused():
    model = keras.Sequential([image(), layers.Flatten(), layers.Softmax()])
    refused(model, "a convolution or a dense layer")


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (Subclassed, "Functional or Sequential.*subclassed model Subclassed"),
        (OwnConstructor, r"keras.Model\(inputs, outputs\).*OwnConstructor"),
        (lambda: keras.Sequential([image(), OwnConstructor()]), "OwnConstructor"),
        (lambda: keras.Sequential([image(), Subclassed()]), "custom Subclassed"),
        (lambda: keras.Sequential([layers.Dense(3)]), "a built model.*keras.Input"),
        (lambda: "model.keras", "a Keras 3 model. Received: builtins.str"),
    ],
)
def test_a_model_whose_layers_cannot_be_listed_is_refused(model, match):
    refused(model(), match)


def test_a_model_that_changes_its_call_is_refused():
    x = image()
    refused(OwnCall(x, scores(x)), "the subclassed model OwnCall")
