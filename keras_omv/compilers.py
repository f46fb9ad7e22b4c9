"""Runs the compiler of an NPU's maker in a process of its own.

This module imports no TensorFlow.
"""

import pathlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence

_DETAIL_CHARACTERS = 400


def failure_of(
    words: Sequence[str],
    folder: pathlib.Path,
    *,
    limit_seconds: float,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program and return why it failed, `""` where it did not.

    Args:
        words: The program and its arguments.
        folder: Where it runs.
        limit_seconds: How long it may take.
        environment: Its environment variables. Defaults to `None`: ours.
    """
    try:
        done = subprocess.run(
            [shutil.which(words[0]) or words[0], *words[1:]],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_seconds,
        )
    except subprocess.TimeoutExpired:
        return f"no answer after {limit_seconds} seconds"
    except OSError as error:
        return f"no program that starts: {error}"
    if not done.returncode:
        return ""
    lines = (done.stdout + done.stderr).split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"exit code {done.returncode}: {said[:_DETAIL_CHARACTERS]}"
