"""The camera's arithmetic against the firmware's, derived by hand and by checksum."""

import subprocess
import sys
import zlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from keras_omv import camera

GREY = np.arange(256, dtype=np.uint8)[:, np.newaxis]


def pattern(height, width):
    """A picture with edges, ramps and every level."""
    y, x, c = np.ogrid[:height, :width, :3]
    values = (x * x * (c + 3) // 7 + y * (5 * c + 11) ^ x * y) % 256
    return values.astype(np.uint8)


def row_of(*levels):
    """A grey image of one row, twice: it is scaled along its columns only."""
    return np.array([levels, levels], np.uint8)[..., np.newaxis]


def scaled_row(levels, width, weight_bits):
    image = camera.resize_bilinear(row_of(*levels), (2, width), weight_bits=weight_bits)
    return image[0, :, 0].tolist()


# ------------------------------------------------------------------------ colours


@pytest.mark.parametrize(
    ("pixel", "levels", "seen"),
    [
        ((255, 255, 255), (31, 63, 31), (255, 255, 255)),
        ((7, 3, 7), (0, 0, 0), (0, 0, 0)),
        ((8, 4, 8), (1, 1, 1), (8, 4, 8)),
        # 200 = 0b11001000: 25, then 200 | 6. 100 = 0b01100100: 25, then 100 | 1.
        ((200, 100, 40), (25, 25, 5), (206, 101, 41)),
        ((128, 128, 128), (16, 32, 16), (132, 130, 132)),
    ],
)
def test_rgb565_cuts_bits_off_and_fills_them_with_the_highest(pixel, levels, seen):
    found = camera.to_rgb565(np.array(pixel, np.uint8))
    assert tuple(found) == levels
    assert tuple(camera.from_rgb565(found)) == seen


def test_what_went_through_rgb565_once_is_left_alone():
    once = camera.from_rgb565(camera.to_rgb565(GREY))
    np.testing.assert_array_equal(camera.from_rgb565(camera.to_rgb565(once)), once)
    assert len(np.unique(once[:, 0])) == 32
    assert len(np.unique(once[:, 1])) == 64


@pytest.mark.parametrize(
    ("pixel", "grey"),
    [
        ((255, 255, 255), 255),
        ((255, 0, 0), 75),  # 9690 / 128 = 75.7
        ((0, 255, 0), 149),  # 19125 / 128 = 149.4
        ((0, 0, 255), 29),  # 3825 / 128 = 29.9
        ((1, 2, 3), 1),  # 233 / 128 = 1.8
    ],
)
def test_grey_is_the_firmwares_weighted_sum_rounded_down(pixel, grey):
    assert camera.to_grey(np.array(pixel, np.uint8)).tolist() == [grey]


# ----------------------------------------------------------------------- positions


def test_a_window_of_240_is_read_at_every_second_and_a_half_pixel():
    first, second, weights = camera.sample_points(240, 96, 8, is_nearest=False)
    assert first[:4].tolist() == [0, 2, 4, 7]  # -0.5, 2, 4.5, 7
    assert second[:4].tolist() == [0, 3, 5, 8]
    assert weights[1:4].tolist() == [0, 128, 0]
    assert (first[-1], second[-1], weights[-1]) == (237, 238, 0)  # 95 * 2.5 - 0.5


def test_steps_are_rounded_down_as_32_bit_floats():
    # 65536 / (128 / 240) is 122880; in 32 bits the quotient falls just short of it.
    first, _, weights = camera.sample_points(240, 128, 8, is_nearest=False)
    position = 127 * 122879 - 32768
    assert (first[-1], weights[-1]) == (position >> 16, (position >> 8) & 255)


def test_beyond_the_edges_the_last_pixel_is_repeated():
    first, second, _ = camera.sample_points(2, 4, 8, is_nearest=False)
    assert first.tolist() == [0, 0, 0, 1]  # -0.5, 0, 0.5, 1
    assert second.tolist() == [0, 1, 1, 1]


def test_the_window_is_what_main_py_asks_for():
    assert camera.window_size(camera.FRAME, (96, 96)) == (240, 240)
    assert camera.window_size(camera.FRAME, (48, 96)) == (160, 320)
    assert camera.window_size((5, 9), (96, 32)) == (5, 1)


# ------------------------------------------------------------------------- scaling


def test_halves_are_rounded_up():
    assert scaled_row([0, 255], 4, 8) == [0, 0, 128, 255]  # 127.5
    assert scaled_row([0, 31], 4, 5) == [0, 0, 16, 31]  # 15.5


def test_grey_is_weighted_in_256ths_and_colours_in_32nds():
    # 3 pixels from 7: the third is read at 7 / 3 * 2 - 0.5 = 4 + 1 / 6, in steps of
    # 152917 / 65536: 42 / 256 and 5 / 32.
    levels = [0, 0, 0, 0, 0, 31, 31]
    assert scaled_row(levels, 3, 8)[2] == (31 * 42 + 128) >> 8
    assert scaled_row([level * 8 for level in levels], 3, 5)[2] == (248 * 5 + 16) >> 5


def test_rows_are_mixed_and_rounded_before_columns():
    # 7 rows to 3: 5 / 32 of the last two, as above. 2 columns to 4: half of both.
    image = np.zeros((7, 2, 1), np.uint8)
    image[5:, 1] = 30
    scaled = camera.resize_bilinear(image, (3, 4), weight_bits=5)
    assert scaled[2, 2, 0] == 3  # 4.7 -> 5, 2.5 -> 3; columns first: 15, 2.3 -> 2


def test_an_image_of_the_models_size_is_copied():
    image = pattern(9, 9)
    np.testing.assert_array_equal(camera.resize_bilinear(image, (9, 9)), image)


def test_an_image_of_one_row_is_not_interpolated():
    image = np.array([[[10], [200]]], np.uint8)
    assert camera.resize_bilinear(image, (1, 4))[0, :, 0].tolist() == [10, 10, 200, 200]


def test_shrinking_skips_pixels():
    stripes = row_of(*[0, 255, 0, 0] * 4)
    # 16 to 4 reads at -0.5, 3.5, 7.5 and 11.5: no stripe is ever met.
    assert camera.resize_bilinear(stripes, (2, 4))[..., 0].max() == 0


FIRMWARE_CHECKSUMS = [
    ((240, 240), (96, 96), 1243522446, 80588735),
    ((240, 240), (160, 160), 1355713206, 3645222085),
    ((240, 240), (224, 224), 1626069512, 1168419576),
    ((240, 240), (320, 320), 1642112255, 3254642281),
    ((240, 240), (63, 63), 1297874593, 820385268),
    ((100, 100), (96, 96), 2912616992, 4035540568),
    ((120, 160), (48, 64), 3488322208, 1076261486),
    ((7, 7), (23, 23), 43216903, 316176616),
    ((1, 9), (4, 36), 3360545671, 2773041350),
]
"""CRC-32 of what `draw.c` of OpenMV 5.0.0, compiled for a PC, drew of `pattern`."""


@pytest.mark.parametrize(("frame", "size", "colour", "grey"), FIRMWARE_CHECKSUMS)
def test_pixels_are_those_of_the_firmwares_draw_image(frame, size, colour, grey):
    drawn = tuple(map(camera.drawn_px, frame, size))
    for channels, checksum in ((3, colour), (1, grey)):
        seen = camera.see(pattern(*frame)[np.newaxis], size, channels)
        assert zlib.crc32(seen[0, : drawn[0], : drawn[1]].tobytes()) == checksum


# ------------------------------------------------------------------- whole images


def test_grey_is_taken_before_scaling():
    images = pattern(24, 24)[np.newaxis]
    expected = camera.resize_bilinear(camera.to_grey(images), (8, 8))
    np.testing.assert_array_equal(camera.see(images, 8, 1), expected)


def test_grey_images_become_grey_in_three_channels():
    images = pattern(24, 24)[np.newaxis, ..., :1]
    expected = camera.see(np.repeat(images, 3, axis=-1), 8)
    np.testing.assert_array_equal(camera.see(images, 8, 3), expected)
    assert camera.see(images, 8).shape == (1, 8, 8, 1)


def test_the_middle_of_a_wide_image_is_seen():
    image = np.zeros((1, 10, 30, 3), np.uint8)
    image[:, :, 10:20] = 255
    assert (camera.see(image, 5) == 255).all()


def test_the_model_sees_the_same_twice():
    once = camera.see(pattern(60, 60)[np.newaxis], 32)
    np.testing.assert_array_equal(camera.see(once, 32), once)


@hypothesis.given(
    level=st.integers(0, 255),
    frame=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    size=st.tuples(st.integers(1, 99), st.integers(1, 99)),
    channels=st.sampled_from([1, 3]),
)
@hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
def test_a_flat_image_stays_flat(level, frame, size, channels):
    images = np.full((1, *frame, 3), level, np.uint8)
    seen = camera.see(images, size, channels)
    assert seen.shape == (1, *size, channels)
    pixel = images[0, 0, 0]
    rgb565 = camera.from_rgb565(camera.to_rgb565(pixel))
    expected = pixel[:1] if channels == 1 else rgb565
    assert (seen == expected).all()


def test_many_images_are_each_seen_alone():
    images = np.random.default_rng(0).integers(0, 256, (70, 12, 12, 3), np.uint8)
    alone = np.concatenate([camera.see(images[i : i + 1], 5) for i in range(70)])
    np.testing.assert_array_equal(camera.see(images, 5), alone)
    assert camera.see(images[:0], 5).shape == (0, 5, 5, 3)


def test_resolutions_that_the_firmware_does_not_fill_are_known():
    unfilled = [r for r in range(1, 513) if camera.drawn_px(240, r) < r]
    assert unfilled[:7] == [63, 125, 126, 127, 250, 252, 254]
    assert all(camera.drawn_px(240, r) >= r - 1 for r in range(1, 513))
    assert all(camera.drawn_px(240, r) == r for r in range(32, 225, 16))


# -------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 4), np.uint8),
        np.zeros((2, 0, 4, 3), np.uint8),
    ],
)
def test_other_images_are_refused(images):
    with pytest.raises(ValueError, match=r"argument `images`.*uint8 of shape"):
        camera.see(images, 2)


@pytest.mark.parametrize("resolution", [0, -1, 4.5, "4", (4, 4, 3), (4, 0)])
def test_a_bad_resolution_is_refused(resolution):
    with pytest.raises(ValueError, match=r"argument `resolution`.*Received"):
        camera.see(np.zeros((1, 4, 4, 3), np.uint8), resolution)


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_bad_channels_are_refused(channels):
    with pytest.raises(ValueError, match=r"argument `channels`.*3 for colour"):
        camera.see(np.zeros((1, 4, 4, 3), np.uint8), 2, channels)


def test_the_arithmetic_loads_no_tensorflow():
    code = (
        "import sys, keras_omv.camera; "
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
