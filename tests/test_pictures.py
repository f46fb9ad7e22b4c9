"""Pictures are cut and scaled as the camera would show them."""

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from keras_omv import camera
from keras_omv.pictures import read_picture, take_window


def photograph(side=427):
    image = Image.fromarray(datasets.load_sample_image("china.jpg"))
    return image.crop((100, 0, 527, 427)).resize((side, side))


@pytest.fixture
def save(tmp_path):
    def save(image):
        image.save(tmp_path / "x.png")
        return tmp_path / "x.png"

    return save


def distance(picture, other):
    return np.abs(picture.astype(int) - other).mean()


def test_a_photograph_is_brought_to_the_sensors_window():
    assert take_window(photograph(700), (96, 96)).shape == (240, 240, 3)
    assert take_window(photograph(700), (48, 96)).shape == (160, 320, 3)


def test_a_small_picture_is_not_enlarged_first():
    image = photograph(100)
    np.testing.assert_array_equal(take_window(image, (96, 96)), np.asarray(image))


@pytest.mark.parametrize("resolution", [48, 96, 224])
def test_a_frame_of_the_camera_is_scaled_by_the_firmwares_formula(save, resolution):
    frame = photograph(240)
    size = (resolution, resolution)
    for channels, pixels in ((3, frame), (1, camera.to_grey(np.asarray(frame)))):
        picture = read_picture(save(frame), size=size, channels=channels)
        expected = camera.resize_bilinear(np.asarray(pixels), size)
        np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_on_demand_the_pixels_are_those_that_the_model_gets(save, channels):
    frame = photograph(240)
    picture = read_picture(save(frame), size=(96, 96), channels=channels, rgb565=True)
    expected = camera.see(np.asarray(frame)[np.newaxis], 96, channels)[0]
    np.testing.assert_array_equal(picture, expected)


def test_grey_is_what_the_model_gets_without_asking(save):
    path = save(photograph(500))
    plain = read_picture(path, size=(96, 96), channels=1)
    exact = read_picture(path, size=(96, 96), channels=1, rgb565=True)
    np.testing.assert_array_equal(plain, exact)


@pytest.mark.parametrize("resolution", [48, 96, 160])
def test_training_pictures_are_nearer_the_cameras_than_in_one_step(save, resolution):
    image, size = photograph(), (resolution, resolution)
    optics = image.resize((240, 240), Image.Resampling.LANCZOS)
    shown = camera.see(np.asarray(optics)[np.newaxis], resolution)[0]
    averaged = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    skipped = camera.resize_bilinear(np.asarray(image), size)
    found = read_picture(save(image), size=size, channels=3)
    assert distance(found, shown) < 0.4 * distance(averaged, shown)
    assert distance(found, shown) < 0.6 * distance(skipped, shown)
