"""One picture: decoded, cut and scaled to the model's resolution as the camera would.

A photograph is first brought to the size of the window that main.py asks of the sensor
(240x240 for a square), averaging as optics and sensor do, and only then scaled with the
firmware's formula, which skips pixels. Scaling it in one step gives pictures unlike the
camera's: smoother where all pixels are averaged, rougher where pixels of a large
photograph are skipped. Small pictures are not enlarged first. This module imports no
TensorFlow.
"""

import pathlib

import numpy as np
from PIL import Image, ImageOps

from keras_omv.camera import FRAME, Size, resize_bilinear, see, window_size


def read_picture(
    path: pathlib.Path, *, size: Size, channels: int, rgb565: bool = False
) -> np.ndarray | str:
    """Return an image of shape `(height, width, channels)`, or why it has none.

    Args:
        path: A file that Pillow can decode.
        size: Height and width of the model's input.
        channels: 3, or 1 for grey as the camera computes it.
        rgb565: Whether colours also pass through the camera's 16 bits, so that the
            pixels are those that the model will get. Grey is exact either way.
    """
    try:
        with Image.open(path) as image:
            image.load()  # to the end: a truncated file fails here
            window = take_window(_to_rgb(ImageOps.exif_transpose(image)), size)
    except Exception as error:  # Pillow raises many kinds for broken files
        return f"{type(error).__name__}: {error}"
    if rgb565 or channels == 1:  # grey has no 16 bits to pass through
        picture: np.ndarray = see(window[np.newaxis], size, channels)[0]
        return picture
    return resize_bilinear(window, size)


def take_window(image: Image.Image, size: Size) -> np.ndarray:
    """Return what the sensor's window for a model of that size shows of a picture.

    Args:
        image: RGB.
        size: Height and width of the model's input.

    Returns:
        uint8 array of shape `(height, width, 3)`, at most as large as the window.
    """
    part = _cut(image, size)
    height, width = window_size(FRAME, size)
    if part.width > width or part.height > height:
        part = part.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(part)


def cut_and_scale(image: Image.Image, size: Size) -> np.ndarray:
    """Cut the largest centred part of the size's shape and scale it smoothly."""
    height, width = size
    part = _cut(image, size)
    return np.asarray(part.resize((width, height), Image.Resampling.BILINEAR))


def _cut(image: Image.Image, size: Size) -> Image.Image:
    height, width = window_size((image.height, image.width), size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return 8-bit RGB; what is transparent becomes white, like paper."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode.startswith("I"):  # 16 bits: keep the upper 8
        levels = np.clip(np.asarray(image, np.int32), 0, 0xFFFF) >> 8
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert("RGB")
