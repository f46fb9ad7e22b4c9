"""What every test starts from."""

import os

# Before TensorFlow is imported: its banners are not ours to test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import camera_runtime
import pytest


@pytest.fixture(autouse=True)
def seed():
    """The same weights, images and augmentation in every run of a test."""
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def micropython(pytestconfig, tmp_path_factory):
    """The command that runs MicroPython."""
    cache = getattr(pytestconfig, "cache", None)  # absent under -p no:cacheprovider
    folder = (cache.mkdir if cache else tmp_path_factory.mktemp)("micropython")
    try:
        return camera_runtime.micropython_command(folder)
    except camera_runtime.UnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must run MicroPython: {error}")
        pytest.skip(f"no MicroPython: {error}")


@pytest.fixture(scope="session")
def old_models(tmp_path_factory):
    """A folder with models that Keras 2 wrote, see old_keras.py."""
    import old_keras

    return old_keras.make(tmp_path_factory.mktemp("old_models"))
