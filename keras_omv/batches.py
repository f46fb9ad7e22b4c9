"""Batches of images from whatever `model.fit` takes."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_omv.sampling import spread_places

CALIBRATION_IMAGES = 512
"""How many images activation ranges are taken from."""


def batches_of(
    data: Any, *, batch_size: int = 32, limit: int = CALIBRATION_IMAGES
) -> Iterator[Any]:
    """Batches of images from whatever `model.fit` takes.

    Args:
        data: Images of shape `(n, height, width, channels)`, a pair of images and
            labels, or a dataset (tf.data, PyDataset, generator) of batches of either.
        batch_size: Of arrays.
        limit: How many images are taken: of arrays, spread over all of them, which
            may be sorted by class; of a dataset the first.

    Yields:
        Arrays or tensors of shape `(batch, height, width, channels)`.
    """
    seen = 0
    for batch in _batches(data, batch_size, limit):
        images = batch[0] if isinstance(batch, tuple | list) else batch
        yield images[: limit - seen]
        seen += int(images.shape[0])
        if seen >= limit:
            return


def _batches(data: Any, batch_size: int, limit: int) -> Iterator[Any]:
    if isinstance(data, keras.utils.PyDataset):
        return (data[index] for index in range(len(data)))
    if isinstance(data, tf.data.Dataset | Iterator):
        return iter(data)
    is_pair = isinstance(data, tuple | list) and np.ndim(data[0]) != 3
    images = np.asarray(data[0] if is_pair else data)
    chosen = spread_places(len(images), limit)
    starts = range(0, len(chosen), batch_size)
    return (images[chosen[start : start + batch_size]] for start in starts)
