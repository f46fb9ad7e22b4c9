"""Reads the tables of a flatbuffer without trusting one byte of it.

Every offset is checked against the file's end before it is followed, and all that is
read in one go is paid from a budget of one element a byte: vectors that share their
bytes with others, as only a damaged file has them in earnest, cannot multiply the
work. Format: flatbuffers.dev/internals, the little-endian binary wire format.
"""

import struct
from typing import Any

import numpy as np

from keras_omv.errors import ModelFileError

_OFFSET_BYTES = 4


def damaged(received: str) -> ModelFileError:
    """Return the error of a file that is not what its maker wrote."""
    return ModelFileError(
        f"Expected a sound .tflite file. Received: {received}. Next step: convert or "
        f"copy it again."
    )


def enum_names(enum: Any) -> dict[int, str]:
    """Return the names of a class that the schema's compiler made of an enum."""
    return {code: name for name, code in vars(enum).items() if name[0] != "_"}


class Tables:
    """A flatbuffer's bytes, and how much may still be read from them.

    Args:
        data: The whole file.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._budget = len(data)

    def root(self) -> "Table":
        """Return the outermost table."""
        return self.table(self.follow(0))

    def table(self, position: int) -> "Table":
        """Return the table at a position."""
        vtable = position - int(self.number("<i", position))
        size_bytes = int(self.number("<H", vtable))
        self.spend(1)
        return Table(self, position, vtable, size_bytes)

    def follow(self, position: int) -> int:
        """Return where the offset at a position leads."""
        return position + int(self.number("<I", position))

    def number(self, form: str, position: int) -> int | float | bool:
        """Return one number.

        Args:
            form: Its format in `struct`'s notation.
            position: Where it lies.
        """
        self._check(position, struct.calcsize(form))
        value: int | float | bool = struct.unpack_from(form, self._data, position)[0]
        return value

    def vector(self, position: int, dtype: str) -> np.ndarray:
        """Return the vector at a position, without copying it."""
        length = int(self.number("<I", position))
        start = position + _OFFSET_BYTES
        return self.slice(start, length * np.dtype(dtype).itemsize).view(dtype)

    def slice(self, start: int, size_bytes: int) -> np.ndarray:
        """Return bytes by their place in the file."""
        self._check(start, size_bytes)
        if not size_bytes:
            return np.zeros(0, np.uint8)
        return np.frombuffer(self._data, np.uint8, size_bytes, start)

    def spend(self, count: int) -> None:
        """Pay for elements that become Python objects."""
        self._budget -= count
        if self._budget < 0:
            raise damaged(f"tables that share the file's {len(self._data)} bytes")

    def _check(self, position: int, size_bytes: int) -> None:
        if not 0 <= position <= len(self._data) - size_bytes:
            raise damaged(
                f"{len(self._data)} bytes whose tables lead to bytes {position} to "
                f"{position + size_bytes}, cut short or damaged"
            )


class Table:
    """One table, its fields by their slots in the schema.

    Args:
        tables: The file.
        position: Where the table lies.
        vtable: Where the list of its fields lies.
        size_bytes: The bytes of that list.
    """

    def __init__(
        self, tables: Tables, position: int, vtable: int, size_bytes: int
    ) -> None:
        self._tables = tables
        self._position = position
        self._vtable = vtable
        self._size_bytes = size_bytes

    def has(self, slot: int) -> bool:
        """Whether a field is written."""
        return self._field(slot) != 0

    def number(
        self, slot: int, form: str = "<i", default: int | float | bool = 0
    ) -> int | float | bool:
        """Return a number, or its default."""
        field = self._field(slot)
        return self._tables.number(form, field) if field else default

    def integer(self, slot: int, form: str = "<i", default: int = 0) -> int:
        """Return a whole number, or its default."""
        return int(self.number(slot, form, default))

    def array(self, slot: int, dtype: str) -> np.ndarray:
        """Return a vector of numbers; empty where it is not written."""
        field = self._field(slot)
        if not field:
            return np.zeros(0, dtype)
        return self._tables.vector(self._tables.follow(field), dtype)

    def integers(self, slot: int) -> tuple[int, ...]:
        """Return a vector of int32 as Python's integers."""
        values = self.array(slot, "<i4")
        self._tables.spend(values.size)
        return tuple(map(int, values))

    def start(self, slot: int) -> int:
        """Return where the elements of a vector begin; 0 where it is not written."""
        field = self._field(slot)
        return self._tables.follow(field) + _OFFSET_BYTES if field else 0

    def text(self, slot: int) -> str:
        """Return a string; empty where it is not written."""
        values = self.array(slot, "u1")
        self._tables.spend(values.size)
        return values.tobytes().decode("utf-8", "replace")

    def table(self, slot: int) -> "Table | None":
        """Return the table of a field."""
        field = self._field(slot)
        return self._tables.table(self._tables.follow(field)) if field else None

    def tables(self, slot: int) -> list["Table"]:
        """Return a vector of tables."""
        field = self._field(slot)
        if not field:
            return []
        start = self._tables.follow(field)
        offsets = self._tables.vector(start, "<u4")
        self._tables.spend(offsets.size)
        places = range(start + 4, start + 4 + 4 * offsets.size, 4)
        return [
            self._tables.table(place + int(offset))
            for place, offset in zip(places, offsets, strict=True)
        ]

    def _field(self, slot: int) -> int:
        """Return where a field lies, 0 where it is not written."""
        entry = _OFFSET_BYTES + 2 * slot
        if entry + 2 > self._size_bytes:
            return 0
        offset = int(self._tables.number("<H", self._vtable + entry))
        return self._position + offset if offset else 0
