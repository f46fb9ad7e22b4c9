"""Cameras, their firmware releases, and whether a model fits one.

The numbers are in boards.json, each with the source file and line of the OpenMV
firmware. The fit rule follows firmware 5.0.0: `lib/tflm/tflm_backend.cc:243-266`
(the arena), `modules/py_ml.c:352-379` (the weights), `common/umalloc.c` and
`common/omv_csi.c:1341-1371` (the frame buffers). Sizes are bytes; KiB is 1024.
"""

import dataclasses
import difflib
import functools
import importlib.resources
import json
from collections.abc import Iterator
from typing import Any, Protocol

from keras_omv.errors import BudgetError

SCRIPT_RESERVE_BYTES = 24 * 1024
"""Kept free in the first heap block: 18,912 bytes of script, imports and bytecode
(seen on an RT1062, forums.openmv.io/t/9790), TFLM's op resolver (4,080 bytes) and
interpreter (512 bytes), rounded up. A judgement, not a guarantee."""
SPILL_RESERVE_BYTES = 16 * 1024
"""Kept free in every later heap block, for what the first one cannot take."""
ROMFS_OVERHEAD_BYTES = 1024
"""Labels, directory records and 32-byte alignment (tools/mkromfs.py:60-80)."""
FLASH_FS_OVERHEAD_BYTES = 8 * 1024
"""main.py, labels and the file system's own tables on the /flash drive."""
FRAME_POOL_OVERHEAD_BYTES = 4 * 1024
"""The pool allocator's control block and headers (common/umalloc.c:75)."""
QVGA_FRAME_BYTES = 320 * 240 * 2
"""One 320x240 frame buffer; the camera driver needs at least one."""


class CostLike(Protocol):
    """Anything with the two sizes that decide whether a model fits."""

    @property
    def flash_bytes(self) -> int: ...
    @property
    def ram_bytes(self) -> int: ...


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
        return self.name not in ("DRAM", "PSRAM", "DDR")


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """Whether a model fits, from where, in which memory, and why.

    Attributes:
        fits: Whether the model loads and runs.
        storage: `"romfs"`, `"flash"` or `"sdcard"`; `""` for a plain budget.
        arena_memory: The memory block of the arena, `None` where it fits none.
        flash_limit_bytes: The largest model file that this storage takes.
        ram_limit_bytes: The largest arena beside this model file.
        reasons: Sentences for people: what goes where, what is over.
        replaces_stock_models: Whether the camera's own ROMFS models must go.
    """

    fits: bool
    storage: str
    arena_memory: str | None
    flash_limit_bytes: int | None
    ram_limit_bytes: int | None
    reasons: tuple[str, ...] = ()
    replaces_stock_models: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Budget:
    """Limits set by hand; goes wherever a `Board` does.

    Args:
        flash_bytes: The largest model file, `None` for no limit.
        ram_bytes: The largest arena as `ml.Model(...).ram` reports it, or `None`.
    """

    flash_bytes: int | None = None
    ram_bytes: int | None = None
    name: str = dataclasses.field(default="budget", init=False)
    core: str = dataclasses.field(default="cortex-m7", init=False)

    def __post_init__(self) -> None:
        for limit in (self.flash_bytes, self.ram_bytes):
            if limit is not None and limit <= 0:
                raise ValueError(
                    f"Invalid budget. Expected positive bytes or None. Received: "
                    f"flash_bytes={self.flash_bytes}, ram_bytes={self.ram_bytes}."
                )

    @property
    def label(self) -> str:
        """What messages call this budget."""
        return "the budget"

    @property
    def flash_limit_bytes(self) -> int | None:
        """The largest model file."""
        return self.flash_bytes

    @property
    def ram_limit_bytes(self) -> int | None:
        """The largest arena."""
        return self.ram_bytes

    def fit(self, cost: CostLike) -> Fit:
        """Compare a cost with the limits."""
        reasons = (
            *_over("flash", cost.flash_bytes, self.flash_bytes),
            *_over("RAM", cost.ram_bytes, self.ram_bytes),
        )
        return Fit(not reasons, "", None, self.flash_bytes, self.ram_bytes, reasons)

    def check(self, cost: CostLike) -> None:
        """Raise `BudgetError` where the cost is over a limit."""
        _check(self, cost)


@dataclasses.dataclass(frozen=True, slots=True)
class Board:
    """A camera with one firmware release.

    Attributes:
        name: Our name, such as `"openmv-h7"`.
        target: The firmware's name, such as `"OPENMV4"`.
        title: The name on the box.
        mcu: The microcontroller.
        core: `"cortex-m7"` or `"cortex-m55"`.
        clock_hz: The core's clock.
        npu: The neural accelerator, or `None`.
        firmware: The release, such as `"5.0.0"`.
        heap: Garbage-collected blocks in the order they are searched.
        frame_pools: Where frame buffers, and large model files, live.
        romfs_bytes: The ROMFS partition; 0 where the firmware has none.
        romfs_stock_bytes: The models that come in it; `None` where unknown.
        flash_fs_bytes: The /flash drive.
        has_sd_card: Whether the camera itself has a slot.
        sources: Where `romfs_bytes` and `flash_fs_bytes` come from.
    """

    name: str
    target: str
    title: str
    mcu: str
    core: str
    clock_hz: int
    npu: str | None
    firmware: str
    heap: tuple[Memory, ...]
    frame_pools: tuple[Memory, ...]
    romfs_bytes: int
    romfs_stock_bytes: int | None
    flash_fs_bytes: int
    has_sd_card: bool
    sources: tuple[str, ...]

    @property
    def label(self) -> str:
        """What messages call this camera."""
        return f"{self.name} (firmware {self.firmware})"

    @property
    def flash_limit_bytes(self) -> int:
        """The largest model file that any of the camera's storages takes."""
        return max(plan.flash_limit_bytes for plan in _plans(self, 0, QVGA_FRAME_BYTES))

    @property
    def ram_limit_bytes(self) -> int:
        """The largest arena, weights in ROMFS where the firmware has it."""
        return max(plan.ram_limit_bytes for plan in _plans(self, 0, QVGA_FRAME_BYTES))

    def fit(self, cost: CostLike, *, frame_bytes: int = QVGA_FRAME_BYTES) -> Fit:
        """Simulate loading a model: ROMFS first, then a file.

        Args:
            cost: The model's `flash_bytes` and `ram_bytes`.
            frame_bytes: One frame buffer that must remain, 2 bytes a pixel.
        """
        arena_bytes = cost.ram_bytes + _arena_extra_bytes(self) - 512
        plans = _plans(self, cost.flash_bytes, frame_bytes)
        plan = min(plans, key=lambda plan: plan.over(cost.flash_bytes, arena_bytes))
        return plan.verdict(self, cost.flash_bytes, arena_bytes)

    def check(self, cost: CostLike) -> None:
        """Raise `BudgetError` where the model does not fit the camera."""
        _check(self, cost)


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """One way to store and load a model file, and the free runs that it leaves."""

    storage: str
    flash_limit_bytes: int
    runs: tuple[tuple[Memory, int], ...]
    note: str
    replaces_stock_models: bool = False

    @property
    def ram_limit_bytes(self) -> int:
        return max(0, *(free_bytes for _, free_bytes in self.runs))

    def over(self, flash_bytes: int, arena_bytes: int) -> int:
        flash_over = max(0, flash_bytes - self.flash_limit_bytes)
        return flash_over + max(0, arena_bytes - self.ram_limit_bytes)

    def verdict(self, board: Board, flash_bytes: int, arena_bytes: int) -> Fit:
        first_fit = (memory for memory, free in self.runs if arena_bytes <= free)
        memory = next(first_fit, None)
        return Fit(
            fits=self.over(flash_bytes, arena_bytes) == 0,
            storage=self.storage,
            arena_memory=memory.name if memory else None,
            flash_limit_bytes=self.flash_limit_bytes,
            ram_limit_bytes=self.ram_limit_bytes,
            reasons=(
                *_over("flash", flash_bytes, self.flash_limit_bytes),
                *_over("RAM", arena_bytes, self.ram_limit_bytes),
                self.note,
                *_speed_reasons(self.runs, memory),
                *_npu_reasons(board),
            ),
            replaces_stock_models=self.replaces_stock_models,
        )


def board_names() -> tuple[str, ...]:
    """Return our names of all cameras."""
    return tuple(name for name in _data() if name != "openmv-ae3-he")


@functools.cache
def get_board(name: str, *, firmware: str = "5.0") -> Board:
    """Return a camera with one firmware release.

    Args:
        name: Our name or the firmware's target name, in any case;
            `"openmv-ae3-he"` is the AE3's small core.
        firmware: A release such as `"5.0"`, `"5.0.0"` or `"v4.8.1"`.

    Raises:
        ValueError: For an unknown camera or release, with those that are known.
    """
    known = _known_name(name)
    entry = _data()[known]
    release = firmware.lower().removeprefix("v")
    release = release if release.count(".") > 1 else release + ".0"
    if release not in entry["firmware"]:
        raise ValueError(
            f"Unknown firmware of {known}. Expected one of "
            f"{', '.join(entry['firmware'])}. Received: {firmware!r}. "
            f"Next step: take the release nearest to the camera's."
        )
    return _make_board(known, entry, release)


def format_bytes(count: int) -> str:
    """Return bytes as B, KiB or MiB of 1024, such as `"12.34 KiB"`."""
    if abs(count) < 1024:
        return f"{count} B"
    if abs(count) < 1024 * 1024:
        return f"{count / 1024:.2f} KiB"
    return f"{count / 1024 / 1024:.2f} MiB"


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


def _make_board(name: str, entry: dict[str, Any], firmware: str) -> Board:
    release = entry["firmware"][firmware]
    romfs = release["romfs"] or {"bytes": 0, "stock_bytes": None, "source": "none"}
    return Board(
        name=name,
        **{key: entry[key] for key in ("target", "title", "mcu", "core", "clock_hz")},
        npu=entry["npu"],
        firmware=firmware,
        heap=tuple(map(_make_memory, release["heap"])),
        frame_pools=tuple(map(_make_memory, release["frame_pools"])),
        romfs_bytes=romfs["bytes"],
        romfs_stock_bytes=romfs["stock_bytes"],
        flash_fs_bytes=entry["flash_fs"]["bytes"],
        has_sd_card=entry["has_sd_card"],
        sources=(romfs["source"], entry["flash_fs"]["source"]),
    )


def _make_memory(block: dict[str, Any]) -> Memory:
    return Memory(
        name=block["memory"],
        size_bytes=block["bytes"],
        pool_bytes=block.get("pool_bytes", block["bytes"] - FRAME_POOL_OVERHEAD_BYTES),
        source=block["source"],
        flags=block.get("flags", "0"),
    )


def _release(board: Board) -> tuple[int, ...]:
    return tuple(int(part) for part in board.firmware.split("."))


def _arena_extra_bytes(board: Board) -> int:
    """Return what the release adds to the arena (TF_ARENA_EXTRA of its backend)."""
    if _release(board) >= (4, 6):
        return 512
    return 0 if _release(board) >= (4, 5, 9) else 1024


def _plans(board: Board, file_bytes: int, frame_bytes: int) -> Iterator[_Plan]:
    """Yield the ways to load a file, the most convenient first."""
    yield from _romfs_plans(board, frame_bytes)
    if board.flash_fs_bytes:
        limit_bytes = board.flash_fs_bytes - FLASH_FS_OVERHEAD_BYTES
        yield _file_plan(board, "flash", limit_bytes, file_bytes, frame_bytes)
    if board.has_sd_card:
        yield _file_plan(board, "sdcard", 1 << 32, file_bytes, frame_bytes)


def _romfs_plans(board: Board, frame_bytes: int) -> Iterator[_Plan]:
    if not board.romfs_bytes:
        return
    limit_bytes = board.romfs_bytes - ROMFS_OVERHEAD_BYTES
    runs = _arena_runs(board, frame_bytes)
    if board.romfs_stock_bytes is not None:
        kept_bytes = max(0, limit_bytes - board.romfs_stock_bytes)
        note = "In ROMFS beside the camera's own models; the weights take no RAM."
        yield _Plan("romfs", kept_bytes, runs, note)
    note = "In ROMFS in place of the camera's own models; the weights take no RAM."
    yield _Plan("romfs", limit_bytes, runs, note, replaces_stock_models=True)


def _file_plan(
    board: Board, storage: str, limit_bytes: int, file_bytes: int, frame_bytes: int
) -> _Plan:
    rooms = [_heap_room(board, memory) for memory in board.heap]
    rooms += [_frame_room(pool, frame_bytes) for pool in board.frame_pools]
    holder = _file_holder(board, file_bytes, frame_bytes)
    runs = _arena_runs(board, frame_bytes, holder, file_bytes)
    note = _file_note(board, storage, holder, file_bytes)
    return _Plan(storage, min(limit_bytes, max(rooms)), runs, note)


def _reserve_bytes(board: Board, memory: Memory) -> int:
    return SCRIPT_RESERVE_BYTES if memory is board.heap[0] else SPILL_RESERVE_BYTES


def _heap_room(board: Board, memory: Memory) -> int:
    """Return the largest model file for a heap block: align32(size) + 31 bytes."""
    room_bytes = memory.pool_bytes - _reserve_bytes(board, memory) - 31
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


def _file_holder(board: Board, file_bytes: int, frame_bytes: int) -> Memory | None:
    """Return the block a file is read into: heap first, then fast, then generic."""
    for memory in board.heap:
        if 0 < file_bytes <= _heap_room(board, memory):
            return memory
    for pool in sorted(board.frame_pools, key=lambda pool: pool.flags == "0"):
        if 0 < file_bytes <= _frame_room(pool, frame_bytes):
            return pool
    return None


def _arena_runs(
    board: Board, frame_bytes: int, holder: Memory | None = None, file_bytes: int = 0
) -> tuple[tuple[Memory, int], ...]:
    """Return the free run of each block the arena may take, in search order."""
    held = {id(holder): file_bytes + 63}
    if _release(board) < (4, 5, 6):
        blocks = [(memory, frame_bytes) for memory in board.frame_pools]
    else:
        blocks = [(memory, _reserve_bytes(board, memory)) for memory in board.heap]
    return tuple(
        (memory, memory.pool_bytes - used_bytes - held.get(id(memory), 0))
        for memory, used_bytes in blocks
    )


def _file_note(
    board: Board, storage: str, holder: Memory | None, file_bytes: int
) -> str:
    start = f"Read from /{storage}"
    if holder is None:
        return f"{start}: no block of memory takes the weights."
    if any(holder is memory for memory in board.heap):
        return f"{start}: the weights take {file_bytes:,} bytes of the heap."
    keyword = "" if _release(board) >= (5,) else " with load_to_fb=True"
    return (
        f"{start}{keyword}: the weights take {file_bytes:,} bytes of the frame "
        f"buffers' memory; load the model before configuring the camera."
    )


def _over(what: str, received_bytes: int, limit_bytes: int | None) -> tuple[str, ...]:
    if limit_bytes is None or received_bytes <= limit_bytes:
        return ()
    return (
        f"Expected {what} of at most {limit_bytes:,} bytes "
        f"({format_bytes(limit_bytes)}). Received: {received_bytes:,} bytes "
        f"({format_bytes(received_bytes)}), {received_bytes - limit_bytes:,} bytes "
        f"over.",
    )


def _speed_reasons(
    runs: tuple[tuple[Memory, int], ...], memory: Memory | None
) -> tuple[str, ...]:
    fast_bytes = max((free for block, free in runs if block.is_fast), default=0)
    if memory is None or memory.is_fast or not fast_bytes:
        return ()
    return (
        f"The arena lies in {memory.name}, slow external memory; up to "
        f"{fast_bytes:,} bytes it would lie in fast memory.",
    )


def _npu_reasons(board: Board) -> tuple[str, ...]:
    if board.npu is None:
        return ()
    if board.name == "openmv-n6":
        return (
            "The N6 does not load a plain .tflite: compile it with ST Edge AI Core "
            "(stedgeai), which decides the RAM; the figure here is an estimate.",
        )
    return (
        f"A plain int8 .tflite runs on the CPU; compile it with vela to use the "
        f"{board.npu}.",
    )


def _check(board: Board | Budget, cost: CostLike) -> None:
    verdict = board.fit(cost)
    if verdict.fits:
        return
    over = " ".join(reason for reason in verdict.reasons if " over." in reason)
    raise BudgetError(
        f"The model does not fit {board.label}. {over} Next step: "
        f"{_next_step(cost, verdict)}"
    )


def _next_step(cost: CostLike, verdict: Fit) -> str:
    flash_limit_bytes, ram_limit_bytes = (
        verdict.flash_limit_bytes,
        verdict.ram_limit_bytes,
    )
    levers = []
    if ram_limit_bytes is not None and cost.ram_bytes > ram_limit_bytes:
        levers.append("a smaller resolution or alpha shrinks the RAM")
    if flash_limit_bytes is not None and cost.flash_bytes > flash_limit_bytes:
        levers.append("a smaller alpha or last convolution shrinks the flash")
    cameras = [name for name in board_names() if get_board(name).fit(cost).fits]
    where = f"as it is it fits {', '.join(cameras)}" if cameras else "no camera fits it"
    return f"{'; '.join(levers)}; {where}."
