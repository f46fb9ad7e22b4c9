"""Which images stand for many. Imports no TensorFlow."""

import numpy as np


def spread_places(count: int, limit: int) -> np.ndarray:
    """Which of `count` images to take where `limit` are enough, int `(n,)`.

    Always the same, in their order, drawn from all of them: they may be sorted by
    class, or their classes may take turns.

    Args:
        count: How many images there are.
        limit: How many are taken at most.
    """
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, limit, replace=False))
