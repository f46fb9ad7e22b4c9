"""What the callbacks promise inside `model.fit`."""

import copy
import json
import math

import keras
import models
import numpy as np
import pytest

import keras_omv as omv
from keras_omv import flatbuffer, trained
from keras_omv.convert import lower
from keras_omv.fusion import build_graph
from keras_omv.pruning import prunable_kernels, sparsity_of
from keras_omv.recipe import make_variables

NAMES = ("left", "right")
BOARD = omv.get_board("openmv-h7-plus")
EPOCHS = 4


def make_data(count=96):
    return models.bright_halves(count, 12)


def make_model(*, is_prepared=True, **compile_options):
    """Users' models are not prepared for `fit`; those that are, are quicker."""
    layers = [
        keras.Input((12, 12, 1)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv"),
        keras.layers.BatchNormalization(momentum=0.8),
        keras.layers.ReLU(6.0),
        keras.layers.DepthwiseConv2D(3, padding="same"),
        keras.layers.Activation("relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(2, activation="softmax", name="scores"),
    ]
    model = keras.Sequential(layers)
    options = {"jit_compile": False, **compile_options}
    model.compile(
        keras.optimizers.Adam(0.01),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **options,
    )
    if is_prepared:
        make_variables(model)
    return model


def fit(model, callbacks, *, epochs=EPOCHS, data=None, **options):
    images, labels = data or make_data()
    return model.fit(
        images,
        labels,
        batch_size=32,
        epochs=epochs,
        verbose=0,
        callbacks=callbacks,
        **options,
    )


def plain(model, images):
    return np.asarray(type(model).call(model, images, training=False))


ALL_CALLBACKS = {
    "Pruning": lambda folder: omv.Pruning(),
    "ChannelPruning": lambda folder: omv.ChannelPruning(0.25),
    "QuantizationAwareTraining": lambda folder: omv.QuantizationAwareTraining(),
    "BudgetMonitor": lambda folder: omv.BudgetMonitor(BOARD),
    "OpenMVExport": lambda folder: omv.OpenMVExport(
        folder / "camera",
        board=BOARD,
        class_names=NAMES,
        representative_data=make_data()[0],
    ),
}


@pytest.mark.parametrize("make", ALL_CALLBACKS.values(), ids=ALL_CALLBACKS.keys())
def test_every_callback_serves_copies_two_fits_save_load_and_export(make, tmp_path):
    callback = copy.deepcopy(make(tmp_path))
    model = make_model(is_prepared=False)
    for _ in range(2):
        fit(model, [callback], epochs=2, validation_data=make_data())
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    images, _ = make_data()
    np.testing.assert_array_equal(
        model.predict(images, verbose=0), loaded.predict(images, verbose=0)
    )
    report = omv.export(
        loaded,
        tmp_path / "again",
        board=BOARD,
        class_names=NAMES,
        representative_data=images,
        evaluation_data=make_data(),
    )
    assert report.accuracy.int8 == pytest.approx(report.accuracy.float32, abs=0.05)


@pytest.mark.parametrize(
    "options",
    [
        {"jit_compile": True},
        {"jit_compile": False},
        {"run_eagerly": True},
        {"steps_per_execution": 2},
    ],
    ids=str,
)
def test_rounding_is_on_from_start_epoch_in_every_way_to_run(options):
    images, labels = make_data()
    model = make_model(is_prepared=False, **options)
    spy = models.Spy(lambda m: np.abs(np.asarray(m(images)) - plain(m, images)).max())
    history = fit(
        model,
        [omv.QuantizationAwareTraining(start_epoch=2), spy],
        validation_data=(images, labels),
    )
    assert spy.seen[:2] == [0.0, 0.0]
    assert min(spy.seen[2:]) > 0.0
    assert history.history["val_accuracy"][-1] > 0.9


def test_validation_inside_fit_measures_the_exported_network():
    images, labels = make_data()
    model = make_model()
    history = fit(
        model,
        [omv.QuantizationAwareTraining(start_epoch=1)],
        validation_data=(images, labels),
    )
    view = trained.trained_view(model)
    measured = np.mean(np.argmax(np.asarray(view(images)), axis=1) == labels)
    assert history.history["val_accuracy"][-1] == pytest.approx(measured)


def test_the_model_is_plain_again_after_fit(tmp_path):
    images, _ = make_data()
    model = make_model()
    weights = [weight.path for weight in model.weights]
    fit(model, [omv.QuantizationAwareTraining(start_epoch=1)])
    assert [weight.path for weight in model.weights] == weights
    predicted = model.predict(images, verbose=0)
    np.testing.assert_allclose(predicted, plain(model, images), atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(predicted, loaded.predict(images, verbose=0))


def test_the_optimizer_counts_on_through_the_switch():
    model = make_model()
    optimizer = model.optimizer
    steps = models.Spy(lambda m: int(m.optimizer.iterations))
    fit(model, [omv.QuantizationAwareTraining(start_epoch=2), steps])
    assert model.optimizer is optimizer
    assert steps.seen == [3, 6, 9, 12]


def test_trained_ranges_reach_the_file():
    model = make_model()
    fit(model, [omv.QuantizationAwareTraining(start_epoch=1)])
    view = trained.trained_view(model)
    network = lower(view)
    found = {
        (float(t.scales[0]), int(t.zero_points[0]))
        for t in network.tensors
        if t.dtype == "int8" and not t.is_constant
    }
    for low, high in view.get_ranges().values():
        scale = np.float32((np.float32(high) - np.float32(low)) / np.float32(255))
        zero_point = int(np.floor(-np.float32(low) / scale + np.float32(0.5))) - 128
        assert (float(scale), zero_point) in found


def test_ranges_stand_still_in_the_last_epochs():
    model = make_model()
    spy = models.Spy(lambda m: trained.in_training(m).get_ranges())
    callback = omv.QuantizationAwareTraining(start_epoch=0, freeze_epochs=2)
    fit(model, [callback, spy], epochs=5)
    assert spy.seen[1] != spy.seen[2]
    assert spy.seen[2] == spy.seen[3] == spy.seen[4]


def test_restored_weights_are_exported_with_the_ranges_of_their_epoch():
    model = make_model()
    spy = models.Spy(lambda m: trained.in_training(m).get_ranges())
    callbacks = [omv.QuantizationAwareTraining(start_epoch=1), spy, models.Restore(2)]
    fit(model, callbacks, epochs=5)
    assert spy.seen[2] != spy.seen[4]
    assert trained.trained_view(model).get_ranges() == spy.seen[2]


def test_weights_restored_from_before_the_rounding_get_the_first_ranges(caplog):
    model = make_model()
    spy = models.Spy(lambda m: trained.in_training(m).get_ranges())
    callbacks = [omv.QuantizationAwareTraining(start_epoch=2), spy, models.Restore(0)]
    fit(model, callbacks)
    assert trained.trained_view(model).get_ranges() == spy.seen[2]
    assert "before fake quantization began" in caplog.text


def test_a_fit_without_rounding_makes_trained_ranges_stale(tmp_path):
    model = make_model()
    fit(model, [omv.QuantizationAwareTraining()], epochs=1)
    fit(model, [], epochs=1)
    with pytest.raises(omv.ExportError, match="Pass representative_data"):
        omv.export(model, tmp_path / "camera", board=BOARD, class_names=NAMES)
    assert not (tmp_path / "camera").exists()


@pytest.mark.filterwarnings(
    "ignore:Zeros among the weights", "ignore:The weights are denser than Pruning"
)
def test_other_callbacks_keep_working(tmp_path):
    images, _ = make_data()
    model = make_model()
    rates = models.Spy(lambda m: float(m.optimizer.learning_rate))
    stopping = keras.callbacks.EarlyStopping(
        monitor="val_loss",
        patience=1,
        min_delta=10.0,
        restore_best_weights=True,
        start_from_epoch=2,
    )
    history = fit(
        model,
        [
            omv.Pruning(),
            omv.QuantizationAwareTraining(start_epoch=1),
            omv.BudgetMonitor(BOARD, evaluation_data=make_data()),
            keras.callbacks.TensorBoard(tmp_path / "logs"),
            keras.callbacks.ModelCheckpoint(tmp_path / "best.keras"),
            keras.callbacks.ReduceLROnPlateau(
                monitor="val_loss", patience=1, min_delta=10.0, cooldown=0
            ),
            stopping,
            rates,
            omv.OpenMVExport(tmp_path / "camera", board=BOARD, class_names=NAMES),
        ],
        epochs=8,
        validation_data=make_data(),
    )
    assert len(history.epoch) == 4
    assert rates.seen[-1] < rates.seen[0]
    saved = keras.models.load_model(tmp_path / "best.keras")
    assert saved.predict(images, verbose=0).shape == (96, 2)
    report = json.loads((tmp_path / "camera" / "report.json").read_text())
    assert report["quantization"] == "trained"
    assert history.history["omv_int8_accuracy"][-1] == pytest.approx(
        history.history["val_accuracy"][-1], abs=0.03
    )
    assert any((tmp_path / "logs").rglob("events.out.tfevents.*"))


def test_an_interrupted_fit_does_not_leave_the_next_one_rounding():
    images, _ = make_data()

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    model = make_model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, [omv.QuantizationAwareTraining(), Stop()])
    export = omv.OpenMVExport("camera", board=BOARD, class_names=NAMES)
    with pytest.raises(omv.ExportError, match="Add one"):
        fit(model, [export])
    np.testing.assert_array_equal(np.asarray(model(images)), plain(model, images))
    spy = models.Spy(lambda m: np.abs(np.asarray(m(images)) - plain(m, images)).max())
    fit(model, [omv.QuantizationAwareTraining(start_epoch=1), spy], epochs=2)
    assert spy.seen[0] == 0.0 < spy.seen[1]


def test_start_after_the_last_epoch_is_refused():
    callback = omv.QuantizationAwareTraining(start_epoch=4)
    with pytest.raises(ValueError, match=r"0 to 3.*start_epoch=4"):
        fit(make_model(), [callback])


@pytest.mark.parametrize("name", ["start_epoch", "freeze_epochs"])
def test_epochs_are_whole_numbers(name):
    with pytest.raises(ValueError, match=f"argument `{name}`.*{name}=-1"):
        omv.QuantizationAwareTraining(**{name: -1})


@pytest.mark.parametrize("scale", [1 / 255, 2 / 255])
def test_input_range_is_taken_from_the_first_batch(scale):
    images, labels = make_data()
    low = -1.0 if scale > 0.005 else 0.0
    model = keras.Sequential(make_model().layers[1:])
    model.build((None, 12, 12, 1))
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    data = (images * scale + low, labels)
    fit(model, [omv.QuantizationAwareTraining()], epochs=1, data=data)
    assert trained.trained_view(model).pixels.range == (low, 1.0)


def test_odd_input_values_are_refused():
    images, labels = make_data()
    model = keras.Sequential(make_model().layers[1:])
    model.build((None, 12, 12, 1))
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    with pytest.raises(ValueError, match="Pass input_range"):
        fit(
            model,
            [omv.QuantizationAwareTraining()],
            epochs=1,
            data=(images - 127.0, labels),
        )


def tfmot_schedule(name, **arguments):
    from keras_omv.pruning import _tfmot

    return getattr(_tfmot().sparsity.keras, name)(**arguments)


POLYNOMIAL = {
    "initial_sparsity": 0.2,
    "final_sparsity": 0.75,
    "begin_step": 2,
    "end_step": 9,
    "frequency": 2,
}
SCHEDULES = {
    "ours": lambda: omv.PolynomialDecay(**POLYNOMIAL),
    "tfmot's": lambda: tfmot_schedule("PolynomialDecay", **POLYNOMIAL),
    "constant": lambda: omv.ConstantSparsity(target_sparsity=0.75, begin_step=2),
    "tfmot's constant": lambda: tfmot_schedule(
        "ConstantSparsity", target_sparsity=0.75, begin_step=2
    ),
    "ends between two prunings": lambda: omv.PolynomialDecay(
        **{**POLYNOMIAL, "frequency": 5}
    ),
    "never due but at the start": lambda: omv.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=0.75,
        begin_step=0,
        end_step=9,
        frequency=100,
    ),
    "ends after the fit": lambda: omv.PolynomialDecay(
        **{**POLYNOMIAL, "end_step": 11, "frequency": 100}
    ),
}


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES.keys())
def test_sparsity_ends_exactly_at_the_target_and_survives_quantization(make):
    model = make_model()
    fit(model, [omv.Pruning(make()), omv.QuantizationAwareTraining(start_epoch=2)])
    for kernel in prunable_kernels(build_graph(model)):
        zeros = np.sum(np.asarray(kernel) == 0)
        assert zeros == round(0.75 * math.prod(kernel.shape))
    network = flatbuffer.read(flatbuffer.write(lower(trained.trained_view(model))))
    conv, scores = (
        next(network.tensors[op.inputs[1]] for op in network.ops if op.kind == kind)
        for kind in ("CONV_2D", "FULLY_CONNECTED")
    )
    kernel = np.asarray(model.get_layer("conv").kernel)
    assert np.all(conv.data.transpose(1, 2, 3, 0)[kernel == 0] == 0)
    kernel = np.asarray(model.get_layer("scores").kernel)
    assert np.all(scores.data.T[kernel == 0] == 0)


def test_steps_that_run_together_are_all_asked_for():
    model = make_model(steps_per_execution=3)
    schedule = omv.ConstantSparsity(target_sparsity=0.5, begin_step=1, frequency=100)
    history = fit(model, [omv.Pruning(schedule)], epochs=2)
    assert history.history["omv_sparsity"] == pytest.approx([0.5, 0.5], abs=0.01)


@pytest.mark.filterwarnings("ignore:Zeros among the weights")
def test_sparsity_follows_the_schedule_and_is_logged():
    schedule = omv.PolynomialDecay(
        initial_sparsity=0.0,
        final_sparsity=0.5,
        begin_step=0,
        end_step=11,
        frequency=1,
    )
    model = make_model()
    history = fit(model, [omv.Pruning(schedule), omv.BudgetMonitor(BOARD)])
    expected = [float(schedule(step)[1]) for step in (2, 5, 8, 11)]
    logged = history.history["omv_sparsity"]
    assert logged == pytest.approx(expected, abs=0.01)
    assert sparsity_of(prunable_kernels(build_graph(model))) == logged[-1]


def test_zeros_stay_zero_in_a_second_fit():
    model = make_model()
    schedule = omv.PolynomialDecay(**POLYNOMIAL)
    fit(model, [omv.Pruning(schedule)])
    kernels = prunable_kernels(build_graph(model))
    before = [np.asarray(kernel) == 0 for kernel in kernels]
    fit(model, [omv.Pruning(schedule)])
    after = [np.asarray(kernel) == 0 for kernel in kernels]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pruning_needs_something_to_prune():
    model = make_model()
    model.trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(omv.UnsupportedModelError, match="at least one trainable"):
        fit(model, [omv.Pruning()])


def test_pruning_without_a_schedule_needs_the_number_of_steps():
    images, labels = make_data(32)

    def endless():
        while True:
            yield images, labels

    import tensorflow as tf

    signature = (tf.TensorSpec((32, 12, 12, 1)), tf.TensorSpec((32,), tf.int64))
    dataset = tf.data.Dataset.from_generator(endless, output_signature=signature)
    with pytest.raises(ValueError, match=r"Pass omv\.PolynomialDecay"):
        make_model().fit(
            dataset.take(3),
            epochs=2,
            verbose=0,
            shuffle=False,
            callbacks=[omv.Pruning()],
        )


def test_budget_monitor_publishes_costs_that_the_export_confirms(tmp_path):
    model = make_model()
    export = omv.OpenMVExport(tmp_path / "camera", board=BOARD, class_names=NAMES)
    history = fit(
        model, [omv.QuantizationAwareTraining(), omv.BudgetMonitor(BOARD), export]
    )
    size = (tmp_path / "camera" / "model.tflite").stat().st_size
    assert history.history["omv_flash_bytes"] == [size] * EPOCHS
    assert history.history["omv_ram_bytes"][-1] == export.report.cost.ram_bytes
    assert history.history["omv_macs"][-1] == 25 * 8 * 9 + 25 * 8 * 9 + 200 * 2
    assert history.history["omv_latency_ms"][-1] > 0


def test_budget_monitor_warns_once_and_trains_on():
    with pytest.warns(UserWarning, match="flash") as warned:
        history = fit(make_model(), [omv.BudgetMonitor(omv.Budget(flash_bytes=100))])
    assert len([w for w in warned if "flash" in str(w.message)]) == 1
    assert len(history.epoch) == EPOCHS


def test_budget_monitor_stops_or_raises_where_asked():
    budget = omv.Budget(ram_bytes=100)
    with pytest.warns(UserWarning, match="RAM"):
        history = fit(make_model(), [omv.BudgetMonitor(budget, on_exceed="stop")])
    assert len(history.epoch) == 1
    with pytest.raises(omv.BudgetError, match="RAM"):
        fit(make_model(), [omv.BudgetMonitor(budget, on_exceed="raise")])
    with pytest.raises(ValueError, match="on_exceed='shout'"):
        omv.BudgetMonitor(budget, on_exceed="shout")


def test_export_refuses_before_training_what_cannot_work(tmp_path):
    quantized_before = make_model()
    fit(quantized_before, [omv.QuantizationAwareTraining()], epochs=1)

    def refused(
        error, match, *, model=None, directory=tmp_path / "camera", extra=(), **options
    ):
        options = {"board": BOARD, "class_names": NAMES, **options}
        epochs = models.Spy(lambda m: 1)
        with pytest.raises(error, match=match):
            fit(
                model or make_model(),
                [*extra, omv.OpenMVExport(directory, **options), epochs],
            )
        assert not epochs.seen
        assert not (tmp_path / "camera").exists()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    refused(omv.ExportError, "mine", directory=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    refused(omv.DatasetError, "Expected 2 class names", class_names=("a", "b", "c"))
    refused(omv.DatasetError, "line break", class_names=('x"\nimport os', "b"))
    refused(omv.ExportError, "Add one")
    refused(omv.ExportError, "Add one", model=quantized_before)
    refused(ValueError, "dtype='float32'", dtype="float32")
    refused(ValueError, "on_exceed='stop'", on_exceed="stop")
    refused(
        omv.BudgetError,
        "flash",
        board=omv.Budget(flash_bytes=100),
        extra=[omv.QuantizationAwareTraining()],
    )


def test_nan_loss_is_one_clear_error_and_leaves_nothing(tmp_path):
    images, labels = make_data()
    images[0, 0, 0, 0] = np.nan
    callbacks = [
        omv.QuantizationAwareTraining(start_epoch=1),
        omv.OpenMVExport(tmp_path / "camera", board=BOARD, class_names=NAMES),
    ]
    with pytest.raises(omv.TrainingDivergedError, match="not finite in epoch 0"):
        fit(make_model(), callbacks, data=(images, labels))
    assert list(tmp_path.iterdir()) == []


def test_stopping_before_the_rounding_begins_is_explained(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    callbacks = [
        omv.QuantizationAwareTraining(start_epoch=2),
        Stop(),
        omv.OpenMVExport(tmp_path / "camera", board=BOARD, class_names=NAMES),
    ]
    with pytest.raises(omv.ExportError, match="Pass representative_data"):
        fit(make_model(), callbacks)
