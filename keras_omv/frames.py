"""Frames that show whether a network looks at its input at all.

A trained classifier tells some of them apart. One whose weights the runtime does not
find, or whose arithmetic has collapsed, answers the same to all.
"""

from collections.abc import Iterator

import numpy as np

from keras_omv.network import Network, Tensor

_SEED = 0
_LEVELS = (0, 255, 64, 128)
_NOISES = 4
_PATCHES = 6
_PATCHES_A_SIDE = 4


def probe_inputs(network: Network) -> tuple[np.ndarray, ...]:
    """Return frames for each input of a network, the same ones on every call.

    They are plain ones from black to white, gradients, noise, and large patches of
    random colours, 16 in all.

    Args:
        network: The network, its inputs of any shape that holds something.

    Returns:
        Arrays of shape `(16, *input)` in the type of the input, images as the camera
        gives them.
    """
    return tuple(_frames(network.tensors[index]) for index in network.inputs)


def as_inputs(pixels: np.ndarray, dtype: str) -> np.ndarray:
    """Turn pixels into what the camera writes into an input.

    That is pixel - 128 as int8, the pixel as uint8 and, from firmware 4.8 on, 0 to 1
    as float32 (src/omv/modules/py_image.c:612-788).

    Args:
        pixels: Uint8 array of any shape.
        dtype: The input's type.
    """
    if dtype == "int8":
        return (pixels ^ np.uint8(0x80)).view("int8")
    if dtype == "float32":
        return pixels.astype("float32") / np.float32(255)
    return pixels.astype(dtype)


def _frames(source: Tensor) -> np.ndarray:
    """Draw frames; what is no image gets the pixels of one with a single row."""
    is_image = len(source.shape) == 4
    shape = source.shape[1:] if is_image else (1, int(np.prod(source.shape)), 1)
    frames = np.stack(list(_pixels(shape)))
    repeated = np.repeat(frames, source.shape[0] if is_image else 1, axis=0)
    return as_inputs(repeated.reshape(-1, *source.shape), source.dtype)


def _pixels(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Draw frames of shape `(height, width, channels)`."""
    random = np.random.default_rng(_SEED)
    height, width, _ = shape
    for level in _LEVELS:
        yield np.full(shape, level, "uint8")
    across = np.linspace(0, 255, width).astype("uint8")
    down = np.linspace(0, 255, height).astype("uint8")
    yield np.broadcast_to(across[None, :, None], shape)
    yield np.broadcast_to(down[:, None, None], shape)
    for _ in range(_NOISES):
        yield random.integers(0, 256, shape, "uint8")
    rows = np.arange(height) * _PATCHES_A_SIDE // height
    columns = np.arange(width) * _PATCHES_A_SIDE // width
    for _ in range(_PATCHES):
        patches = (_PATCHES_A_SIDE, _PATCHES_A_SIDE, shape[2])
        coarse = random.integers(0, 256, patches, "uint8")
        yield coarse[rows][:, columns]
