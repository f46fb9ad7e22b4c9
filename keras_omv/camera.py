"""What the firmware makes of a frame before the network sees it, bit for bit.

From the sensor's frame to the model's input the firmware does four things:

1. main.py has the sensor cut the largest window of the model's shape from the middle
   of its QVGA frame, 240x240 for a square.
2. The window is stored as RGB565 (5, 6 and 5 bits, the rest cut off) or as grey.
3. `draw_image` scales it bilinearly to the model's resolution, in integers, on those
   few bits. It reads four neighbours and no more: where it shrinks, it skips pixels.
4. RGB565 becomes 8 bits a channel again, and int8 models get `pixel - 128`.

Sources, read at OpenMV 5.0.0; the formulas are the same in 4.5.6, 4.7.0 and 4.8.1:
`imlib_draw_image` in `lib/imlib/draw.c` (positions: 3003, bilinear: 4788),
the colours in `lib/imlib/imlib.h` (296 to 322), `py_image_to_ndarray` in
`modules/py_image.c` and `Normalization` in `ml/preprocessing.py`.

This is the path in software, which all STM32F7, STM32H7 and i.MX RT cameras and the
AE3's small core take. The OpenMV N6 and the AE3's large core scale with their
graphics units (`ports/stm32/omv_gpu.c`, `ports/alif/omv_gpu.c`), whose filters are not
published: there the scaling is an approximation, the rest is the same.

What the sensor does (optics, exposure, noise) is no part of it.
"""

import operator

import numpy as np

Size = tuple[int, int]
"""Height and width in pixels."""

FRAME: Size = (240, 320)
"""The sensor's frame in main.py: QVGA."""

RGB565_BITS = np.array([5, 6, 5], np.uint8)
"""Bits of red, green and blue: `COLOR_R8_G8_B8_TO_RGB565`, OpenMV 5.0.0."""

RGB565_WEIGHT_BITS = 5
"""Bits of a neighbour's weight when RGB565 is scaled: `draw.c:4982`."""

GREY_WEIGHT_BITS = 8
"""Bits of a neighbour's weight when grey is scaled: `draw.c:4895`."""

GREY_WEIGHTS = (38, 75, 15)
"""Y = (38 R + 75 G + 15 B) >> 7: `COLOR_RGB888_TO_Y`, OpenMV 5.0.0."""
GREY_SHIFT = 7

_AT_ONCE = 32
"""Images worked on together: their pixels stay near the processor."""


def see(
    images: np.ndarray, resolution: int | Size, channels: int | None = None
) -> np.ndarray:
    """Return images as the model's input tensor has them, before `pixel - 128`.

    Example:
        >>> frames = np.zeros((2, 240, 320, 3), np.uint8)
        >>> see(frames, 96).shape
        (2, 96, 96, 3)

    Args:
        images: uint8 array of shape `(n, height, width, c)`, RGB or grey; of any
            size. The largest part of the model's shape is cut from the middle.
        resolution: Pixels of each side of the model's input, or `(height, width)`.
        channels: Channels of the model's input, 3 or 1; `None` takes the images'.

    Returns:
        uint8 array of shape `(n, height, width, channels)`. Images that have the
        model's resolution already only lose what RGB565 cannot hold.

    Raises:
        ValueError: If the images or an argument are not of that kind.
    """
    size = as_size(resolution)
    _check_images(images)
    channels = images.shape[-1] if channels is None else channels
    check_channels(channels)
    seen = np.empty((len(images), *size, channels), np.uint8)
    for start in range(0, len(images), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        seen[part] = _see(cut_window(images[part], size), size, channels)
    return seen


def _see(windows: np.ndarray, size: Size, channels: int) -> np.ndarray:
    if channels == 1:
        return resize_bilinear(to_grey(windows), size, weight_bits=GREY_WEIGHT_BITS)
    levels = to_rgb565(windows)
    small = resize_bilinear(levels, size, weight_bits=RGB565_WEIGHT_BITS)
    return from_rgb565(small)


def cut_window(images: np.ndarray, shape: Size) -> np.ndarray:
    """Cut the largest part of a shape from the middle, `(..., height, width, c)`."""
    height, width = window_size(images.shape[-3:-1], shape)
    top = (images.shape[-3] - height) // 2
    left = (images.shape[-2] - width) // 2
    return images[..., top : top + height, left : left + width, :]


def window_size(frame: tuple[int, ...], shape: Size) -> Size:
    """Return the height and width of the largest part of a frame that has a shape.

    It is what main.py asks of the sensor.

    Example:
        >>> window_size((240, 320), (96, 96))
        (240, 240)
    """
    (frame_height, frame_width), (height, width) = frame, shape
    return (
        max(1, min(frame_height, frame_width * height // width)),
        max(1, min(frame_width, frame_height * width // height)),
    )


def to_grey(images: np.ndarray) -> np.ndarray:
    """Return RGB as grey of shape `(..., 1)`; grey stays as it is.

    Reference:
        `COLOR_RGB888_TO_Y`, `lib/imlib/imlib.h:322`, OpenMV 5.0.0.
    """
    if images.shape[-1] == 1:
        return images
    red, green, blue = (images[..., i].astype(np.uint16) for i in range(3))
    weights = GREY_WEIGHTS  # they sum to 128: 16 bits hold the sum
    total = weights[0] * red + weights[1] * green + weights[2] * blue
    grey: np.ndarray = (total >> GREY_SHIFT).astype(np.uint8)
    return grey[..., np.newaxis]


def to_rgb565(images: np.ndarray) -> np.ndarray:
    """Return the levels 0 to 31, 63 and 31 of RGB565, each in a uint8 of its own.

    Example:
        >>> to_rgb565(np.array([255, 255, 15], np.uint8)).tolist()
        [31, 63, 1]

    Args:
        images: uint8 array of shape `(..., 3)`, or `(..., 1)` for the same grey in
            all three.

    Reference:
        `COLOR_R8_G8_B8_TO_RGB565`, `lib/imlib/imlib.h:320`, OpenMV 5.0.0: the low
        bits are cut off, not rounded.
    """
    return images >> (8 - RGB565_BITS)


def from_rgb565(levels: np.ndarray) -> np.ndarray:
    """Return the 8 bits of each channel that the model sees.

    Example:
        >>> from_rgb565(np.array([31, 63, 1], np.uint8)).tolist()
        [255, 255, 8]

    Args:
        levels: uint8 array of shape `(..., 3)`, as `to_rgb565` gives it.

    Reference:
        `COLOR_RGB565_TO_R8` and so on, `lib/imlib/imlib.h:296-316`, OpenMV 5.0.0:
        the highest bits fill the lowest.
    """
    return (levels << (8 - RGB565_BITS)) | (levels >> (2 * RGB565_BITS - 8))


def resize_bilinear(
    images: np.ndarray, size: Size, *, weight_bits: int = GREY_WEIGHT_BITS
) -> np.ndarray:
    """Scale by the firmware's bilinear formula, first along rows, then along columns.

    Each pass rounds `(a (w - f) + b f + w / 2) / w` down, where `w` is
    `2 ** weight_bits` and `f` the share of the second neighbour.

    Args:
        images: uint8 array of shape `(..., height, width, c)`.
        size: Height and width of the result.
        weight_bits: 8 as for grey, 5 as for the levels of RGB565.

    Returns:
        uint8 array of shape `(..., *size, c)`.

    Reference:
        `imlib_draw_image`, `lib/imlib/draw.c:4895-4945` and `4982-5050`, OpenMV 5.0.0.
    """
    sides = images.shape[-3:-1]
    if sides == size:  # copied without scaling
        return images
    is_nearest = min(sides) <= 1  # nothing to interpolate: draw.c:3031
    for axis, side, resolution in zip((-3, -2), sides, size, strict=True):
        points = sample_points(side, resolution, weight_bits, is_nearest)
        images = _mix(images, axis, *points, weight_bits)
    return images


def sample_points(
    side: int, resolution: int, weight_bits: int, is_nearest: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two neighbours of each pixel and the second one's weight.

    Pixel `i` is read at `i * side / resolution - 1/2`, in steps of 1/65536; beyond the
    edges the last pixel is repeated. It is not the middle of the pixel's area: shrunk
    images shift by `(side / resolution - 1) / 2` of the window's pixels.

    Reference:
        `lib/imlib/draw.c:3002-3011, 3031, 3284`, OpenMV 5.0.0, with the 32-bit floats
        of the source.
    """
    step = int(np.floor(np.float32(65536) / _scale(side, resolution)))
    positions = np.arange(resolution) * step - (0 if is_nearest else 32768)
    first = positions >> 16
    weights = (positions >> (16 - weight_bits)) & (2**weight_bits - 1)
    neighbours = (np.clip(index, 0, side - 1) for index in (first, first + 1))
    return (*neighbours, np.zeros_like(weights) if is_nearest else weights)


def _mix(
    images: np.ndarray,
    axis: int,
    first: np.ndarray,
    second: np.ndarray,
    weights: np.ndarray,
    weight_bits: int,
) -> np.ndarray:
    whole = 2**weight_bits  # at most 255 * 256 + 128: 16 bits hold the sum
    share = weights.astype(np.uint16).reshape(-1, *[1] * (-axis - 1))
    mixed: np.ndarray = images.take(first, axis) * (whole - share)
    mixed += images.take(second, axis) * share
    mixed += whole // 2
    return (mixed >> weight_bits).astype(np.uint8)


def drawn_px(side: int, resolution: int) -> int:
    """Return how many of a row's pixels the firmware draws: all, or one less.

    Rounding of 32-bit floats makes it stop one pixel early for some sizes, and the
    last row and column keep whatever was in memory. `see` fills them by the formula.

    Example:
        The resolutions up to 256 that a window of 240 pixels does not fill:

        >>> [r for r in range(1, 257) if drawn_px(240, r) < r]
        [63, 125, 126, 127, 250, 252, 254]

    Reference:
        `imlib_draw_image_scale_and_center_helper`, `lib/imlib/draw.c:2745`,
        OpenMV 5.0.0.
    """
    return int(np.floor(_scale(side, resolution) * np.float32(side)))


def _scale(side: int, resolution: int) -> np.float32:
    return np.float32(resolution) / np.float32(side)


def as_size(resolution: int | Size) -> Size:
    """Return height and width of a resolution.

    Raises:
        ValueError: If it is no positive integer and no pair of them.
    """
    sides = resolution if isinstance(resolution, tuple | list) else (resolution,) * 2
    try:
        height, width = map(operator.index, sides)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(
            f"Invalid value for argument `resolution`. Expected a positive integer or "
            f"(height, width). Received: {resolution!r}."
        )
    return height, width


def check_channels(channels: int) -> None:
    """Raises `ValueError` unless there are 1 or 3 channels."""
    if channels not in (1, 3):
        raise ValueError(
            f"Invalid value for argument `channels`. Expected: 3 for colour or 1 for "
            f"grey. Received: {channels!r}."
        )


def _check_images(images: np.ndarray) -> None:
    is_valid = images.dtype == np.uint8 and images.ndim == 4
    if not is_valid or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
        raise ValueError(
            f"Invalid value for argument `images`. Expected: uint8 of shape (n, "
            f"height, width, channels) with 1 or 3 channels. Received: {images.dtype} "
            f"of shape {images.shape}."
        )
