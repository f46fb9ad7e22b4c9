"""What every test starts from."""

import os

# Before TensorFlow is imported: its banners are not ours to test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest


@pytest.fixture(autouse=True)
def seed():
    """The same weights, images and augmentation in every run of a test."""
    import keras

    keras.utils.set_random_seed(0)
