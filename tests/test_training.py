"""The default recipe's choices."""

import numpy as np
import pytest
import tensorflow as tf

import keras_omv as omv
from keras_omv import flatbuffer
from keras_omv.architecture import network_of_levers
from keras_omv.cost import cost_of
from keras_omv.images import load_digits
from keras_omv.recipe import Recipe, pruning_schedule, training_batches
from keras_omv.training import choose_levers


@pytest.mark.parametrize("name", omv.board_names())
def test_what_is_chosen_fits_the_board(name):
    board = omv.get_board(name)
    levers = choose_levers(board, classes=10)
    network = network_of_levers(levers)
    flash_bytes = len(flatbuffer.write(network))
    board.check(cost_of(network, flash_bytes=flash_bytes, board=board))


def test_the_resolution_does_not_exceed_the_images():
    board = omv.get_board("openmv-h7-plus")
    assert choose_levers(board, classes=2, image_side=50).resolution == 64
    assert choose_levers(board, classes=2, image_side=8).resolution == 48
    assert choose_levers(board, classes=2, image_side=500).resolution == 96


def test_levers_that_are_given_are_kept():
    board = omv.get_board("openmv-h7-plus")
    levers = choose_levers(board, classes=2, alpha=0.1, resolution=80)
    assert (levers.alpha, levers.resolution) == (0.1, 80)


def test_a_budget_that_nothing_fits_is_explained():
    with pytest.raises(omv.BudgetError, match=r"No MobileNetV2.*RAM"):
        choose_levers(omv.Budget(ram_bytes=2000), classes=2)


@pytest.mark.parametrize("lever", ["alpha", "resolution"])
def test_a_lever_of_zero_is_refused_and_not_taken_for_a_default(lever):
    with pytest.raises(ValueError, match=f"Received: {lever}=0"):
        choose_levers(omv.get_board("openmv-h7-plus"), classes=2, **{lever: 0})


def batches_of(data, recipe):
    pair = data.train_images, data.train_labels
    return training_batches(tf.data.Dataset.from_tensor_slices(pair), recipe)


def test_augmentation_is_seeded_and_keeps_pixels_in_range():
    data = load_digits(resolution=16)
    recipe = Recipe(flip=True)
    first, second = (
        np.concatenate([images.numpy() for images, _ in batches_of(data, recipe)])
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 255
    assert first.shape == data.train_images.shape


def test_without_augmentation_the_images_are_as_they_were():
    data = load_digits(resolution=16)
    dataset = batches_of(data, Recipe(flip=False, shift=0.0))
    images = np.concatenate([images.numpy() for images, _ in dataset])
    total = data.train_images.astype("float64").sum(axis=(1, 2, 3))
    assert sorted(images.astype("float64").sum(axis=(1, 2, 3))) == sorted(total)
    assert int(tf.data.experimental.cardinality(dataset)) == 23


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}])
def test_a_recipe_trains_something(options):
    with pytest.raises(ValueError, match="at least one epoch"):
        Recipe(**options)


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 24])
def test_pruning_ends_before_rounding_begins_however_short_the_training(epochs):
    recipe, steps = Recipe(epochs=epochs, sparsity=0.5), 8
    schedule = pruning_schedule(recipe, steps)
    rounding_step = recipe.start_epoch * steps or steps - 1
    assert 0 <= schedule.begin_step < schedule.end_step <= rounding_step
    assert float(schedule(rounding_step)[1]) == 0.5


def test_sparsity_is_a_share():
    with pytest.raises(ValueError, match=r"sparsity=1\.5"):
        Recipe(sparsity=1.5)


def test_rounding_begins_in_time():
    assert Recipe(epochs=24).start_epoch == 18
    assert Recipe(epochs=1).start_epoch == 0
