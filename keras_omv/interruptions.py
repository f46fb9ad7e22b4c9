"""What ends a search before its time, in words; and which process of it this is."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

import keras_tuner

from keras_omv.errors import SearchError

_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StoppedError(SearchError, keras_tuner.errors.FatalError):
    """An error in a trial that ends the search: KerasTuner goes on after others."""


def tuner_id() -> str:
    """KerasTuner's name of this process."""
    return os.environ.get("KERASTUNER_TUNER_ID", "tuner0")


def is_chief() -> bool:
    """Whether this process only serves the oracle to workers."""
    return "KERASTUNER_ORACLE_IP" in os.environ and "chief" in tuner_id()


def is_worker() -> bool:
    """Whether the oracle is in another process."""
    return "KERASTUNER_ORACLE_IP" in os.environ and not is_chief()


def is_full_disk(error: BaseException) -> bool:
    """Whether an error says that there is no room; also TensorFlow's and HDF5's."""
    return getattr(error, "errno", None) in _FULL_DISK or "No space left" in str(error)


def full_disk(folder: pathlib.Path, error: BaseException) -> str:
    """What to tell of it."""
    return (
        f"Expected room in {folder}. Received: {error}. Next step: free some space and "
        "run the search again; finished trials are kept."
    )


@contextlib.contextmanager
def in_words(folder: pathlib.Path) -> Iterator[None]:
    """Puts what ends KerasTuner's loop into words.

    Args:
        folder: The project's.

    Raises:
        SearchError: For a full disk.
    """
    try:
        yield
    except SearchError:
        raise
    except Exception as error:
        if is_full_disk(error):
            raise SearchError(full_disk(folder, error)) from error
        raise
