"""A stand-in for firmware 5.0's time module: MicroPython's, with OpenMV's clock."""


class clock:  # noqa: N801
    def __init__(self):
        self._ticked = False

    def tick(self):
        self._ticked = True

    def fps(self):
        if not self._ticked:
            raise RuntimeError("fps before tick")
        return 12.5
