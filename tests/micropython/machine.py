"""A stand-in for the machine module: MicroPython's, with one button."""

import stub


class Pin:
    IN = 0
    PULL_UP = 1

    def __init__(self, name, mode, pull):
        if (mode, pull) != (Pin.IN, Pin.PULL_UP):
            raise ValueError("a button to ground needs an input that is pulled up")
        stub.EVENTS.append(["Pin", name])

    def value(self):
        return 0 if stub.STATE["frame"] in stub.SETTINGS["pressed"] else 1
