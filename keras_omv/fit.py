"""The fit rule: where the firmware finds room for a model's file and its arena.

Follows firmware 5.0.0: `lib/tflm/tflm_backend.cc:243-266` (the arena),
`modules/py_ml.c:352-379` (the weights), `common/umalloc.c` and
`common/omv_csi.c:1341-1371` (the frame buffers); older releases where they differ.
Knows blocks of memory and drives, not cameras by name. Sizes are bytes.
"""

import dataclasses
import operator
from collections.abc import Iterator

from keras_omv.memory import Layout, Memory
from keras_omv.units import format_bytes

ROMFS_OVERHEAD_BYTES = 1024
"""Labels, directory records and 32-byte alignment (tools/mkromfs.py:60-80)."""
FLASH_FS_OVERHEAD_BYTES = 8 * 1024
"""main.py, labels and the file system's own tables on the /flash drive."""
SD_CARD_BYTES = 1 << 32
"""No limit in practice: a file of FAT32, as cards are formatted."""
QVGA_FRAME_BYTES = 320 * 240 * 2
"""One 320x240 frame buffer; the camera driver needs at least one."""
COUNTED_EXTRA_BYTES = 512
"""What a model's RAM figure already counts of `Layout.arena_extra_bytes`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """Whether a model fits, from where, in which memory, and why.

    Attributes:
        fits: Whether the model loads and runs.
        storage: `"romfs"`, `"flash"` or `"sdcard"`; `""` for a plain budget.
        arena_memory: The memory block of the arena, `None` where it fits none.
        flash_limit_bytes: The largest model file that this storage takes.
        ram_limit_bytes: The largest arena beside this model file.
        reasons: Sentences for people: what is over, what goes where.
        replaces_stock_models: Whether ROMFS is known to have room only where the
            camera's own models, or some of them, go.
        flash_over_bytes: By how much the file is too large; 0 where it is not.
        ram_over_bytes: By how much the arena is too large; 0 where it is not.
    """

    fits: bool
    storage: str
    arena_memory: str | None
    flash_limit_bytes: int | None
    ram_limit_bytes: int | None
    reasons: tuple[str, ...] = ()
    replaces_stock_models: bool = False
    flash_over_bytes: int = 0
    ram_over_bytes: int = 0

    @property
    def over(self) -> tuple[str, ...]:
        """Sentences for people: what is over, and by how much."""
        return (
            *_over("flash", self.flash_over_bytes, self.flash_limit_bytes),
            *_over("RAM", self.ram_over_bytes, self.ram_limit_bytes),
        )


def compare(
    flash_bytes: int,
    ram_bytes: int,
    *,
    flash_limit_bytes: int | None,
    ram_limit_bytes: int | None,
) -> Fit:
    """Compare two sizes with two limits, `None` for no limit."""
    flash_over_bytes = _excess(flash_bytes, flash_limit_bytes)
    ram_over_bytes = _excess(ram_bytes, ram_limit_bytes)
    verdict = Fit(
        fits=flash_over_bytes == ram_over_bytes == 0,
        storage="",
        arena_memory=None,
        flash_limit_bytes=flash_limit_bytes,
        ram_limit_bytes=ram_limit_bytes,
        flash_over_bytes=flash_over_bytes,
        ram_over_bytes=ram_over_bytes,
    )
    return (
        verdict if verdict.fits else dataclasses.replace(verdict, reasons=verdict.over)
    )


def simulate(
    layout: Layout,
    flash_bytes: int,
    ram_bytes: int,
    *,
    frame_bytes: int = QVGA_FRAME_BYTES,
) -> Fit:
    """Simulate loading a model: ROMFS first, then a file.

    Args:
        layout: The camera's memory and drives.
        flash_bytes: The model file's size.
        ram_bytes: The arena, as firmware 5.0's `ml.Model(...).ram` reports it.
        frame_bytes: One frame buffer that must remain.

    Returns:
        The verdict of the first way that takes the model, or else of the way that
        it exceeds least.
    """
    arena_bytes = ram_bytes - COUNTED_EXTRA_BYTES + layout.arena_extra_bytes
    tried = []
    for plan in _plans(layout, flash_bytes, frame_bytes):
        over_bytes = plan.over(flash_bytes, arena_bytes)
        if not over_bytes:
            return plan.verdict(flash_bytes, arena_bytes)
        tried.append((over_bytes, plan))
    _, nearest = min(tried, key=operator.itemgetter(0))
    return nearest.verdict(flash_bytes, arena_bytes)


def largest_file_bytes(layout: Layout) -> int:
    """Return the largest model file that any of the storages takes."""
    plans = _plans(layout, 0, QVGA_FRAME_BYTES)
    return max(plan.flash_limit_bytes for plan in plans)


def largest_arena_bytes(layout: Layout) -> int:
    """Return the largest arena, weights in ROMFS where the firmware has it."""
    plans = _plans(layout, 0, QVGA_FRAME_BYTES)
    return max(plan.ram_limit_bytes for plan in plans)


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """One way to store and load a model file, and the free runs that it leaves."""

    storage: str
    flash_limit_bytes: int
    runs: tuple[tuple[Memory, int], ...]
    note: str
    tried: str
    replaces_stock_models: bool = False

    @property
    def ram_limit_bytes(self) -> int:
        return max(0, *(free_bytes for _, free_bytes in self.runs))

    def over(self, flash_bytes: int, arena_bytes: int) -> int:
        flash_over_bytes = _excess(flash_bytes, self.flash_limit_bytes)
        return flash_over_bytes + _excess(arena_bytes, self.ram_limit_bytes)

    def verdict(self, flash_bytes: int, arena_bytes: int) -> Fit:
        sizes = compare(
            flash_bytes,
            arena_bytes,
            flash_limit_bytes=self.flash_limit_bytes,
            ram_limit_bytes=self.ram_limit_bytes,
        )
        first_fit = (memory for memory, free in self.runs if arena_bytes <= free)
        memory = next(first_fit, None)
        return dataclasses.replace(
            sizes,
            storage=self.storage,
            arena_memory=memory.name if memory else None,
            reasons=(
                (self.note, *_speed_reasons(self.runs, memory))
                if sizes.fits
                else (*sizes.reasons, f"The nearest way that was tried: {self.tried}.")
            ),
            replaces_stock_models=self.replaces_stock_models,
        )


def _plans(layout: Layout, file_bytes: int, frame_bytes: int) -> Iterator[_Plan]:
    """Yield the ways to load a file, the most convenient first."""
    yield from _romfs_plans(layout, frame_bytes)
    if layout.flash_fs_bytes:
        limit_bytes = layout.flash_fs_bytes - FLASH_FS_OVERHEAD_BYTES
        yield _file_plan(layout, "flash", limit_bytes, file_bytes, frame_bytes)
    if layout.has_sd_card:
        yield _file_plan(layout, "sdcard", SD_CARD_BYTES, file_bytes, frame_bytes)


def _romfs_plans(layout: Layout, frame_bytes: int) -> Iterator[_Plan]:
    if not layout.romfs_bytes:
        return
    limit_bytes = layout.romfs_bytes - ROMFS_OVERHEAD_BYTES
    runs = _arena_runs(layout, frame_bytes)
    if layout.romfs_stock_bytes is not None:
        kept_bytes = max(0, limit_bytes - layout.romfs_stock_bytes)
        notes = _romfs_notes("beside the camera's own models")
        yield _Plan("romfs", kept_bytes, runs, *notes)
    notes = _romfs_notes("in place of the camera's own models")
    yield _Plan("romfs", limit_bytes, runs, *notes, replaces_stock_models=True)


def _romfs_notes(place: str) -> tuple[str, str]:
    """What there is room for; whether the models stay, who writes ROMFS decides."""
    note = f"ROMFS has room for it {place}; the weights take no RAM there."
    return note, f"ROMFS, {place}"


def _file_plan(
    layout: Layout, storage: str, limit_bytes: int, file_bytes: int, frame_bytes: int
) -> _Plan:
    rooms = [_heap_room(layout, memory) for memory in layout.heap]
    rooms += [_frame_room(pool, frame_bytes) for pool in layout.frame_pools]
    holder = _file_holder(layout, file_bytes, frame_bytes)
    runs = _arena_runs(layout, frame_bytes, holder, file_bytes)
    effect = _weights_effect(layout, holder, file_bytes)
    keyword = _load_keyword(layout, holder)
    note = f"Read from /{storage}{keyword}: {effect}."
    tried = f"a file on /{storage}{keyword}, where {effect.split(';')[0]}"
    return _Plan(storage, min(limit_bytes, max(rooms)), runs, note, tried)


def _heap_room(layout: Layout, memory: Memory) -> int:
    """Return the largest model file for a heap block: align32(size) + 31 bytes."""
    room_bytes = memory.pool_bytes - layout.reserve_bytes(memory) - 31
    return max(0, room_bytes // 32 * 32)


def _frame_room(pool: Memory, frame_bytes: int) -> int:
    """Return the largest model file for a frame-buffer pool.

    Model files may go to a fast or a generic pool, frame buffers to a generic one
    only; the allocator looks for a 32nd more than it is asked for (common/umalloc.c
    and TLSF's size classes).
    """
    if pool.flags == "0":
        return max(0, pool.pool_bytes * 32 // 33 - frame_bytes)
    is_usable = "UMA_FAST" in pool.flags and "UMA_TRANSIENT" not in pool.flags
    return pool.pool_bytes * 32 // 33 if is_usable else 0


def _file_holder(layout: Layout, file_bytes: int, frame_bytes: int) -> Memory | None:
    """Return the block a file is read into: heap first, then fast, then generic."""
    for memory in layout.heap:
        if 0 < file_bytes <= _heap_room(layout, memory):
            return memory
    for pool in sorted(layout.frame_pools, key=lambda pool: pool.flags == "0"):
        if 0 < file_bytes <= _frame_room(pool, frame_bytes):
            return pool
    return None


def _arena_runs(
    layout: Layout, frame_bytes: int, holder: Memory | None = None, file_bytes: int = 0
) -> tuple[tuple[Memory, int], ...]:
    """Return the free run of each block the arena may take, in search order."""
    if layout.release < (4, 5, 6):
        blocks = [(memory, frame_bytes) for memory in layout.frame_pools]
    else:
        blocks = [(memory, layout.reserve_bytes(memory)) for memory in layout.heap]
    held_bytes = file_bytes + 63
    return tuple(
        (memory, memory.pool_bytes - used_bytes - held_bytes * (memory is holder))
        for memory, used_bytes in blocks
    )


def _is_in_heap(layout: Layout, holder: Memory) -> bool:
    return any(holder is memory for memory in layout.heap)


def _load_keyword(layout: Layout, holder: Memory | None) -> str:
    if holder is None or _is_in_heap(layout, holder) or layout.release >= (5,):
        return ""
    return " with load_to_fb=True"


def _weights_effect(layout: Layout, holder: Memory | None, file_bytes: int) -> str:
    if holder is None:
        return "no block of memory takes the weights"
    if _is_in_heap(layout, holder):
        return f"the weights take {file_bytes:,} bytes of the heap"
    return (
        f"the weights take {file_bytes:,} bytes of the frame buffers' memory; load "
        f"the model before configuring the camera"
    )


def _speed_reasons(
    runs: tuple[tuple[Memory, int], ...], memory: Memory | None
) -> tuple[str, ...]:
    fast_bytes = max((free for block, free in runs if block.is_fast), default=0)
    if memory is None or memory.is_fast or fast_bytes <= 0:
        return ()
    return (
        f"The arena lies in {memory.name}, slow external memory; up to "
        f"{fast_bytes:,} bytes it would lie in fast memory.",
    )


def _excess(received_bytes: int, limit_bytes: int | None) -> int:
    return 0 if limit_bytes is None else max(0, received_bytes - limit_bytes)


def _over(what: str, over_bytes: int, limit_bytes: int | None) -> tuple[str, ...]:
    if not over_bytes or limit_bytes is None:
        return ()
    received_bytes = limit_bytes + over_bytes
    return (
        f"Expected {what} of at most {limit_bytes:,} bytes "
        f"({format_bytes(limit_bytes)}). Received: {received_bytes:,} bytes "
        f"({format_bytes(received_bytes)}), {over_bytes:,} bytes over.",
    )
