"""Small Keras models, one for each thing that a classifier can be made of.

A builder returns `(model, input_range)`: the model and the values that camera
pixels 0 and 255 have where they enter it. `MODELS` names them all.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_omv.convert import lower
from keras_omv.network import Network
from keras_omv.view import QuantizedView

SIZE = 12
CLASSES = 4
BYTES, UNIT, SIGNED = (0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)
# Too deep to compare answers without training: rounding grows from layer to layer.
DEEP = "mobilenet_v2"
MODELS: dict[str, Callable[[], tuple[Any, tuple[float, float]]]] = {}


def _named(builder):
    MODELS[builder.__name__] = builder
    return builder


def image(channels=3, size=SIZE):
    return keras.Input((size, size, channels), name="image")


def conv(x, filters=6, size=3, *, activation="relu6", **options):
    """Convolution, batch normalization, activation: the usual three."""
    options = {"padding": "same", "use_bias": False, **options}
    x = layers.Conv2D(filters, size, **options)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.Activation(activation)(x) if activation else x


def scores(x, classes=CLASSES, activation="softmax"):
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(classes, activation=activation, name="scores")(x)


def rescaled(x):
    return layers.Rescaling(1 / 127.5, offset=-1.0)(x)


def pixels(count, shape, seed=0):
    """Smooth random camera images, `(count, *shape)` uint8, no two alike."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(-60, 315, (count, 4, 4, shape[-1]))
    rows = np.arange(shape[0]) * 4 // shape[0]
    columns = np.arange(shape[1]) * 4 // shape[1]
    fine = generator.normal(0, 12, (count, *shape))
    images = coarse[:, rows][:, :, columns] + fine
    return np.clip(np.rint(images), 0, 255).astype("uint8")


class Spy(keras.callbacks.Callback):
    """Notes at the end of each epoch what `look(model)` gives."""

    def __init__(self, look):
        super().__init__()
        self.look = look
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.look(self.model))


class Restore(keras.callbacks.Callback):
    """Puts the weights of an epoch back at the end, as EarlyStopping does."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.weights = self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)


def bright_halves(count, size):
    """Grey images `(count, size, size, 1)`, bright on the left, 0, or the right, 1."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, count)
    images = random.integers(0, 120, (count, size, size, 1)).astype("float32")
    half = size // 2
    for image, label in zip(images, labels, strict=True):
        image[:, half * label : half * label + half] += 100
    return images, labels


def as_inputs(images, input_range):
    """Camera images as they enter a model, float32."""
    low, high = input_range
    return (images * ((high - low) / 255) + low).astype("float32")


def randomize(model, seed=0):
    """Gives biases and batch normalizations values as training leaves them."""
    generator = np.random.default_rng(seed)
    draws = {
        "bias": lambda shape: generator.normal(0, 0.2, shape),
        "beta": lambda shape: generator.normal(0, 0.3, shape),
        "gamma": lambda shape: generator.uniform(0.6, 1.6, shape),
        "moving_mean": lambda shape: generator.normal(0, 0.3, shape),
        "moving_variance": lambda shape: generator.uniform(0.4, 1.6, shape),
    }
    for weight in model.weights:
        if weight.name in draws:
            values = draws[weight.name](weight.shape)
            if weight.name == "gamma" and "signed" in weight.path:
                values[:3] = [0.0, -0.7, -1.2]
            weight.assign(values)


def every_layer(model):
    """The layers of a model and of those nested in it."""
    for layer in model.layers:
        yield from every_layer(layer) if hasattr(layer, "layers") else [layer]


def settle(model, inputs):
    """Lets batch normalizations that train know the statistics of the images."""
    norms = [
        layer
        for layer in every_layer(model)
        if isinstance(layer, layers.BatchNormalization)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(inputs, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def spread(model, inputs):
    """Centres and widens the logits so that images have different classes."""
    head = model.layers[-1]
    if not isinstance(head, layers.Dense):
        return
    source = head.input
    features = keras.Model(model.inputs, source).predict(inputs, verbose=0)
    logits = features @ head.kernel.numpy()
    logits -= logits.mean(axis=0)
    gain = 3.0 / logits.std()
    head.kernel.assign(head.kernel * gain)
    middle = (features @ head.kernel.numpy()).mean(axis=0)
    if head.use_bias:
        head.bias.assign(-middle)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A model with its calibrated view and network. Tests only read it."""

    model: Any
    input_range: tuple[float, float]
    pixels: np.ndarray
    inputs: np.ndarray
    view: QuantizedView
    network: Network


@functools.cache
def prepared(name: str) -> Prepared:
    """Makes the model of a name, once for all tests."""
    keras.utils.set_random_seed(1)
    model, input_range = MODELS[name]()
    images = pixels(20 if name == DEEP else 200, model.input_shape[1:])
    inputs = as_inputs(images, input_range)
    randomize(model)
    settle(model, inputs)
    spread(model, inputs)
    view = QuantizedView(model, input_range=input_range)
    view.calibrate([inputs])
    return Prepared(model, input_range, images, inputs, view, lower(view))


@_named
def plain():
    x = image()
    y = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    y = layers.MaxPooling2D()(y)
    return keras.Model(x, scores(layers.Flatten()(y))), UNIT


@_named
def grey_signed():
    x = image(1)
    y = conv(conv(x, 4, strides=2), 6)
    return keras.Model(x, scores(y)), SIGNED


@_named
def bytes_without_rescaling():
    x = image()
    y = layers.BatchNormalization()(x)
    return keras.Model(x, scores(conv(y))), BYTES


@_named
def residual():
    x = image()
    y = conv(rescaled(x), 6, strides=2)
    z = conv(conv(y, 6), 6, activation=None)
    y = layers.ReLU()(layers.Add()([y, z]))
    return keras.Model(x, scores(y)), BYTES


@_named
def inverted_residual():
    x = image()
    y = conv(rescaled(x), 4, activation=None)
    z = conv(y, 12, 1)
    z = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(z)
    z = layers.ReLU(6.0)(layers.BatchNormalization()(z))
    z = conv(z, 4, 1, activation=None)
    return keras.Model(x, scores(layers.Add()([y, z]))), BYTES


@_named
def separable():
    x = image()
    y = layers.SeparableConv2D(6, 3, strides=2, activation="relu")(x)
    y = layers.SeparableConv2D(
        6, 3, padding="same", depth_multiplier=2, use_bias=False
    )(y)
    y = layers.Activation("relu6")(layers.BatchNormalization()(y))
    return keras.Model(x, scores(y)), UNIT


@_named
def dilated_and_multiplied():
    x = image()
    y = layers.Conv2D(4, 3, dilation_rate=2, activation="relu")(x)
    y = layers.DepthwiseConv2D(3, depth_multiplier=2, dilation_rate=(2, 2))(y)
    y = layers.BatchNormalization()(y)
    y = layers.Conv2D(6, (1, 3), strides=(1, 1), activation="relu6")(y)
    return keras.Model(x, scores(y)), UNIT


@_named
def concat():
    x = image()
    y = layers.Rescaling(1 / 255)(x)
    a, b = conv(y, 4), conv(y, 4, 1)
    c = layers.MaxPooling2D(3, strides=1, padding="same")(conv(y, 3))
    y = layers.Concatenate()([a, b, c])
    return keras.Model(x, scores(conv(y, 6, 1))), BYTES


@_named
def concat_with_image():
    x = image()
    y = layers.Concatenate()([x, conv(x, 3), layers.MaxPooling2D(1)(x)])
    return keras.Model(x, scores(conv(y))), SIGNED


@_named
def concat_of_activations():
    x = image()
    y = layers.Conv2D(4, 3, activation="tanh")(x)
    z = layers.Conv2D(4, 3, activation="sigmoid")(x)
    y = layers.ReLU(6.0)(layers.Concatenate()([y, z]))
    return keras.Model(x, scores(y)), SIGNED


@_named
def preactivation():
    x = image()
    y = layers.Conv2D(6, 3, strides=2, padding="same")(rescaled(x))
    z = layers.ReLU()(layers.BatchNormalization()(y))
    z = layers.Conv2D(6, 3, padding="same")(z)
    y = layers.Add()([y, z])
    y = layers.Activation("relu")(layers.BatchNormalization()(y))
    return keras.Model(x, scores(y)), BYTES


@_named
def dense_blocks():
    x = image()
    y = conv(rescaled(x), 4, strides=2)
    for _ in range(2):
        z = layers.Activation("relu")(layers.BatchNormalization()(y))
        z = layers.Conv2D(4, 3, padding="same", use_bias=False)(z)
        y = layers.Concatenate()([y, z])
    y = layers.Activation("relu")(layers.BatchNormalization()(y))
    y = layers.AveragePooling2D(2)(layers.Conv2D(6, 1)(y))
    return keras.Model(x, scores(y)), BYTES


@_named
def concat_in_concat():
    x = image()
    a, b, c = conv(x, 3), conv(x, 3, 1), conv(x, 2)
    y = layers.Concatenate()([layers.Concatenate()([a, b]), c])
    return keras.Model(x, scores(layers.GlobalMaxPooling2D()(y))), UNIT


@_named
def relu_after_concat():
    x = image()
    y = [conv(x, 3, activation=None), conv(x, 3, 1, activation=None)]
    y = layers.Concatenate()(y)
    return keras.Model(x, scores(layers.Activation("relu")(y))), UNIT


@_named
def relu6_after_concat():
    x = image()
    y = [conv(x, 3, activation=None), conv(x, 3, 1, activation=None)]
    y = layers.Rescaling(4.0)(layers.Concatenate()(y))
    y = layers.ReLU(6.0)(layers.MaxPooling2D()(y))
    return keras.Model(x, scores(y)), UNIT


@_named
def functional_backbone():
    inner = image()
    y = layers.Add()([conv(inner, 6), conv(inner, 6)])
    backbone = keras.Model(inner, y, name="backbone")
    backbone.trainable = False
    x = image()
    y = backbone(rescaled(x), training=False)
    y = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(y))
    return keras.Model(x, scores(y)), BYTES


@_named
def sequential_backbone():
    backbone = keras.Sequential(
        [
            image(),
            layers.Conv2D(6, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(max_value=6),
        ],
        name="backbone",
    )
    return keras.Sequential(
        [
            image(),
            layers.Rescaling(1 / 255),
            backbone,
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    ), BYTES


@_named
def nested_twice():
    inner = keras.Sequential([image(), layers.Conv2D(4, 3, activation="relu")])
    middle_input = image()
    middle = keras.Model(middle_input, layers.MaxPooling2D()(inner(middle_input)))
    x = image()
    return keras.Model(x, scores(middle(x))), SIGNED


@_named
def functional_at_the_end():
    inner = image()
    body = keras.Model(inner, scores(conv(inner, 4, strides=2)), name="body")
    x = image()
    return keras.Model(x, body(rescaled(x))), BYTES


@_named
def cut_from_a_larger_model():
    x = image()
    y = layers.Conv2D(6, 3, activation="relu", name="kept")(x)
    whole = keras.Model(x, scores(layers.Conv2D(2, 3)(y)))
    kept = whole.get_layer("kept").output
    return keras.Model(whole.input, scores(kept)), UNIT


@_named
def mobilenet_v2():
    return keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=CLASSES
    ), SIGNED


@_named
def logits():
    x = image()
    return keras.Model(x, scores(conv(x), activation=None)), UNIT


@_named
def single_sigmoid():
    x = image()
    return keras.Model(x, scores(conv(x), 1, "sigmoid")), UNIT


@_named
def single_logit():
    x = image()
    return keras.Model(x, scores(conv(x), 1, None)), UNIT


@_named
def softmax_layer():
    x = image()
    y = layers.Softmax()(scores(conv(x), activation=None))
    return keras.Model(x, y), UNIT


@_named
def convolutional_classifier():
    x = image()
    y = layers.GlobalAveragePooling2D(keepdims=True)(conv(x, 8))
    y = layers.Conv2D(CLASSES, 1, activation="softmax")(y)
    return keras.Model(x, layers.Flatten()(y)), UNIT


@_named
def global_pools_that_keep_dimensions():
    x = image()
    y = layers.GlobalMaxPooling2D(keepdims=True)(conv(x, 6))
    y = layers.Reshape((6,))(layers.Conv2D(6, 1, activation="relu")(y))
    return keras.Model(x, scores(y)), UNIT


@_named
def average_pools():
    x = image(size=11)
    y = layers.AveragePooling2D(2, strides=2, padding="same")(conv(x, 4))
    y = layers.AveragePooling2D(3, strides=1)(conv(y, 6))
    return keras.Model(x, scores(layers.Flatten()(y))), UNIT


@_named
def pool_first():
    x = image()
    y = layers.AveragePooling2D(2)(layers.MaxPooling2D(2, strides=1)(x))
    return keras.Model(x, scores(conv(y))), SIGNED


@_named
def padding_equal_to_same():
    x = image()
    y = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    y = layers.Conv2D(4, 3, strides=2, use_bias=False)(y)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.DepthwiseConv2D(3)(layers.ZeroPadding2D(1)(y))
    return keras.Model(x, scores(layers.ReLU()(y))), SIGNED


@_named
def padding_unlike_same():
    x = image()
    y = layers.ZeroPadding2D(1)(x)
    y = layers.Conv2D(4, 3, strides=2, activation="relu")(y)
    y = layers.MaxPooling2D(3)(layers.ZeroPadding2D(((1, 0), (0, 2)))(y))
    return keras.Model(x, scores(layers.Flatten()(y))), SIGNED


@_named
def dense_with_batch_norm():
    x = image()
    y = layers.Flatten()(layers.MaxPooling2D(3)(conv(x, 4)))
    y = layers.Dense(8, use_bias=False)(y)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Dense(6, activation="relu")(layers.Dropout(0.2)(y))
    y = layers.BatchNormalization()(y)
    return keras.Model(x, scores(y)), UNIT


@_named
def normalization_per_channel():
    x = image()
    mean, variance = [110.0, 120.0, 100.0], [3000.0, 3500.0, 4000.0]
    y = layers.Normalization(mean=mean, variance=variance)(x)
    return keras.Model(x, scores(conv(y))), BYTES


@_named
def normalization_of_all_channels():
    x = image()
    y = layers.Rescaling(1 / 255)(x)
    y = layers.Normalization(mean=0.45, variance=0.06)(y)
    return keras.Model(x, scores(conv(y))), BYTES


@_named
def rescaling_per_channel_further_on():
    x = image()
    y = conv(x, 3, activation=None)
    y = layers.Rescaling([2.0, -0.5, 1.0], offset=[0.1, 0.0, -0.2])(y)
    return keras.Model(x, scores(conv(layers.ReLU()(y)))), UNIT


@_named
def arithmetic_preprocessing():
    x = image()
    y = keras.applications.mobilenet_v2.preprocess_input(x)
    return keras.Model(x, scores(conv(y))), BYTES


@_named
def augmented():
    x = image()
    y = layers.RandomFlip("horizontal")(x)
    y = layers.RandomBrightness(0.2, value_range=(0, 255))(y)
    y = layers.RandomTranslation(0.1, 0.1)(rescaled(y))
    y = layers.GaussianNoise(0.1)(conv(y))
    return keras.Model(x, scores(layers.SpatialDropout2D(0.1)(y))), BYTES


@_named
def activation_before_batch_norm():
    x = image()
    y = layers.Conv2D(6, 3, activation="relu")(x)
    y = layers.BatchNormalization()(y)
    y = layers.Conv2D(6, 3)(y)
    return keras.Model(x, scores(layers.BatchNormalization()(y))), SIGNED


@_named
def batch_norm_without_scale_or_center():
    x = image()
    y = layers.Conv2D(6, 3, use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization(scale=False)(y))
    y = layers.Conv2D(6, 3, use_bias=False)(y)
    y = layers.ReLU()(layers.BatchNormalization(center=False)(y))
    return keras.Model(x, scores(y)), UNIT


@_named
def shared_layer():
    x = image()
    shared = layers.Conv2D(3, 3, padding="same", activation="relu")
    y = shared(shared(x))
    return keras.Model(x, scores(layers.Add()([y, x]))), UNIT


@_named
def sum_of_three():
    x = image()
    y = layers.Add()([conv(x, 4), conv(x, 4, 1), conv(x, 4, activation=None)])
    return keras.Model(x, scores(layers.ReLU()(y))), UNIT


@_named
def operators():
    x = image()
    y = layers.Conv2D(4, 3, padding="same")(x / 127.5 - 1)
    y = keras.ops.relu6(y + layers.Conv2D(4, 1)(y))
    z = keras.ops.relu(layers.Conv2D(4, 3, padding="same")(y))
    y = keras.ops.concatenate([y, z], axis=-1)
    return keras.Model(x, scores(y, activation=None)), BYTES


@_named
def zero_and_negative_gammas():
    x = image()
    y = layers.Conv2D(6, 3, use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization(name="signed_0")(y))
    y = layers.DepthwiseConv2D(3, depth_multiplier=2)(y)
    y = layers.BatchNormalization(name="signed_1")(y)
    return keras.Model(x, scores(y)), UNIT
