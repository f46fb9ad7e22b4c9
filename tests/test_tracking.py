"""What TensorBoard shows of a fit and of a search, read as TensorBoard reads it."""

import copy
import csv
import importlib.util

import keras
import models
import numpy as np
import pytest
import small_search
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util.tensor_util import make_ndarray
from test_callbacks import BOARD, EPOCHS, fit, make_data, make_model, plain
from test_results import result

import keras_omv as omv
from keras_omv import search_tracking
from keras_omv.epoch_accuracy import EpochAccuracy
from keras_omv.routing import route
from keras_omv.view import QuantizedView

BUDGET = omv.Budget(flash_bytes=2048, ram_bytes=1960)
"""What the model fits once a quarter of its channels is gone."""
CHARTS = {
    "Memory/Flash (KiB)": ("omv_flash_bytes", 1024),
    "Memory/RAM (KiB)": ("omv_ram_bytes", 1024),
    "Speed/MACs (millions)": ("omv_macs", 1e6),
    "Speed/Estimated time (ms)": ("omv_latency_ms", 1),
    "Sparsity/Weights that are zero": ("omv_sparsity", 1),
    "Sparsity/Channels that are gone": ("omv_channel_sparsity", 1),
    "Accuracy/int8 on the camera": ("omv_int8_accuracy", 1),
    "Accuracy/float in Keras": ("omv_float_accuracy", 1),
}


def read(run):
    """What TensorBoard finds in a run."""
    return EventAccumulator(str(run)).Reload()


def points(run, tag):
    """The steps of a chart's line and its values."""
    events = read(run).Tensors(tag)
    values = [make_ndarray(event.tensor_proto).item() for event in events]
    return [event.step for event in events], values


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


class Erase(keras.callbacks.Callback):
    """Zeroes every second channel of `make_model`'s convolutions after an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch != self.epoch:
            return
        norm, depthwise = self.model.layers[2], self.model.layers[4]
        conv = self.model.get_layer("conv")
        for weight in (conv.kernel, norm.gamma, norm.beta, depthwise.bias):
            values = np.array(weight)
            values[..., ::2] = 0
            weight.assign(values)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The folder of a stock TensorBoard, and the history of its fit."""
    folder = tmp_path_factory.mktemp("watched") / "logs"
    callbacks = [
        omv.QuantizationAwareTraining(start_epoch=2),
        omv.BudgetMonitor(BUDGET, evaluation_data=make_data()),
        omv.ChannelPruning(0.25),
        keras.callbacks.TensorBoard(folder),
    ]
    keras.utils.set_random_seed(0)
    return folder, fit(make_model(), callbacks).history


def test_every_figure_is_a_chart_with_a_point_for_each_epoch(watched):
    folder, history = watched
    for tag, (name, unit) in CHARTS.items():
        steps, values = points(folder / "camera", tag)
        assert steps == list(range(EPOCHS))
        assert values == pytest.approx(np.divide(history[name], unit), rel=1e-6)
    assert {*CHARTS, "Verdict"} == set(read(folder / "camera").Tags()["tensors"])


def test_costs_are_those_of_an_export_at_every_epoch():
    """Also where channels are gone that ChannelPruning knows nothing of."""
    exact = models.Spy(lambda model: omv.estimate(model, board=BUDGET))
    callbacks = [omv.ChannelPruning(0.25), Erase(2), omv.BudgetMonitor(BUDGET), exact]
    history = fit(make_model(), callbacks).history
    for name in ("flash_bytes", "ram_bytes", "macs"):
        expected = [getattr(cost, name) for cost in exact.seen]
        assert history[f"omv_{name}"] == expected
    # By ChannelPruning in the first two epochs, by the other one in the third.
    assert len(set(history["omv_macs"][:3])) == 3


def test_the_stock_callbacks_own_charts_are_there_too(watched):
    folder, history = watched
    for name, _ in CHARTS.values():
        steps, values = points(folder / "train", f"epoch_{name}")
        assert steps == list(range(EPOCHS))
        assert values == pytest.approx(history[name], rel=1e-6)


def test_limits_are_lines_in_the_charts_of_what_they_limit(watched):
    folder, _ = watched
    epochs = list(range(EPOCHS))
    flash = points(folder / "limit", "Memory/Flash (KiB)")
    assert flash == (epochs, [BUDGET.flash_bytes / 1024] * EPOCHS)
    ram = points(folder / "limit", "Memory/RAM (KiB)")
    assert ram == (epochs, [BUDGET.ram_bytes / 1024] * EPOCHS)
    assert len(read(folder / "limit").Tags()["tensors"]) == 2


def test_what_has_no_limit_has_no_line(tmp_path):
    monitor = omv.BudgetMonitor(omv.Budget(flash_bytes=4096), log_dir=tmp_path)
    fit(make_model(), [monitor], epochs=1)
    assert read(tmp_path / "limit").Tags()["tensors"] == ["Memory/Flash (KiB)"]


def test_a_boards_limits_are_those_of_its_verdict(tmp_path):
    monitor = omv.BudgetMonitor(BOARD, log_dir=tmp_path)
    fit(make_model(), [monitor], epochs=1)
    verdict = BOARD.fit(monitor.cost)
    _, (flash,) = points(tmp_path / "limit", "Memory/Flash (KiB)")
    _, (ram,) = points(tmp_path / "limit", "Memory/RAM (KiB)")
    assert (flash, ram) == (
        verdict.flash_limit_bytes / 1024,
        verdict.ram_limit_bytes / 1024,
    )
    _, (text,) = points(tmp_path / "camera", "Verdict")
    assert BOARD.label in text.decode()
    assert all(reason in text.decode() for reason in verdict.reasons)


def test_the_verdict_of_each_epoch_is_about_the_model_of_that_epoch(watched):
    folder, history = watched
    steps, texts = points(folder / "camera", "Verdict")
    assert steps == list(range(EPOCHS))
    assert "Does not fit the budget" in texts[0].decode()
    assert f"Received: {history['omv_flash_bytes'][0]:,} bytes" in texts[0].decode()
    assert "**Fits the budget.**" in texts[-1].decode()


def test_a_folder_can_be_named_and_without_one_nothing_is_written(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model = make_model()
    fit(model, [omv.BudgetMonitor(BOARD)], epochs=1)
    assert files(tmp_path) == []
    fit(model, [omv.BudgetMonitor(BOARD, log_dir="mine")], epochs=1)
    assert {p.name for p in (tmp_path / "mine").iterdir()} == {"camera", "limit"}


def test_the_charts_go_where_the_tensorboard_of_the_same_fit_writes(tmp_path):
    model, others = make_model(), keras.callbacks.TensorBoard(tmp_path / "one")
    monitor = omv.BudgetMonitor(BOARD)
    fit(model, [monitor, others], epochs=1)
    before = files(tmp_path / "one" / "camera")
    assert len(before) == 1
    stock = keras.callbacks.TensorBoard(tmp_path / "two")
    fit(model, [stock, monitor], epochs=1)
    fit(model, [monitor], epochs=1)
    assert len(files(tmp_path / "two" / "camera")) == 1
    assert files(tmp_path / "one" / "camera") == before


def test_a_tensorboard_that_is_of_no_fit_or_of_another_models_is_let_alone(tmp_path):
    idle = keras.callbacks.TensorBoard(tmp_path / "idle")
    others = keras.callbacks.TensorBoard(tmp_path / "others")
    fit(make_model(), [others], epochs=1)
    model, monitor = make_model(), omv.BudgetMonitor(BOARD)
    # A list of the user's own gives its callbacks no `params`, as `idle` has none.
    fit(model, keras.callbacks.CallbackList([monitor], True, model=model), epochs=1)
    assert monitor.params is idle.params is None
    assert not (tmp_path / "idle").exists()
    assert not (tmp_path / "others" / "camera").exists()
    mine = keras.callbacks.TensorBoard(tmp_path / "mine")
    both = keras.callbacks.CallbackList([monitor, mine], True, model=model)
    fit(model, both, epochs=1)
    assert len(files(tmp_path / "mine" / "camera")) == 1


def test_accuracy_is_measured_as_often_as_asked_and_first_and_last(tmp_path):
    monitor = omv.BudgetMonitor(
        BOARD, evaluation_data=make_data(), evaluation_freq=3, log_dir=tmp_path
    )
    table = tmp_path / "table.csv"
    fit(make_model(), [monitor, keras.callbacks.CSVLogger(table)], epochs=8)
    for tag in ("Accuracy/int8 on the camera", "Accuracy/float in Keras"):
        steps, _ = points(tmp_path / "camera", tag)
        assert steps == [0, 2, 5, 7]
    steps, _ = points(tmp_path / "camera", "Memory/Flash (KiB)")
    assert steps == list(range(8))
    with table.open() as rows:
        cells = [row["omv_int8_accuracy"] for row in csv.DictReader(rows)]
    assert [number for number, cell in enumerate(cells) if cell != "NA"] == [0, 2, 5, 7]


def test_a_fit_that_goes_on_measures_its_own_first_epoch():
    monitor = omv.BudgetMonitor(BOARD, evaluation_data=make_data(), evaluation_freq=9)
    history = fit(make_model(), [monitor], epochs=7, initial_epoch=4).history
    assert len(history["omv_macs"]) == 3
    assert len(history["omv_int8_accuracy"]) == 2


class Stop(keras.callbacks.Callback):
    """Ends a fit after its second epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 1


def test_the_last_epoch_is_measured_also_where_a_fit_is_stopped():
    monitor = omv.BudgetMonitor(BOARD, evaluation_data=make_data(), evaluation_freq=9)
    history = fit(make_model(), [Stop(), monitor], epochs=7).history
    assert len(history["omv_macs"]) == len(history["omv_int8_accuracy"]) == 2


@pytest.mark.parametrize("frequency", [0, 1.5, None, "3"])
def test_a_frequency_that_is_no_number_of_epochs_is_refused(frequency):
    with pytest.raises(ValueError, match=f"at least 1. Received: .*{frequency!r}"):
        omv.BudgetMonitor(BOARD, evaluation_freq=frequency)


def test_ranges_are_taken_from_all_classes_also_where_images_are_sorted_by_class():
    model, (images, labels) = make_model(), make_data(400)
    fit(model, [])
    order = np.argsort(labels, kind="stable")
    found = EpochAccuracy(model, (images[order], labels[order])).int8()
    assert found == pytest.approx(
        EpochAccuracy(model, (images, labels)).int8(), abs=0.02
    )
    # Black pictures give no ranges at all; those of white ones are needed.
    shades = np.repeat([0.0, 255.0], 200)[:, None, None, None] * np.ones((1, 12, 12, 1))
    accuracy = EpochAccuracy(model, (shades.astype("float32"), np.repeat([0, 1], 200)))
    accuracy.int8()
    assert max(high for _, high in accuracy._view.get_ranges().values()) > 1


def test_a_monitor_can_be_copied_after_a_fit(tmp_path):
    monitor = omv.BudgetMonitor(BOARD, evaluation_data=make_data(), log_dir=tmp_path)
    fit(make_model(), [monitor], epochs=1)
    history = fit(make_model(), [copy.deepcopy(monitor)], epochs=1).history
    assert "omv_float_accuracy" in history


def test_float_accuracy_is_keras_own_while_training_rounds_to_int8():
    model, (images, labels) = make_model(), make_data()
    fit(model, [])
    answers = plain(model, images).argmax(axis=1)
    # Ranges far too small: what rounds by them sees no difference.
    view = QuantizedView(model)
    view.calibrate([images])
    ranges = view.get_ranges().items()
    view.set_ranges({value: (low / 1e6, high / 1e6) for value, (low, high) in ranges})
    route(model, view)
    rounded = model.predict(images, verbose=0).argmax(axis=1)
    assert np.mean(rounded == labels) < 0.9
    found = EpochAccuracy(model, (images, labels)).float32()
    assert found == pytest.approx(np.mean(answers == labels))
    assert found > 0.9


@pytest.mark.parametrize("name", ["single_sigmoid", "single_logit", "logits"])
def test_float_accuracy_of_every_kind_of_scores(name):
    known = models.prepared(name)
    scores = np.asarray(known.model(known.inputs))
    threshold = {"single_sigmoid": 0.5, "single_logit": 0.0}.get(name)
    labels = scores.argmax(axis=1) if threshold is None else scores[:, 0] > threshold
    assert 0.05 < np.mean(labels == labels[0]) < 0.95
    labels = labels.astype("int64")
    assert EpochAccuracy(known.model, (known.inputs, labels)).float32() == 1.0
    wrong = (labels + 1) % 2
    assert EpochAccuracy(known.model, (known.inputs, wrong)).float32() < 0.6


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of one trial that was taken up for a second one."""
    folder = str(tmp_path_factory.mktemp("searched"))
    for max_trials in (1, 2):
        tuner = small_search.make(folder, max_trials=max_trials)
        small_search.search(tuner)
    return tuner


def session(run):
    """The hyperparameters of a run, and the name of its row in the HParams tab."""
    content = read(run).PluginTagToContent("hparams")
    (data,) = (
        plugin_data_pb2.HParamsPluginData.FromString(text) for text in content.values()
    )
    start = data.session_start_info
    values = {name: value.number_value for name, value in start.hparams.items()}
    return start.group_name, values


def test_every_trial_of_a_resumed_search_is_one_row(searched):
    folder = searched.runner.folder / "tensorboard"
    results = searched.results()
    assert len(results) == 2
    for found in results:
        run = folder / f"trial_{found.trial_id}"
        assert len(files(run)) == 1
        name, values = session(run)
        assert name == found.trial_id
        levers = found.levers
        assert values["alpha"] == levers.alpha
        assert values["resolution (px)"] == levers.resolution
        assert values["head (channels)"] == levers.head
        assert values["depth (blocks)"] == levers.depth
        for tag, value in {
            "Accuracy/int8 on the camera": found.int8_accuracy,
            "Memory/Flash (KiB)": found.flash_bytes / 1024,
            "Memory/RAM (KiB)": found.ram_bytes / 1024,
            "Speed/Estimated time (ms)": found.latency_ms,
        }.items():
            assert points(run, tag) == ([found.epochs], [pytest.approx(value)])
        curve = points(run, "Accuracy/validation in Keras")
        assert curve == ([0, 1, 2], pytest.approx(list(found.val_accuracy)))


def test_a_search_ends_with_its_pictures(searched):
    pytest.importorskip("matplotlib")
    folder = searched.runner.folder / "tensorboard"
    assert {p.name for p in folder.iterdir()} == {"search", "trial_0", "trial_1"}
    run = read(folder / "search")
    costs = ("flash", "RAM", "MACs", "estimated time")
    fronts = [f"Pareto front/Accuracy against {cost}" for cost in costs]
    space = "Search space/What fits the budget"
    assert sorted(run.Tags()["tensors"]) == sorted([*fronts, space])
    for tag in (*fronts, space):
        (event,) = run.Tensors(tag)
        width, height, png = make_ndarray(event.tensor_proto)
        assert min(int(width), int(height)) > 400
        assert png.startswith(b"\x89PNG")


def test_without_matplotlib_there_are_no_pictures(tmp_path, searched, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name == "matplotlib" else find_spec(name),
    )
    options = {"board": BUDGET, "classes": 10, "channels": 1}
    search_tracking.write_pictures(tmp_path, searched, **options)
    assert files(tmp_path) == []


def test_what_a_trial_searches_of_its_training_is_shown_too(tmp_path):
    training = {"learning_rate": 0.003, "augmentation": "flip"}
    search_tracking.write_trial(tmp_path, result("7", training=training))
    run = tmp_path / "tensorboard" / "trial_7"
    name, values = session(run)
    assert name == "7"
    assert values["learning_rate"] == 0.003
    assert values["epochs"] == 12
    assert "augmentation" in values
