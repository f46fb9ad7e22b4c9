"""Cameras and their firmware releases, as data; budgets set by hand.

The numbers are in boards.json, see `keras_omv.board_data`; what they mean for a model
is in `keras_omv.fit`. Sizes are bytes.
"""

import dataclasses
import functools
import numbers
from typing import Any, Protocol

from keras_omv import board_data
from keras_omv.board_data import board_names as board_names
from keras_omv.board_data import known_releases as known_releases
from keras_omv.errors import BudgetError
from keras_omv.fit import (
    QVGA_FRAME_BYTES,
    Fit,
    compare,
    largest_arena_bytes,
    largest_file_bytes,
    simulate,
)
from keras_omv.memory import Layout

DEFAULT_FIRMWARE = "5.0"
"""The release that is meant where none is named."""
NEEDS_COMPILER = "openmv-n6"
"""Loads no plain .tflite (lib/stai/stai_backend.c:135 at v5.0.0)."""
_COMPILER_REASON = (
    "The N6 does not load a plain .tflite but what ST Edge AI Core (stedgeai) makes "
    "of it, which decides the RAM; the figure here is an estimate."
)


class CostLike(Protocol):
    """Anything with the two sizes that decide whether a model fits."""

    @property
    def flash_bytes(self) -> int: ...
    @property
    def ram_bytes(self) -> int: ...


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
            if limit is not None and not (_is_whole(limit) and limit > 0):
                raise ValueError(
                    f"Invalid budget. Expected positive bytes or None. Received: "
                    f"flash_bytes={self.flash_bytes!r}, ram_bytes={self.ram_bytes!r}. "
                    f"Next step: give whole bytes, and leave out what has no limit."
                )

    @property
    def label(self) -> str:
        """What messages call this budget."""
        return "the budget"

    @property
    def compresses_weights(self) -> bool:
        """Whether zeros among the weights make the file smaller: not on a CPU."""
        return False

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
        return compare(
            cost.flash_bytes,
            cost.ram_bytes,
            flash_limit_bytes=self.flash_bytes,
            ram_limit_bytes=self.ram_bytes,
        )

    def check(self, cost: CostLike) -> None:
        """Raise `BudgetError` where the cost is over a limit."""
        _check(self, cost)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Board(Layout):
    """A camera with one firmware release.

    Its memory and its drives are the attributes of `Layout`.

    Attributes:
        name: Our name, such as `"openmv-h7"`.
        target: The firmware's name, such as `"OPENMV4"`.
        title: The name on the box.
        mcu: The microcontroller.
        core: `"cortex-m7"` or `"cortex-m55"`.
        clock_hz: The core's clock.
        npu: The neural accelerator, or `None`.
        sources: Where `romfs_bytes`, `flash_fs_bytes`, and the core with its clock and
            accelerator come from.
    """

    name: str
    target: str
    title: str
    mcu: str
    core: str
    clock_hz: int
    npu: str | None
    sources: tuple[str, ...]

    @property
    def label(self) -> str:
        """What messages call this camera."""
        return f"{self.name} (firmware {self.firmware})"

    @property
    def compresses_weights(self) -> bool:
        """Whether zeros among the weights make the compiled file smaller.

        True where Vela compiles for an Ethos-U, which reads its weights compressed
        (Arm's "MLW" encoding; ethosu/vela/weight_compressor.py of ethos-u-vela).
        Everywhere else each weight takes its byte, whatever its value.
        """
        return self.npu is not None and self.npu.startswith("Ethos-U")

    @property
    def flash_limit_bytes(self) -> int:
        """The largest model file that any of the camera's storages takes."""
        return largest_file_bytes(self)

    @property
    def ram_limit_bytes(self) -> int:
        """The largest arena, weights in ROMFS where the firmware has it."""
        return largest_arena_bytes(self)

    def fit(self, cost: CostLike, *, frame_bytes: int = QVGA_FRAME_BYTES) -> Fit:
        """Simulate loading a model: ROMFS first, then a file.

        Args:
            cost: The model's `flash_bytes` and `ram_bytes`.
            frame_bytes: One frame buffer that must remain, 2 bytes a pixel.
        """
        sizes = (cost.flash_bytes, cost.ram_bytes)
        verdict = simulate(self, *sizes, frame_bytes=frame_bytes)
        if self.name == NEEDS_COMPILER:
            reasons = (_COMPILER_REASON, *verdict.reasons)
        elif self.npu is not None:
            reasons = (*verdict.reasons, _npu_reason(self.npu))
        else:
            return verdict
        return dataclasses.replace(verdict, reasons=reasons)

    def check(self, cost: CostLike) -> None:
        """Raise `BudgetError` where the model does not fit the camera."""
        _check(self, cost)


def as_board(board: Board | Budget | str) -> Board | Budget:
    """Return what a `board` argument stands for.

    Args:
        board: A `Board`, a `Budget`, or the name of a camera, which then has the
            newest firmware.

    Raises:
        ValueError: For an unknown camera, and for anything else.
    """
    if isinstance(board, Board | Budget):
        return board
    if isinstance(board, str):
        return get_board(board)
    raise ValueError(
        f"Invalid value received for argument `board`. Expected a board, a budget or "
        f"a camera's name. Received: board={board!r}. "
        f"Next step: board=omv.get_board('openmv-h7-plus')."
    )


def get_board(name: str, *, firmware: str = DEFAULT_FIRMWARE) -> Board:
    """Return a camera with one firmware release.

    Args:
        name: Our name or the firmware's target name, in any case;
            `"openmv-ae3-he"` is the AE3's small core.
        firmware: A release such as `"5.0"`, `"5.0.0"` or `"v4.8.1"`.

    Raises:
        ValueError: For an unknown camera or release, with those that are known.
    """
    for argument, value in (("name", name), ("firmware", firmware)):
        if not isinstance(value, str):
            raise ValueError(
                f"Invalid value received for argument `{argument}`. Expected a text. "
                f"Received: {argument}={value!r}. "
                f"Next step: omv.get_board('openmv-h7-plus', firmware='5.0')."
            )
    return _find_board(name, firmware)


def firmware_of(board: Board | Budget) -> str:
    """Return the release that a camera's files are made for.

    A budget names none: then it is `DEFAULT_FIRMWARE`.
    """
    return board.firmware if isinstance(board, Board) else DEFAULT_FIRMWARE


@functools.cache
def _find_board(name: str, firmware: str) -> Board:
    return Board(**board_data.attributes_of(name, firmware))


def _npu_reason(npu: str) -> str:
    return f"A plain int8 .tflite runs on the CPU; the {npu} runs what vela compiles."


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _check(board: Board | Budget, cost: CostLike) -> None:
    verdict = board.fit(cost)
    if verdict.fits:
        return
    raise BudgetError(
        f"The model does not fit {board.label}. {' '.join(verdict.over)} Next step: "
        f"{'; '.join(_next_steps(board, cost, verdict))}."
    )


def _next_steps(board: Board | Budget, cost: CostLike, verdict: Fit) -> list[str]:
    steps = []
    if verdict.ram_over_bytes:
        steps.append("a smaller resolution or alpha shrinks the RAM")
    if verdict.flash_over_bytes:
        steps.append("a smaller alpha or last convolution shrinks the flash")
    others = [get_board(name) for name in board_names() if name != NEEDS_COMPILER]
    # The RAM is known for this core only.
    others = [other for other in others if other.core == board.core]
    cameras = [other.name for other in others if other.fit(cost).fits]
    core = board.core.replace("cortex-m", "Cortex-M")
    nowhere = f"no other camera with a {core} fits it"
    return [*steps, f"as it is it fits {', '.join(cameras)}" if cameras else nowhere]
