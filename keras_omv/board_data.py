"""Reads boards.json: the cameras, and the memory that each firmware release gives them.

Each number there has the source file and line of the OpenMV firmware beside it. Sizes
are bytes. `keras_omv.boards` makes a `Board` of what is read here.
"""

import difflib
import functools
import importlib.resources
import json
from typing import Any

from keras_omv.memory import Memory

FRAME_POOL_OVERHEAD_BYTES = 4 * 1024
"""The pool allocator's control block and headers (common/umalloc.c:75)."""
AE3_SMALL_CORE = "openmv-ae3-he"
"""Runs what the large core sends it: not a camera of its own."""


def board_names() -> tuple[str, ...]:
    """Return our names of all cameras."""
    return tuple(name for name in _data() if name != AE3_SMALL_CORE)


def known_releases() -> tuple[str, ...]:
    """Return every release of which at least one camera is known, oldest first."""
    releases = {release for entry in _data().values() for release in entry["firmware"]}
    return tuple(
        sorted(releases, key=lambda release: [int(n) for n in release.split(".")])
    )


def full_release(firmware: str) -> str:
    """Return a release as the tables have it.

    Example:

    >>> full_release("5.0"), full_release("v4.8.1")
    ('5.0.0', '4.8.1')
    """
    release = firmware.lower().removeprefix("v")
    return release if release.count(".") > 1 else release + ".0"


def attributes_of(name: str, firmware: str) -> dict[str, Any]:
    """Return the attributes of a `Board`.

    Args:
        name: Our name or the firmware's target name, in any case.
        firmware: A release such as `"5.0"`, `"5.0.0"` or `"v4.8.1"`.

    Raises:
        ValueError: For an unknown camera or release, with those that are known.
    """
    known = _known_name(name)
    entry = _data()[known]
    firmware = _known_release(known, entry, firmware)
    release = entry["firmware"][firmware]
    romfs = release["romfs"] or {"bytes": 0, "stock_bytes": None, "source": "none"}
    return {
        "name": known,
        **{key: entry[key] for key in ("target", "title", "mcu", "core", "clock_hz")},
        "npu": entry["npu"],
        "firmware": firmware,
        "heap": tuple(map(_make_memory, release["heap"])),
        "frame_pools": tuple(map(_make_memory, release["frame_pools"])),
        "romfs_bytes": romfs["bytes"],
        "romfs_stock_bytes": romfs["stock_bytes"],
        "flash_fs_bytes": entry["flash_fs"]["bytes"],
        "has_sd_card": entry["has_sd_card"],
        "sources": (romfs["source"], entry["flash_fs"]["source"], entry["source"]),
    }


@functools.cache
def _data() -> dict[str, Any]:
    text = importlib.resources.files("keras_omv").joinpath("boards.json").read_text()
    boards: dict[str, Any] = json.loads(text)["boards"]
    return boards


def _known_name(name: str) -> str:
    targets = {entry["target"].lower(): ours for ours, entry in _data().items()}
    names = {**targets, **{ours: ours for ours in _data()}}
    if name.lower() in names:
        return names[name.lower()]
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    nearest = dict.fromkeys(names[match] for match in near)
    hint = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
    raise ValueError(
        f"Unknown camera. Expected one of {', '.join(board_names())} or a firmware "
        f"target such as OPENMV4P. Received: {name!r}. {hint}"
        f"Next step: `keras-omv boards` lists them all."
    )


def _known_release(name: str, entry: dict[str, Any], firmware: str) -> str:
    release = full_release(firmware)
    if release in entry["firmware"]:
        return release
    raise ValueError(
        f"Unknown firmware of {name}. Expected one of "
        f"{', '.join(entry['firmware'])}. Received: {firmware!r}. "
        f"Next step: take the release nearest to the camera's."
    )


def _make_memory(block: dict[str, Any]) -> Memory:
    return Memory(
        name=block["memory"],
        size_bytes=block["bytes"],
        pool_bytes=block.get("pool_bytes", block["bytes"] - FRAME_POOL_OVERHEAD_BYTES),
        source=block["source"],
        flags=block.get("flags", "0"),
    )
