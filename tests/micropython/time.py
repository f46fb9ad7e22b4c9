"""A stand-in for the time module: MicroPython's, with OpenMV's clock."""

import stub


def ticks_ms():
    return stub.STATE["ms"]


def ticks_diff(later, earlier):
    return later - earlier


class clock:  # noqa: N801
    def __init__(self):
        self._ticked = False

    def tick(self):
        self._ticked = True

    def fps(self):
        if not self._ticked:
            raise RuntimeError("fps before tick")
        return 1000 / stub.FRAME_MS
