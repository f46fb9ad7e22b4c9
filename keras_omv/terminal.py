"""What the commands share: JSON on the screen, and TensorFlow without its chatter."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console


def print_json(content: Any, console: Console) -> None:
    """Print plain data as JSON."""
    console.print_json(json.dumps(content))


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Imports TensorFlow without the lines that it writes to stderr itself."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    stderr = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(null)
        os.close(stderr)
