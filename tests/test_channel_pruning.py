"""What `ChannelPruning` promises inside `model.fit`."""

import copy
import logging
import warnings

import keras
import models
import numpy as np
import pytest

import keras_omv as omv
from keras_omv import channel_masks, flatbuffer
from keras_omv.channel_masks import ChannelMasks
from keras_omv.channels import channels_of
from keras_omv.recipe import make_variables

NAMES = ("left", "right")
BOARD = omv.get_board("openmv-h7-plus")
EPOCHS = 6


def make_data(count=96):
    return models.bright_halves(count, 16)


def convolution(x, filters, name, *, size=1, activation="relu6", **options):
    options = {"padding": "same", "use_bias": False, **options}
    x = keras.layers.Conv2D(filters, size, name=name, **options)(x)
    x = keras.layers.BatchNormalization(momentum=0.8, name=f"{name}_bn")(x)
    return keras.layers.Activation(activation)(x) if activation else x


def make_model(*, is_prepared=True, **options):
    """An inverted residual between a stem and a last convolution.

    Users' models are not prepared for `fit`; those that are, are quicker.
    """
    image = keras.Input((16, 16, 1))
    x = keras.layers.Rescaling(1 / 255)(image)
    x = stem = convolution(x, 8, "stem", size=3, strides=2)
    x = convolution(x, 24, "expand")
    x = keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = keras.layers.BatchNormalization(momentum=0.8, name="depthwise_bn")(x)
    x = keras.layers.ReLU(6.0)(x)
    x = convolution(x, 8, "project", activation=None)
    x = keras.layers.Add()([stem, x])
    x = convolution(x, 40, "head")
    x = keras.layers.GlobalAveragePooling2D()(x)
    scores = keras.layers.Dense(2, activation="softmax", name="scores")(x)
    model = keras.Model(image, scores)
    options = {"jit_compile": False, **options}
    model.compile(
        keras.optimizers.AdamW(0.01),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **options,
    )
    if is_prepared:
        make_variables(model)
    return model


def fit(model, callbacks, *, epochs=EPOCHS, **options):
    images, labels = make_data()
    return model.fit(
        images,
        labels,
        batch_size=32,
        epochs=epochs,
        verbose=0,
        callbacks=callbacks,
        **options,
    )


def schedule(final_sparsity, *, end_step=9):
    return omv.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=final_sparsity,
        begin_step=2,
        end_step=end_step,
        frequency=2,
    )


def widths(network):
    """The channels of each convolution with a ReLU."""
    return [len(group) for group in channels_of(network).rectified]


def widths_of_file(folder):
    return widths(flatbuffer.read((folder / "model.tflite").read_bytes()))


def export_to(folder, board=BOARD):
    return omv.OpenMVExport(
        folder, board=board, class_names=NAMES, evaluation_data=make_data()
    )


def test_the_exported_network_is_smaller_by_the_share_and_as_predicted(
    tmp_path, caplog
):
    export = export_to(tmp_path / "camera")
    callbacks = [
        omv.ChannelPruning(0.5),
        omv.QuantizationAwareTraining(start_epoch=4),
        omv.BudgetMonitor(BOARD),
        export,
    ]
    model = make_model()
    dense = omv.estimate(model, board=BOARD)
    with caplog.at_level(logging.INFO, logger="keras_omv.pruners"):
        history = fit(model, callbacks).history
    cost = export.report.cost
    assert widths_of_file(tmp_path / "camera") == [12, 20]
    planned = channel_masks.in_training(model).planned_cost(BOARD)
    for key in ("flash_bytes", "ram_bytes", "macs", "latency_ms"):
        assert getattr(cost, key) == getattr(planned, key) < getattr(dense, key)
        assert history[f"omv_{key}"][0] > history[f"omv_{key}"][-1]
        assert history[f"omv_{key}"][-1] == getattr(cost, key)
    assert (tmp_path / "camera" / "model.tflite").stat().st_size == cost.flash_bytes
    assert history["omv_channel_sparsity"][-1] == 0.5
    assert sorted(history["omv_channel_sparsity"]) == history["omv_channel_sparsity"]
    assert export.report.accuracy.int8 > 0.9
    assert export.report.accuracy.agreement == 1.0
    assert "Channel pruning will leave" in caplog.text


def test_a_budget_is_met_whatever_stands_first(tmp_path):
    dense = omv.estimate(make_model())
    budget = omv.Budget(
        flash_bytes=int(0.85 * dense.flash_bytes), ram_bytes=int(0.9 * dense.ram_bytes)
    )
    export = export_to(tmp_path / "camera", budget)
    callbacks = [
        export,
        omv.BudgetMonitor(budget, on_exceed="raise"),
        omv.QuantizationAwareTraining(start_epoch=4),
        omv.ChannelPruning(budget),
    ]
    fit(make_model(), callbacks)
    assert export.report.fit.fits
    # No more went than had to: the dense network is not far above the budget.
    assert export.report.cost.flash_bytes > 0.7 * dense.flash_bytes


# Each stands first once, and before and behind each other.
ORDERS = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]


@pytest.mark.filterwarnings("ignore:Zeros among the weights")
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_channels_weights_and_rounding_go_together_in_any_order(order, tmp_path):
    export = export_to(tmp_path / "camera")
    callbacks = [
        omv.ChannelPruning(0.5, schedule=schedule(0.5)),
        omv.Pruning(schedule(0.75, end_step=13)),
        omv.QuantizationAwareTraining(start_epoch=4),
    ]
    model = make_model()
    fit(model, [callbacks[place] for place in order] + [export])
    assert widths_of_file(tmp_path / "camera") == [12, 20]
    # Of what is left of each kernel three quarters are zeros, in float and in int8.
    network = flatbuffer.read((tmp_path / "camera" / "model.tflite").read_bytes())
    ops = (op for op in network.ops if op.kind in ("CONV_2D", "FULLY_CONNECTED"))
    for op in ops:
        weights = network.tensors[op.inputs[1]].data
        zeros = weights.size - np.count_nonzero(weights)
        assert zeros >= round(0.75 * weights.size)
    masks = channel_masks.in_training(model)
    for name in ("stem", "expand", "project", "head"):
        kernel = model.get_layer(name).kernel
        survivors = masks.survivors(kernel)
        weights = np.asarray(kernel)
        weights = weights if survivors is None else weights[survivors]
        assert np.count_nonzero(weights == 0) == round(0.75 * weights.size)
    assert export.report.accuracy.agreement == 1.0


@pytest.mark.filterwarnings("ignore:Zeros among the weights")
@pytest.mark.parametrize("magnitude_first", [True, False])
def test_the_share_of_zeros_is_of_what_channels_leave_at_last(magnitude_first):
    callbacks = [
        omv.Pruning(schedule(0.5, end_step=7)),
        omv.ChannelPruning(0.5, schedule=schedule(0.5, end_step=17)),
    ]
    model = make_model()
    fit(model, callbacks if magnitude_first else callbacks[::-1])
    masks = channel_masks.in_training(model)
    for name in ("expand", "project", "head", "scores"):
        kernel = model.get_layer(name).kernel
        weights = np.asarray(kernel)[masks.survivors(kernel)]
        assert np.count_nonzero(weights == 0) == round(0.5 * weights.size)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ({}, {"initial_epoch": 3}),
        ({"gradient_accumulation_steps": 2}, {}),
        ({"use_ema": True, "ema_momentum": 0.9}, {}),
    ],
    ids=str,
)
def test_the_target_is_reached_however_steps_are_counted(optimizer, options):
    model = make_model()
    model.compile(
        keras.optimizers.Adam(0.01, **optimizer),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    fit(model, [omv.ChannelPruning(0.5)], **options)
    assert ChannelMasks(model).sparsity == 0.5


def test_removed_channels_stay_zero_after_every_batch():
    model = make_model()
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            masks = channel_masks.in_training(self.model)
            head = model.get_layer("head")
            norm = model.get_layer("head_bn")
            gone = ~np.asarray(head.kernel).any(axis=(0, 1, 2))
            assert not np.asarray(norm.beta)[gone].any()
            assert not np.asarray(norm.moving_mean)[gone].any()
            assert not np.asarray(model.get_layer("scores").kernel)[gone].any()
            seen.append((int(gone.sum()), round(40 * masks.sparsity)))

    callbacks = [
        omv.ChannelPruning(0.5, schedule=schedule(0.5)),
        omv.QuantizationAwareTraining(start_epoch=2),
        Look(),
    ]
    fit(model, callbacks)
    found = [gone for gone, _ in seen]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 20)
    assert all(abs(gone - expected) <= 1 for gone, expected in seen)


@pytest.mark.parametrize(
    "options",
    [{"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 2}],
    ids=str,
)
def test_channels_are_removed_in_every_way_to_run(options):
    model = make_model(is_prepared=False, **options)
    fit(model, [omv.ChannelPruning(0.5)], validation_data=make_data())
    assert ChannelMasks(model).sparsity == 0.5


def test_removed_channels_are_kept_out_by_files_and_by_a_second_fit(tmp_path):
    model = make_model()
    fit(model, [omv.ChannelPruning(0.25)])
    small = omv.estimate(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert omv.estimate(loaded) == omv.estimate(tmp_path / "model.keras") == small
    fit(loaded, [omv.ChannelPruning(0.5)])
    before = ~np.asarray(model.get_layer("head").kernel).any(axis=(0, 1, 2))
    after = ~np.asarray(loaded.get_layer("head").kernel).any(axis=(0, 1, 2))
    assert (before.sum(), after.sum()) == (10, 20)
    assert after[before].all()


def test_the_least_important_channels_go_first():
    model = make_model()
    fit(model, [], epochs=2)
    norm = model.get_layer("head_bn")
    gamma = np.asarray(norm.gamma).copy()
    gamma[::2] *= 1e-3
    norm.gamma.assign(gamma)
    model.optimizer.learning_rate.assign(0.0)
    fit(model, [omv.ChannelPruning(0.5)])
    gone = ~np.asarray(model.get_layer("head").kernel).any(axis=(0, 1, 2))
    np.testing.assert_array_equal(gone, np.arange(40) % 2 == 0)


def test_frozen_layers_are_left_alone():
    model = make_model()
    for name in ("expand", "depthwise"):
        model.get_layer(name).trainable = False
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    before = np.asarray(model.get_layer("expand").kernel).copy()
    fit(model, [omv.ChannelPruning(0.5)])
    np.testing.assert_array_equal(before, np.asarray(model.get_layer("expand").kernel))
    assert ChannelMasks(model).gone.sum() == 20


def test_a_schedule_alone_says_how_much():
    model = make_model()
    fit(model, [copy.deepcopy(omv.ChannelPruning(schedule=schedule(0.25)))])
    assert ChannelMasks(model).sparsity == 0.25


@pytest.mark.parametrize("target", [0, 1, -0.5, 1.5])
def test_a_share_lies_between_none_and_all(target):
    with pytest.raises(ValueError, match=rf"target={target}"):
        omv.ChannelPruning(target)


def test_neither_target_nor_schedule_is_refused():
    with pytest.raises(ValueError, match="a target or a schedule"):
        omv.ChannelPruning()


def test_an_unknown_camera_is_refused_before_training():
    with pytest.raises(ValueError, match="openmv-x9"):
        fit(make_model(), [omv.ChannelPruning("openmv-x9")])


def test_a_schedule_that_never_prunes_is_refused():
    never = omv.ConstantSparsity(target_sparsity=0.0, begin_step=0)
    with pytest.raises(ValueError, match="ends with a sparsity"):
        fit(make_model(), [omv.ChannelPruning(schedule=never)])


def test_what_can_never_fit_is_refused_before_training():
    model = make_model()
    before = model.get_weights()
    with pytest.raises(omv.BudgetError, match="once channels are removed"):
        fit(model, [omv.ChannelPruning(omv.Budget(ram_bytes=3000))])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("monitor_first", [True, False])
def test_magnitude_pruning_says_once_that_it_saves_nothing_here(monitor_first):
    callbacks = [omv.BudgetMonitor("openmv-h7-plus"), omv.Pruning(schedule(0.5))]
    with pytest.warns(UserWarning, match=r"Next step: omv\.ChannelPruning") as warned:
        fit(make_model(), callbacks if monitor_first else callbacks[::-1])
    assert len(warned) == 1


def test_a_second_fit_prunes_no_weights_before_its_schedule_says_so():
    model = make_model()
    fit(model, [omv.ChannelPruning(0.5, schedule=schedule(0.5))])
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    before = [np.asarray(kernel) == 0 for kernel in kernels]
    later = omv.PolynomialDecay(
        initial_sparsity=0.0, final_sparsity=0.3, begin_step=1000, end_step=2000
    )
    with warnings.catch_warnings():
        # That pruning has not ended is no news.
        warnings.simplefilter("ignore", UserWarning)
        fit(model, [omv.ChannelPruning(0.5), omv.Pruning(later)], epochs=2)
    for kernel, was_zero in zip(kernels, before, strict=True):
        np.testing.assert_array_equal(np.asarray(kernel) == 0, was_zero)


def test_magnitude_pruning_is_fine_where_an_npu_compresses_weights():
    fit(make_model(), [omv.BudgetMonitor("openmv-ae3"), omv.Pruning(schedule(0.5))])


def pruned_fit(folder, *between, board=BOARD, pruning=None, **options):
    """A fit with an export, whose channels are all gone in its third epoch."""
    export = export_to(folder, board)
    pruning = pruning or omv.ChannelPruning(0.5, schedule=schedule(0.5))
    callbacks = [pruning, omv.QuantizationAwareTraining(), *between, export]
    model = make_model()
    fit(model, callbacks, **options)
    return model, export


def restored(match, *, done_epoch=2):
    advice = rf"start_from_epoch={done_epoch}\)"
    return pytest.warns(UserWarning, match=f"(?s){match}.*{advice}")


def test_weights_from_before_pruning_ended_are_exported_with_a_warning(tmp_path):
    options = {"monitor": "loss", "mode": "max", "restore_best_weights": True}
    stopping = keras.callbacks.EarlyStopping(patience=9, **options)
    with restored(r"Expected 32 of 64 channels gone.*weights with \d+ gone"):
        model, export = pruned_fit(tmp_path / "camera", stopping)
    assert stopping.best_epoch < 2
    planned = channel_masks.in_training(model).planned_cost(BOARD)
    assert export.report.cost.flash_bytes > planned.flash_bytes
    with restored("larger than ChannelPruning planned"):
        omv.export(model, tmp_path / "again", board=BOARD, class_names=NAMES)


def test_the_epoch_that_the_warning_names_is_the_first_without_one(tmp_path):
    for epoch in (2, 5):
        pruned_fit(tmp_path / "camera", models.Restore(epoch))
        assert widths_of_file(tmp_path / "camera") == [12, 20]


def test_restored_weights_that_do_not_fit_are_refused_behind_the_warning(tmp_path):
    dense = omv.estimate(make_model())
    budget = omv.Budget(flash_bytes=int(0.8 * dense.flash_bytes))
    with (
        pytest.warns(UserWarning, match="larger than ChannelPruning planned"),
        pytest.raises(omv.BudgetError, match="flash"),
    ):
        pruned_fit(
            tmp_path / "camera",
            models.Restore(0),
            board=budget,
            pruning=omv.ChannelPruning(budget, schedule=schedule(0.5)),
        )
    assert not (tmp_path / "camera").exists()


def test_what_a_budget_asks_for_is_gone_in_the_end_without_a_warning(tmp_path):
    dense = omv.estimate(make_model())
    budget = omv.Budget(flash_bytes=int(0.85 * dense.flash_bytes))
    pruning = omv.ChannelPruning(budget, schedule=schedule(0.5))
    model, export = pruned_fit(tmp_path / "camera", board=budget, pruning=pruning)
    masks = channel_masks.in_training(model)
    np.testing.assert_array_equal(masks.planned, masks.gone)
    assert export.report.cost.flash_bytes == masks.planned_cost().flash_bytes


def test_a_fit_that_ends_before_its_schedule_is_told(tmp_path):
    pruning = omv.ChannelPruning(0.5, schedule=schedule(0.5, end_step=100))
    with pytest.warns(UserWarning, match=r"(?s)32 of 64.*Pruning had not ended"):
        pruned_fit(tmp_path / "camera", pruning=pruning)


def test_fewer_zeros_than_planned_are_exported_with_a_warning(tmp_path):
    pruning = omv.Pruning(schedule(0.75))
    with restored(r"Expected 75\.0% of zeros", done_epoch=3):
        pruned_fit(
            tmp_path / "camera", models.Restore(1), pruning=pruning, board=omv.Budget()
        )


@pytest.mark.parametrize("pruning", [omv.ChannelPruning, omv.Pruning])
def test_restored_weights_that_are_pruned_at_the_end_alone_are_told(pruning):
    callbacks = [models.Restore(0), pruning(schedule=schedule(0.5))]
    with pytest.warns(UserWarning, match=rf"that {pruning.__name__} has pruned"):
        fit(make_model(), callbacks)
