"""What the commands share: JSON on the screen, and TensorFlow without its chatter."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from keras_omv.progress import working


def print_json(content: Any, console: Console) -> None:
    """Print plain data as JSON."""
    console.print_json(json.dumps(content))


@contextlib.contextmanager
def quiet_tensorflow(title: str = "Loading TensorFlow") -> Iterator[None]:
    """Imports TensorFlow without the lines that it writes to stderr itself.

    Args:
        title: What the progress bar says, which still gets through.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.stderr is not None:
        sys.stderr.flush()
    encoding = getattr(sys.stderr, "encoding", None)
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        with (
            open(stderr, "w", encoding=encoding, closefd=False) as file,
            working(title, file=file),
        ):
            os.dup2(null, 2)
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(null)
        os.close(stderr)
