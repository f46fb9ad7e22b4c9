"""One picture: decoded, cut and scaled to the model's resolution.

It is cut as main.py cuts the camera's: the largest window of the model's shape from
the middle. Grey follows the firmware's formula (`COLOR_RGB888_TO_Y`,
`lib/imlib/imlib.h:322`, OpenMV 5.0.0). This module imports no TensorFlow.
"""

import pathlib

import numpy as np
from PIL import Image, ImageOps

GREY_WEIGHTS = np.array([38, 75, 15], np.uint16)
"""Y = (38 R + 75 G + 15 B) >> 7: `COLOR_RGB888_TO_Y`, OpenMV 5.0.0."""
GREY_SHIFT = 7

Size = tuple[int, int]
"""Height and width in pixels."""


def read_picture(path: pathlib.Path, *, size: Size, channels: int) -> np.ndarray | str:
    """Return an image of shape `(height, width, channels)`, or why it has none."""
    try:
        with Image.open(path) as image:
            image.load()  # to the end: a truncated file fails here
            picture = cut_and_scale(_to_rgb(ImageOps.exif_transpose(image)), size)
    except Exception as error:  # Pillow raises many kinds for broken files
        return f"{type(error).__name__}: {error}"
    return _to_grey(picture) if channels == 1 else picture


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


def cut_and_scale(image: Image.Image, size: Size) -> np.ndarray:
    """Cut the largest centred part of the size's shape and scale it, bilinear."""
    height, width = size
    cut_width = max(1, min(image.width, image.height * width // height))
    cut_height = max(1, min(image.height, image.width * height // width))
    left = (image.width - cut_width) // 2
    top = (image.height - cut_height) // 2
    part = image.crop((left, top, left + cut_width, top + cut_height))
    return np.asarray(part.resize((width, height), Image.Resampling.BILINEAR))


def _to_grey(picture: np.ndarray) -> np.ndarray:
    weighted = picture.astype(np.uint16) @ GREY_WEIGHTS  # at most 128 * 255: 16 bits
    grey: np.ndarray = (weighted >> GREY_SHIFT).astype(np.uint8)
    return grey[..., np.newaxis]
