r"""ROMFS images: read-only files that the camera uses where they lie in flash.

Firmware mounts the ROMFS partition at /rom, from 4.7.0 on. The format is that of
MicroPython's `extmod/vfs_rom.c`: records of a kind, a length and a payload, nested.

    D2 CD 31   length   records...                     the image
    04         length   name length, name, records...  a directory
    05         length   name length, name, records...  a file
    02         length   content                        in a file
    03         length   size, offset                   in a file: content elsewhere
    01         length   anything                       to skip

Offsets count from the image's first record. All numbers are varuints: seven bits a
byte, the highest first, all bytes but the last with the top bit set. A leading 80 adds
nothing to a number, and that is how contents are aligned here and in OpenMV's own
images (`tools/mkromfs.py:57-63` at 5.0.0). This module imports no TensorFlow.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TypeAlias, Union

from keras_omv.errors import ExportError
from keras_omv.units import align

ALIGNMENT_BYTES = 32
"""What OpenMV IDE aligns to on all cameras. Their NPUs need up to 32 ("alignment" in
boards/OPENMV_N6/romfs_config.json at 5.0.0), TFLM on the CPU 4."""
LARGEST_ALIGNMENT_BYTES = 8192
"""What every partition starts at a multiple of; that of the AE3's small core lies at
0x8047E000 (boards/OPENMV_AE3/board_config.h:147 at 5.0.0)."""
LONGEST_PATH_BYTES = 255
"""A judgement; it also bounds how deep directories nest."""

_MAGIC = b"\xd2\xcd\x31"
_UNUSED, _PADDING, _DATA, _POINTER, _DIRECTORY, _FILE = range(6)
_LENGTH_BYTES = 5
"""Written for every length, whatever its value: 35 bits, more than any flash."""
_NAME_LENGTH_BYTES = 2
_LARGEST_UINT = 2**32 - 1
"""What a varuint holds on the camera, a 32-bit machine."""

_Tree: TypeAlias = dict[str, Union[bytes, "_Tree"]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Record:
    """A record of an image: its payload is `image[start:end]`."""

    kind: int
    start: int
    end: int


def write_image(
    files: Mapping[str, bytes], *, alignment: int = ALIGNMENT_BYTES
) -> bytes:
    """Return a ROMFS image.

    Example:
        >>> image = write_image({"model.tflite": b"TFL3", "labels.txt": b"cat"})
        >>> image.index(b"TFL3") % 32, image.index(b"cat") % 32
        (0, 0)

    Args:
        files: Contents by path, such as `"labels.txt"` or `"lib/names.txt"`.
        alignment: Each content starts at a multiple of these bytes, a power of two
            of at most `LARGEST_ALIGNMENT_BYTES`. Defaults to 32.

    Raises:
        ValueError: For a path that no file can have, a content that is not bytes, or
            an alignment that partitions do not keep.
    """
    if alignment < 1 or LARGEST_ALIGNMENT_BYTES % alignment:
        raise ValueError(
            f"Invalid value received for argument `alignment`. Expected a power of two "
            f"up to {LARGEST_ALIGNMENT_BYTES}. Received: alignment={alignment!r}. "
            f"Next step: leave it out; {ALIGNMENT_BYTES} serves every camera."
        )
    start = len(_MAGIC) + _LENGTH_BYTES
    payload = _entries(_tree(files), start, alignment)
    if (start + len(payload)) % 2:  # an image has an even size (vfs_rom.c)
        payload += bytes((_PADDING, 1, 0))
    return _MAGIC + _encode(len(payload), _LENGTH_BYTES) + payload


def read_image(image: bytes) -> Mapping[str, bytes]:
    """Return the files of a ROMFS image; names in directories as `"lib/names.txt"`.

    Reads what this package, OpenMV IDE, OpenMV's builds and mpremote write. Empty
    directories are left out, and so is what follows the image, as it does where a
    whole partition was read.

    Example:
        >>> dict(read_image(write_image({"lib/names.txt": b"cat"})))
        {'lib/names.txt': b'cat'}

    Raises:
        ExportError: For a damaged image, and for what is none.
    """
    root = _root(image)
    files: dict[str, bytes] = {}
    size_bytes = 0
    for path, content in _walk(image, root, root.start, root.end, ""):
        files[path] = content
        size_bytes += len(content)
        # Contents elsewhere can overlap: a small image must not fill the memory.
        if size_bytes > len(image):
            raise _damaged("its files hold more bytes than the image", root.start)
    return files


def _tree(files: Mapping[str, bytes]) -> _Tree:
    tree: _Tree = {}
    for path, content in files.items():
        if not isinstance(content, bytes):
            raise ValueError(
                f"Invalid content of {path!r}. Expected bytes. Received: "
                f"{type(content).__name__}. Next step: encode texts as UTF-8."
            )
        *folders, name = _names(path)
        entries = tree
        for folder in folders:
            inner = entries.setdefault(folder, {})
            if isinstance(inner, bytes):
                raise _path_error(path, f"{folder!r} is a file")
            entries = inner
        if name in entries:
            raise _path_error(path, "it is a directory")
        entries[name] = content
    return tree


def _names(path: str) -> list[str]:
    names = path.split("/")
    if not all(map(_is_name, names)):
        raise _path_error(path, "it holds a name that no file can have")
    try:
        size_bytes = len(path.encode())
    except UnicodeEncodeError:
        raise _path_error(path, "UTF-8 cannot write it") from None
    if size_bytes > LONGEST_PATH_BYTES:
        raise _path_error(path, f"it has more than {LONGEST_PATH_BYTES} bytes")
    return names


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _path_error(path: str, problem: str) -> ValueError:
    return ValueError(
        f"Invalid path of a ROMFS file: {problem}. Expected names joined by '/', such "
        f"as 'lib/names.txt'. Received: {path!r}. Next step: rename the file."
    )


def _entries(tree: _Tree, place: int, alignment: int) -> bytes:
    """Return the records of a directory whose first one lies at `place`."""
    written = bytearray()
    for name, content in tree.items():
        written += _entry(name.encode(), content, place + len(written), alignment)
    return bytes(written)


def _entry(name: bytes, content: bytes | _Tree, place: int, alignment: int) -> bytes:
    head = _encode(len(name), _NAME_LENGTH_BYTES) + name
    place += 1 + _LENGTH_BYTES + len(head)
    if isinstance(content, dict):
        return _record(_DIRECTORY, head + _entries(content, place, alignment))
    # The data comes first in its file, or OpenMV IDE does not find it.
    start = place + 1 + _LENGTH_BYTES
    padding = align(start, alignment) - start
    return _record(_FILE, head + _record(_DATA, content, padding=padding))


def _record(kind: int, payload: bytes, *, padding: int = 0) -> bytes:
    length = _encode(len(payload), _LENGTH_BYTES + padding)
    return bytes((kind,)) + length + payload


def _encode(value: int, size_bytes: int) -> bytes:
    """Return a varuint of a fixed size, led by as many 80 as it takes."""
    groups = (value >> 7 * place & 0x7F for place in reversed(range(1, size_bytes)))
    return bytes((*(0x80 | group for group in groups), value & 0x7F))


def _root(image: bytes) -> _Record:
    if not image.startswith(_MAGIC):
        raise _damaged(f"it starts with {image[:3]!r}, not with {_MAGIC!r}", 0)
    return next(_records(image, 0, len(image)))


def _records(image: bytes, place: int, end: int) -> Iterator[_Record]:
    """Yield the records from `place` on, which fill the bytes up to `end`."""
    while place < end:
        kind, after_kind = _decode(image, place, end)
        length, start = _decode(image, after_kind, end)
        if kind == _UNUSED:
            raise _damaged("a record has no kind", place)
        if length > end - start:
            raise _damaged("a record is cut off", place)
        yield _Record(kind, start, start + length)
        place = start + length


def _decode(image: bytes, place: int, end: int) -> tuple[int, int]:
    """Return a varuint, and the place after it."""
    value = 0
    for index in range(place, end):
        value = value << 7 | image[index] & 0x7F
        if value > _LARGEST_UINT:
            raise _damaged("a number is too large", place)
        if image[index] < 0x80:
            return value, index + 1
    raise _damaged("a number is cut off", place)


def _walk(
    image: bytes, root: _Record, place: int, end: int, folder: str
) -> Iterator[tuple[str, bytes]]:
    names = set()
    for record in _records(image, place, end):
        if record.kind not in (_DIRECTORY, _FILE):
            continue
        name, start = _read_name(image, record)
        path = folder + name
        if name in names or len(path.encode()) > LONGEST_PATH_BYTES:
            raise _damaged(f"{path!r} is there twice, or too long", record.start)
        names.add(name)
        if record.kind == _DIRECTORY:
            yield from _walk(image, root, start, record.end, path + "/")
        else:
            yield path, _content(image, root, start, record.end)


def _read_name(image: bytes, record: _Record) -> tuple[str, int]:
    """Return the name of a file or directory, and the place after it."""
    size_bytes, start = _decode(image, record.start, record.end)
    if size_bytes > record.end - start:
        raise _damaged("a name is cut off", start)
    try:
        name = image[start : start + size_bytes].decode()
    except UnicodeDecodeError:
        raise _damaged("a name is not UTF-8", start) from None
    if not _is_name(name):
        raise _damaged(f"no file can have the name {name[:40]!r}", start)
    return name, start + size_bytes


def _content(image: bytes, root: _Record, place: int, end: int) -> bytes:
    """Return the first content among the records of a file, as the camera does."""
    for record in _records(image, place, end):
        if record.kind == _DATA:
            return image[record.start : record.end]
        if record.kind == _POINTER:
            size_bytes, next_place = _decode(image, record.start, record.end)
            offset, _ = _decode(image, next_place, record.end)
            start = root.start + offset
            if start + size_bytes > root.end:
                raise _damaged("the content of a file lies outside", record.start)
            return image[start : start + size_bytes]
    raise _damaged("a file has no content", place)


def _damaged(problem: str, place: int) -> ExportError:
    return ExportError(
        f"Not a ROMFS image, or a damaged one: {problem}, at byte {place:,}. Expected "
        f"an image or a whole ROMFS partition. Next step: read it from the camera once "
        f"more, or save it anew with OpenMV IDE: Tools, ROM File System."
    )
