"""Examples of the documentation: found, made quick, and run on small data."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
_FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str]]:
    """Every fenced block, as its language and what it holds.

    Raises:
        ValueError: Where a fence is none of a block.
    """
    found = _FENCED.findall(text)
    if text.count("```") != 2 * len(found):
        raise ValueError(f"Expected pairs of fences. Received: {text}")
    return [(language, body) for _, language, body in found]


def run(block: str, names: dict[str, Any], quicker: Mapping[str, str]) -> None:
    """Runs a block of Python with the user's names, replacing what takes long."""
    for long, quick in quicker.items():
        block = block.replace(long, quick)
    exec(compile(block, "example", "exec"), names)
