"""Of several models the one ships that the camera computes best."""

import dataclasses

import exports
import numpy as np
import pytest

import keras_omv as omv
from keras_omv import candidates
from keras_omv.candidates import CALIBRATED, TRAINED, Candidate, choose
from keras_omv.evaluation import DeviceRun
from keras_omv.verify import Scores


@pytest.fixture(scope="module")
def models():
    return {"poor": exports.make_model(2, knows=False), "good": exports.make_model(6)}


@pytest.fixture(scope="module")
def several(models, tmp_path_factory):
    """An export of both."""
    return exports.make_export(tmp_path_factory.mktemp("several") / "out", models)


@pytest.fixture(scope="module")
def rounded():
    """A model that was trained with rounding."""
    qat = omv.QuantizationAwareTraining(start_epoch=1)
    return exports.make_model(callbacks=[qat])


def answers(right, count=100):
    """A run that gets the given images right."""
    labels = np.zeros(count, "int64")
    values = np.tile(np.array([[-128, 127]], "int8"), (count, 1))
    values[list(right)] = [127, -128]
    pixels = np.zeros((count, 1, 1, 3), "uint8")
    return DeviceRun(None, pixels, labels, Scores(values, "tflite_micro"))


def candidate(name, right, *, flash_bytes=1000, ram_bytes=1000, board=None):
    """A candidate of a size that gets the given images right."""
    board = board or omv.Budget(flash_bytes=5000)
    cost = dataclasses.replace(
        omv.estimate(alpha=0.1, resolution=32, classes=2, board=board),
        flash_bytes=flash_bytes,
        ram_bytes=ram_bytes,
    )
    return Candidate(
        name=name,
        quantization=CALIBRATED,
        model=None,
        view=None,
        network=None,
        file=b"",
        cost=cost,
        fit=board.fit(cost),
        run=answers(right),
    )


def test_the_most_accurate_ships_whatever_its_size():
    small = candidate("small", range(60), flash_bytes=500)
    large = candidate("large", range(90))
    chosen, why = choose([small, large])
    assert chosen is large
    assert "large (calibrated) ships" in why
    assert "most often" in why
    assert "90.0%" in why


def test_of_equals_within_the_noise_the_smaller_ships():
    # 9 images against 6: a difference of 3, one standard error is the root of 15.
    best = candidate("best", range(90))
    equal = candidate("equal", [*range(81), *range(90, 96)], flash_bytes=900)
    chosen, why = choose([best, equal])
    assert chosen is equal
    assert "within the noise" in why
    assert "smaller" in why


def test_a_difference_beyond_the_noise_is_none_of_equals():
    # 9 against 4: 5 is more than the root of 13.
    best = candidate("best", range(90))
    worse = candidate("worse", [*range(81), *range(90, 94)], flash_bytes=900)
    assert choose([worse, best])[0] is best


def test_of_equals_of_one_size_the_first_ships():
    first, best = candidate("first", range(89)), candidate("best", range(90))
    chosen, why = choose([first, best])
    assert chosen is first
    assert "listed first" in why


def test_less_ram_decides_between_files_of_one_size():
    more, less = (candidate(f"{size}", range(90), ram_bytes=size) for size in (9, 8))
    assert choose([more, less])[0] is less


def test_what_does_not_fit_never_ships_while_something_does():
    best = candidate("best", range(100), flash_bytes=6000)
    fits = candidate("fits", range(50))
    chosen, why = choose([best, fits])
    assert chosen is fits
    assert "of the 2 candidates it alone fits the camera" in why
    others = [best, fits, candidate("smaller", range(40))]
    assert "of the 2 that fit" in choose(others)[1]


def test_where_plain_rounding_is_as_good_it_is_said():
    trained = dataclasses.replace(candidate("m", range(90)), quantization=TRAINED)
    chosen, why = choose([trained, candidate("m", range(89))])
    assert chosen is trained
    assert "Plain post-training quantization of the same weights is as accurate" in why
    assert "(89.0%)" in why
    _, why = choose([trained, candidate("m", range(60))])
    assert "Plain" not in why
    _, why = choose([trained, candidate("another", range(89))])
    assert "Plain" not in why


def test_one_candidate_is_no_choice():
    only = candidate("only", range(1))
    assert choose([only]) == (only, "")


def test_export_ships_the_better_model_and_tells_both(several):
    report = several.report
    poor, good = report.candidates
    assert (poor.name, good.name) == ("poor", "good")
    assert good.ships
    assert not poor.ships
    assert good.int8 == report.accuracy.int8 > poor.int8 + 0.1
    assert good.flash_bytes == report.cost.flash_bytes
    assert report.choice.startswith("good (calibrated) ships")


def test_a_list_of_models_is_named_by_position_and_may_hold_paths(tmp_path, models):
    path = tmp_path / "saved.keras"
    models["good"].save(path)
    report = exports.make_export(tmp_path / "out", [models["poor"], path]).report
    assert [one.name for one in report.candidates] == ["model 1", "model 2"]
    assert report.candidates[1].ships


def test_a_model_that_does_not_fit_is_listed_but_not_run(tmp_path, models):
    costs = {name: omv.estimate(model) for name, model in models.items()}
    budget = omv.Budget(flash_bytes=costs["good"].flash_bytes - 1)
    report = exports.make_export(tmp_path / "out", models, board=budget).report
    poor, good = report.candidates
    assert poor.ships
    assert (good.fits, good.int8) == (False, None)


def test_nothing_is_written_where_none_fits(tmp_path, models):
    with pytest.raises(omv.BudgetError, match="flash of at most 500 bytes"):
        exports.make_export(tmp_path / "out", models, board=omv.Budget(flash_bytes=500))
    assert list(tmp_path.iterdir()) == []


def test_several_models_need_images_to_choose_by(tmp_path, models):
    with pytest.raises(omv.DatasetError, match="choose among 2 models"):
        exports.make_export(tmp_path / "out", models, evaluation_data=None)


@pytest.mark.parametrize("nothing", [[], {}, ()])
def test_no_model_at_all_is_refused(tmp_path, nothing):
    with pytest.raises(omv.ExportError, match="at least one model"):
        omv.export(
            nothing, tmp_path / "out", board=exports.BOARD, class_names=exports.NAMES
        )


def test_training_with_rounding_is_compared_with_plain_quantization(tmp_path, rounded):
    report = exports.make_export(tmp_path / "out", rounded).report
    assert [one.quantization for one in report.candidates] == [TRAINED, CALIBRATED]
    trained, calibrated = report.candidates
    assert trained.flash_bytes == calibrated.flash_bytes
    assert report.quantization == (TRAINED if trained.ships else CALIBRATED)


def test_another_input_range_than_that_of_the_training_is_refused(tmp_path, rounded):
    with pytest.raises(ValueError, match=r"\(0.0, 255.0\), with which the model was"):
        exports.make_export(tmp_path / "out", rounded, input_range=(0, 1))
    options = {"input_range": (0, 255), "evaluation_data": None}
    report = exports.make_export(tmp_path / "out", rounded, **options).report
    assert report.input_range == (0, 255)


def test_several_candidates_say_that_their_accuracy_is_of_the_images_that_chose(
    tmp_path, models, several
):
    one = exports.make_export(tmp_path / "one", models["good"])
    for made, is_told in ((several, True), (one, False)):
        assert ("same that chose" in made.text("report.json")) == is_told
        assert ("images that chose" in made.text("report.html")) == is_told


def test_without_images_to_compare_by_the_trained_ranges_ship(tmp_path, rounded):
    report = exports.make_export(tmp_path / "out", rounded, evaluation_data=None).report
    (only,) = report.candidates
    assert (only.quantization, only.ships, report.choice) == (TRAINED, True, "")


def test_a_network_that_the_firmware_lacks_an_operator_for_is_refused(models):
    board = omv.get_board("openmv-h7", firmware="4.5.5")
    batches = [exports.make_images()[0]]
    options = {"board": board, "batches": batches, "input_range": None}
    (made,) = candidates.candidates_of("good", models["good"], compare=False, **options)
    assert made.network.ops[0].kind == "CONV_2D"
    pooled = exports.keras.Sequential(
        [
            exports.keras.Input((12, 12, 3)),
            exports.keras.layers.Conv2D(3, 3),
            exports.keras.layers.GlobalMaxPooling2D(),
            exports.keras.layers.Dense(3, activation="softmax"),
        ]
    )
    with pytest.raises(omv.ExportError, match="REDUCE_MAX"):
        candidates.candidates_of("pooled", pooled, compare=False, **options)
