"""Bytes: rounded up, and shown to people. KiB is 1024 bytes."""


def align(count: int, alignment: int = 16) -> int:
    """Round bytes up to a multiple.

    Args:
        count: Bytes.
        alignment: Defaults to 16, what TFLM aligns its buffers to
            (MicroArenaBufferAlignment() of micro_arena_constants.h).
    """
    return -(-count // alignment) * alignment


def format_bytes(count: int) -> str:
    """Return bytes as B, KiB or MiB of 1024, such as `"12.34 KiB"`."""
    if abs(count) < 1024:
        return f"{count} B"
    if abs(count) < 1024 * 1024:
        return f"{count / 1024:.2f} KiB"
    return f"{count / 1024 / 1024:.2f} MiB"
