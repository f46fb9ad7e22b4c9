"""The memory of a camera under one firmware release: its blocks and its drives.

Plain data, no cameras by name. Sizes are bytes; KiB is 1024.
"""

import dataclasses
import functools

SCRIPT_RESERVE_BYTES = 24 * 1024
"""Kept free in the first heap block: 18,912 bytes of script, imports and bytecode
(seen on an RT1062, forums.openmv.io/t/9790), TFLM's op resolver (4,080 bytes) and
interpreter (512 bytes), rounded up. A judgement, not a guarantee."""
SPILL_RESERVE_BYTES = 16 * 1024
"""Kept free in every later heap block, for what the first one cannot take."""
EXTERNAL_MEMORIES = frozenset(("DRAM", "PSRAM", "DDR"))


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """One block of the camera's memory.

    Attributes:
        name: The memory it lies in, such as `"DTCM"` or `"DRAM"`.
        size_bytes: Its raw size.
        pool_bytes: What can be used of it.
        source: File and line of the firmware's sources.
        flags: The frame-buffer allocator's attributes, such as `"UMA_FAST"`.
    """

    name: str
    size_bytes: int
    pool_bytes: int
    source: str
    flags: str = "0"

    @property
    def is_fast(self) -> bool:
        """Whether this is on-chip memory rather than external RAM."""
        return self.name not in EXTERNAL_MEMORIES


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The memory and the drives that one firmware release offers.

    Attributes:
        firmware: The release, such as `"5.0.0"`.
        heap: Garbage-collected blocks in the order they are searched.
        frame_pools: Where frame buffers, and large model files, live.
        romfs_bytes: The ROMFS partition; 0 where the firmware has none.
        romfs_stock_bytes: The models that come in it; `None` where unknown.
        flash_fs_bytes: The /flash drive.
        has_sd_card: Whether the camera itself has a slot.
    """

    firmware: str
    heap: tuple[Memory, ...]
    frame_pools: tuple[Memory, ...]
    romfs_bytes: int
    romfs_stock_bytes: int | None
    flash_fs_bytes: int
    has_sd_card: bool

    @property
    def release(self) -> tuple[int, ...]:
        """The firmware's numbers, for comparisons."""
        return _release(self.firmware)

    @property
    def arena_extra_bytes(self) -> int:
        """What the release adds to the arena (TF_ARENA_EXTRA of its backend)."""
        if self.release >= (4, 6):
            return 512
        return 0 if self.release >= (4, 5, 9) else 1024

    def reserve_bytes(self, memory: Memory) -> int:
        """What is kept free in a heap block."""
        is_first = memory is self.heap[0]
        return SCRIPT_RESERVE_BYTES if is_first else SPILL_RESERVE_BYTES


@functools.cache
def _release(firmware: str) -> tuple[int, ...]:
    return tuple(int(part) for part in firmware.split("."))
