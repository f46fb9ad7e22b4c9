"""Searches that train for real, over tiny networks."""

import re
import shutil

import keras
import keras_tuner
import numpy as np
import pytest
import small_search
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_omv as omv
from keras_omv import trial as trials
from keras_omv.errors import BudgetError, DatasetError, SearchError
from keras_omv.report_check import check_folder
from keras_omv.results import read_result, write_result
from keras_omv.trial import StopBehind


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def tuner(folder):
    """A finished search of three trials, with a callback of the user."""
    made = small_search.make(str(folder))
    board = keras.callbacks.TensorBoard(str(folder / "logs"))
    small_search.search(made, callbacks=[board])
    return made


def test_every_trial_is_trained_and_fits(tuner):
    results = tuner.results()
    assert len(results) == 3
    for result in results:
        small_search.BUDGET.check(result)
        assert len(result.val_accuracy) == 3
    assert {t.status for t in tuner.oracle.trials.values()} == {"COMPLETED"}


def test_cost_and_objective_are_those_of_the_exported_network(tuner, tmp_path):
    best = tuner.results()[0]
    report = tuner.export_best(tmp_path / "best", class_names=list("0123456789"))
    assert report.cost.flash_bytes == best.flash_bytes
    assert report.cost.ram_bytes == best.ram_bytes
    assert (tmp_path / "best" / "model.tflite").stat().st_size == best.flash_bytes
    # The trial's LiteRT reference kernels round a few scores another way than TFLM.
    assert report.accuracy.int8 == pytest.approx(best.int8_accuracy, abs=0.011)
    assert report.accuracy.images == 100
    assert [(t.flash_bytes, t.ram_bytes, t.int8_accuracy) for t in report.trials] == [
        (r.flash_bytes, r.ram_bytes, r.int8_accuracy) for r in tuner.results()
    ]
    assert check_folder(tmp_path / "best") == ()


def test_the_best_model_is_as_it_was_trained(tuner):
    # KerasTuner's best: among equals, not always the first of ours.
    (best_trial,) = tuner.oracle.get_best_trials()
    (best,) = [r for r in tuner.results() if r.trial_id == best_trial.trial_id]
    model = tuner.get_best_models()[0]
    images, labels = small_search.digits()
    seen = tuner._data[1].arrays(best.levers.resolution)[0]
    predicted = model.predict(seen.astype("float32"), verbose=0).argmax(axis=-1)
    accuracy = np.mean(predicted == labels[400:])
    assert accuracy == pytest.approx(best.val_accuracy[-1], abs=1e-6)
    assert len(images) == 500


def test_keras_tuners_own_summaries_work(tuner, capsys):
    tuner.results_summary()
    tuner.search_space_summary()
    printed = capsys.readouterr().out
    assert "omv_int8_accuracy" in printed
    assert "resolution (Choice)" in printed
    values = tuner.get_best_hyperparameters()[0]
    built = tuner.hypermodel.build(values)
    assert float(built.optimizer.learning_rate) == pytest.approx(0.003)


def test_metrics_are_there_for_any_objective(tuner):
    metrics = tuner.oracle.get_best_trials()[0].metrics.metrics
    assert {"val_accuracy", "omv_int8_accuracy", "omv_latency_ms"} <= set(metrics)


def test_each_trial_writes_tensorboard_logs_of_its_own(tuner, folder):
    for result in tuner.results():
        logs = EventAccumulator(str(folder / "logs" / result.trial_id / "validation"))
        logs.Reload()
        assert len(logs.Tags()["tensors"]) > 0


def test_later_trials_start_from_earlier_ones_that_are_wider(tuner):
    by_id = {result.trial_id: result for result in tuner.results()}
    started = [r for r in by_id.values() if r.started_from]
    assert started
    for result in started:
        source = by_id[result.started_from].levers
        assert source.alpha >= result.levers.alpha
        assert source.depth >= result.levers.depth


def test_the_front_is_exported_folder_by_folder(tuner, tmp_path):
    names = list("0123456789")
    reports = tuner.export_pareto(tmp_path, cost="latency_ms", class_names=names)
    front = tuner.pareto("latency_ms")
    assert len(reports) == len(front) >= 1
    assert {path.name for path in tmp_path.iterdir()} == {r.name for r in front}


def test_made_again_it_goes_on_without_training(tuner, folder, monkeypatch):
    again = small_search.make(str(folder))
    monkeypatch.setattr(trials, "fit", None)  # It must not be called.
    small_search.search(again)
    assert again.results() == tuner.results()


def test_labels_are_numbers_where_data_has_no_names(folder, tuner, tmp_path, caplog):
    again = small_search.make(str(folder))
    report = again.export_best(tmp_path / "best")
    assert report.class_names[:2] == ("class 0", "class 1")
    assert report.accuracy is None
    assert "The dataset has no class_names" in caplog.text


def test_more_trials_can_be_added_for_some_hours(tuner, folder, tmp_path):
    shutil.copytree(folder / "digits", tmp_path / "digits")
    more = small_search.make(str(tmp_path), max_trials=4)
    small_search.search(more, hours=0)
    assert len(more.results()) == 3
    # That was for one search; the next one has its own time.
    small_search.search(more, hours=1)
    assert len(more.results()) == 4


def test_hyperband_goes_on_with_its_best_trials(tmp_path):
    oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=3, seed=1)
    recipe = omv.Recipe(epochs=9, batch_size=100, flip=False)
    made = small_search.make(
        str(tmp_path), oracle=oracle, alphas=(0.05,), recipe=recipe
    )
    assert made.recipe.epochs == 3  # The oracle's, also for the learning rate.
    small_search.search(made)
    longer = [r for r in made.results() if r.initial_epoch > 0]
    assert longer
    for result in longer:
        assert result.started_from
        assert len(result.val_accuracy) == result.epochs - result.initial_epoch
    assert max(result.epochs for result in made.results()) == 3


def test_a_strategy_of_several_devices_trains_each_trial(tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    made = small_search.make(
        str(tmp_path), max_trials=1, distribution_strategy=strategy
    )
    small_search.search(made)
    assert made.results()[0].int8_accuracy > 0


def test_sparsity_and_rounding_in_training_can_be_searched(tmp_path):
    made = small_search.make(
        str(tmp_path),
        max_trials=1,
        sparsities=(0.5,),
        augmentations=("shift",),
        learning_rate=(1e-3, 1e-2),
        quantization_aware=True,
    )
    small_search.search(made)
    result = made.results()[0]
    assert result.training["sparsity"] == 0.5
    model = trials.load(made.runner.trial_folder(result.trial_id))
    head = model.get_layer("head").get_weights()[0]
    assert np.mean(head == 0) == pytest.approx(0.5, abs=0.01)


def test_a_trial_with_an_error_is_told_and_left_out(tmp_path, monkeypatch, caplog):
    made = small_search.make(str(tmp_path), max_trials=2)
    fit, calls = trials.fit, []

    def fails_first(*args, **options):
        calls.append(1)
        if len(calls) == 1:
            raise tf.errors.InvalidArgumentError(None, None, "image 7 is damaged")
        return fit(*args, **options)

    monkeypatch.setattr(trials, "fit", fails_first)
    small_search.search(made)
    assert len(made.results()) == 1
    assert "Trial 0 failed, the search goes on: image 7 is damaged" in caplog.text


def test_an_error_stops_the_search_where_that_is_asked(tmp_path, monkeypatch):
    made = small_search.make(str(tmp_path), on_trial_error="raise")

    def fails(*args, **options):
        raise tf.errors.InvalidArgumentError(None, None, "image 7 is damaged")

    monkeypatch.setattr(trials, "fit", fails)
    with pytest.raises(SearchError, match="Trial 0 failed: image 7 is damaged"):
        small_search.search(made)


def test_three_failures_in_a_row_stop_the_search(tmp_path, monkeypatch):
    made = small_search.make(str(tmp_path), max_trials=5)

    def fails(*args, **options):
        raise ValueError("no such layer")

    monkeypatch.setattr(trials, "fit", fails)
    with pytest.raises(SearchError, match=r"in a row that failed.*no such layer"):
        small_search.search(made)
    assert len(made.oracle.trials) == 3


def test_models_that_cannot_be_read_start_no_trial_and_stop_none(
    tuner, folder, tmp_path, caplog
):
    shutil.copytree(folder / "digits", tmp_path / "digits")
    more = small_search.make(str(tmp_path), max_trials=4)
    for result in more.results():
        model = more.runner.trial_folder(result.trial_id) / trials.MODEL_FILE
        model.write_bytes(model.read_bytes()[:1000])
    small_search.search(more)
    assert len(more.results()) == 4
    assert re.search(r"Trial \d starts nothing", caplog.text)


def test_a_full_disk_in_a_trial_stops_the_search(tmp_path, monkeypatch):
    made = small_search.make(str(tmp_path))

    def is_full(*args, **options):
        with open("/dev/full", "w") as full:
            full.write("weights")

    monkeypatch.setattr(trials, "save", is_full)
    with pytest.raises(SearchError, match=r"No space left.*finished trials are kept"):
        small_search.search(made)
    assert made.results() == ()


def test_where_nothing_fits_the_limits_and_other_cameras_are_named():
    with pytest.raises(BudgetError, match=r"(?s)flash.*as it is it fits openmv-"):
        omv.MobileNetV2Tuner(
            omv.Budget(flash_bytes=4096), classes=5, project_name="nothing"
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_trial_error": "stop"}, "'continue', 'raise'. Received: on_trial_error"),
        ({"trade_off": "ram"}, "'ram_bytes', .*Received: trade_off='ram'"),
        ({"trade_off": "macs", "oracle": "random"}, "our own oracle for a `trade_off`"),
        ({"max_trials": 0}, "Expected 1 or more. Received: max_trials=0"),
        ({"epochs": 0}, "at least one epoch"),
        ({"alphas": ()}, "Expected some alphas to search"),
        ({"resolutions": range(32, 30)}, "Expected some resolutions to search"),
        ({"max_latency_ms": 1e-6}, "the fastest that fits the budget takes"),
        (
            {"oracle": keras_tuner.oracles.RandomSearchOracle("val_loss")},
            "Invalid objective. Expected one of omv_int8_accuracy",
        ),
        (
            {"oracle": keras_tuner.oracles.HyperbandOracle(max_epochs=5), "epochs": 9},
            "the oracle's max_epochs, 5. Received: epochs=9",
        ),
    ],
)
def test_options_without_a_meaning_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        small_search.make(str(tmp_path), **options)
    assert not any(tmp_path.iterdir())


def test_without_data_to_judge_by_nothing_is_searched(tmp_path):
    images, labels = small_search.digits(20)
    made = small_search.make(str(tmp_path))
    with pytest.raises(DatasetError, match="validation_data to judge by"):
        made.search(images, labels)
    with pytest.raises(DatasetError, match="Expected labels 0 to 9"):
        made.search(images, labels + 1, validation_data=(images, labels))
    with pytest.raises(SearchError, match="Expected finished trials"):
        made.export_best(tmp_path / "best")


def test_a_strangers_result_is_taken_for_an_equal_training(tmp_path, tuner):
    made = small_search.make(str(tmp_path), max_trials=1)
    known = tuner.results()
    for result in known:
        write_result(made.runner.trial_folder(result.trial_id), result)
    small_search.search(made)
    assert read_result(made.runner.trial_folder("0")) in known


@pytest.mark.parametrize(
    ("accuracies", "stops"), [((0.1, 0.2, 0.2), 2), ((0.1, 0.6, 0.7), None)]
)
def test_a_training_behind_most_others_is_stopped(accuracies, stops):
    curves = [[0.2, 0.4, 0.6], [0.3, 0.5, 0.5], [0.1, 0.2, 0.9]]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    callback = StopBehind(curves, grace_epochs=2)
    callback.set_model(model)
    model.stop_training = False
    callback.on_train_begin()
    stopped = None
    for epoch, accuracy in enumerate(accuracies):
        callback.on_epoch_end(epoch, {"val_accuracy": accuracy})
        if model.stop_training and stopped is None:
            stopped = epoch + 1
    assert stopped == stops
    assert callback.stopped == (stops is not None)


def test_the_first_trainings_are_never_stopped():
    callback = StopBehind([[0.9], [0.9]], grace_epochs=1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    callback.set_model(model)
    model.stop_training = False
    callback.on_train_begin()
    callback.on_epoch_end(0, {"val_accuracy": 0.1})
    assert not model.stop_training


def test_trials_start_from_the_weights_of_the_user(tmp_path):
    wide = omv.MobileNetV2((16, 16, 1), classes=10, alpha=0.2, head_channels=64)
    made = small_search.make(str(tmp_path), max_trials=1, weights=wide)
    small_search.search(made)
    assert made.results()[0].started_from == "weights"


def test_weights_that_are_too_narrow_start_nothing(tmp_path, caplog):
    narrow = omv.MobileNetV2((16, 16, 1), classes=10, alpha=0.05, head_channels=8)
    made = small_search.make(str(tmp_path), max_trials=1, weights=narrow)
    small_search.search(made)
    assert made.results()[0].started_from == ""
    assert "too narrow" in caplog.text


def test_an_oracle_of_the_user_searches(tmp_path):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("omv_latency_ms", "min"), max_trials=1, seed=3
    )
    made = small_search.make(str(tmp_path), oracle=oracle)
    small_search.search(made)
    trial = made.oracle.get_best_trials()[0]
    assert trial.score == made.results()[0].latency_ms


def test_a_folder_of_images_is_searched(tmp_path):
    from PIL import Image

    images, labels = small_search.digits(60)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "images" / f"digit_{label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    made = small_search.make(str(tmp_path), max_trials=1)
    with pytest.raises(DatasetError, match=r"Expected 3 class folders\. Received: 10"):
        small_search.make(str(tmp_path), classes=3, project_name="three").search(
            tmp_path / "images", verbose=0
        )
    made.search(tmp_path / "images", verbose=0)
    report = made.export_best(tmp_path / "best")
    assert report.class_names[0] == "digit_0"
    labels_file = (tmp_path / "best" / "labels.txt").read_text()
    assert labels_file.startswith("digit_0")
