"""What quantization-aware training does to a network, and what it costs."""

import keras
import models
import numpy as np
import pytest
from keras import layers

import keras_omv as omv
from keras_omv import trained
from keras_omv.convert import lower

SHAPE = (12, 12, 3)


def make_data(count=64):
    """Images with the class of their strongest colour."""
    images = models.pixels(count, SHAPE)
    means = images.astype("float32").mean(axis=(1, 2))
    return images, np.argmax(means - means.mean(axis=0), axis=1)


def make_model(**norm_options):
    x = models.image()
    y = models.conv(models.rescaled(x), 6, strides=2)
    z = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    z = layers.ReLU(6.0)(layers.BatchNormalization(**norm_options)(z))
    z = models.conv(z, 6, 1, activation=None)
    model = keras.Model(x, models.scores(layers.Add()([y, z]), classes=3))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


class Notes(keras.callbacks.Callback):
    """Ranges and batch statistics at the end of each epoch, and the traces made."""

    def __init__(self):
        super().__init__()
        self.ranges, self.statistics, self.trained = [], [], []

    def on_epoch_end(self, epoch, logs=None):
        view = trained.in_training(self.model)
        self.ranges.append(view.get_ranges() if view else {})
        moving = [w for w in self.model.non_trainable_variables if "moving" in w.name]
        self.statistics.append([weight.numpy() for weight in moving])
        weights = self.model.trainable_variables
        self.trained.append([weight.numpy() for weight in weights])


def fit(model, *callbacks, epochs=4):
    images, labels = make_data()
    notes = Notes()
    model.fit(
        images,
        labels,
        epochs=epochs,
        batch_size=16,
        verbose=0,
        callbacks=[*callbacks, notes],
    )
    return notes


def decay():
    """A learning rate that has settled from the second epoch on."""
    return keras.callbacks.LearningRateScheduler(
        lambda epoch, rate: 0.0005 if epoch else 0.01
    )


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_ranges_and_statistics_stand_still_together_while_weights_train():
    notes = fit(make_model(), decay(), omv.QuantizationAwareTraining(), epochs=5)
    assert notes.ranges[2] != notes.ranges[3] == notes.ranges[4]
    moved = [not same(*notes.statistics[epoch : epoch + 2]) for epoch in range(4)]
    assert moved == [True, True, True, False]
    assert not same(*notes.trained[3:])


def test_at_a_high_learning_rate_ranges_stand_still_and_statistics_follow():
    notes = fit(make_model(), omv.QuantizationAwareTraining(freeze_epochs=2))
    assert notes.ranges[0] != notes.ranges[1] == notes.ranges[2] == notes.ranges[3]
    moved = [not same(*notes.statistics[epoch : epoch + 2]) for epoch in range(3)]
    assert moved == [True, True, True]


def test_statistics_are_those_of_the_quantized_network_when_they_freeze():
    model = make_model(momentum=0.999)
    images, _ = make_data()
    fit(model, decay(), omv.QuantizationAwareTraining(freeze_epochs=1), epochs=6)
    norm = next(x for x in model.layers if x.name.startswith("batch_normalization"))
    slow = [x for x in model.layers if getattr(x, "momentum", 0) == 0.999]
    probe = keras.Model(model.input, slow[0].input)
    means = probe.predict(images, verbose=0).mean(axis=(0, 1, 2))
    assert norm is not slow[0]
    # Four steps an epoch: Keras' own average would still be at 2 % of the way.
    np.testing.assert_allclose(slow[0].moving_mean, means, atol=0.15)
    assert np.abs(means).max() > 0.3


@pytest.mark.parametrize(
    ("options", "epochs"), [({"freeze_epochs": 0}, 3), ({"start_epoch": 2}, 3)]
)
def test_without_an_epoch_to_freeze_statistics_move_to_the_end(options, epochs):
    callback = omv.QuantizationAwareTraining(**options)
    notes = fit(make_model(), decay(), callback, epochs=epochs)
    assert not same(*notes.statistics[-2:])


def test_statistics_of_untrainable_layers_stay():
    model = make_model()
    norms = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
    norms[0].trainable = False
    before = norms[0].get_weights()
    fit(model, omv.QuantizationAwareTraining())
    assert same(before, norms[0].get_weights())


@pytest.mark.parametrize("jit_compile", ["auto", False])
def test_a_fit_is_retraced_once_at_the_switch_and_never_at_the_freeze(jit_compile):
    traces = []

    class Counting(keras.losses.Loss):
        def call(self, y_true, y_pred):
            traces.append(1)
            return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    def count(callbacks):
        traces.clear()
        model = make_model()
        model.compile("sgd", Counting(), jit_compile=jit_compile)
        fit(model, *callbacks, epochs=5)
        return len(traces)

    plain = count([])
    switched = count([omv.QuantizationAwareTraining(start_epoch=2, freeze_epochs=2)])
    assert switched == 2 * plain


def test_the_frozen_training_graph_answers_as_the_device():
    model = make_model()
    images, _ = make_data()
    fit(model, decay(), omv.QuantizationAwareTraining(freeze_epochs=2), epochs=6)
    view = trained.trained_view(model)
    in_training = np.asarray(view(images, training=True))
    on_device = np.asarray(view(images))
    assert np.abs(in_training - on_device).max() < 2.5 / 256
    assert np.ptp(on_device, axis=0).min() > 0.2


def test_a_residual_network_has_no_operation_that_only_requantizes():
    model = make_model()
    fit(model, omv.QuantizationAwareTraining())
    kinds = [op.kind for op in lower(trained.trained_view(model)).ops]
    assert kinds == [
        "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED",
        "SOFTMAX",
    ]  # fmt: skip


def test_ranges_never_collapse_where_all_units_are_dead():
    model = make_model()
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
            layer.beta.assign(-100.0 * np.ones(layer.beta.shape))
    notes = fit(model, omv.QuantizationAwareTraining(), epochs=2)
    assert all(high - low >= 9e-4 for low, high in notes.ranges[-1].values())
    images, _ = make_data()
    assert np.all(np.isfinite(trained.trained_view(model).predict(images)))


def test_an_outlier_in_the_first_batch_is_averaged_away():
    view = omv.FakeQuantize()
    quiet = np.linspace(0, 1, 64, dtype="float32")
    view(100 * quiet, training=True)
    for _ in range(99):
        view(quiet, training=True)
    assert view.range[1] == pytest.approx(199 / 100, rel=1e-4)
