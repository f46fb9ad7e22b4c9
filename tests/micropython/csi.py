"""A stand-in for firmware 5.0's csi module (modules/py_csi_ng.c)."""

import stub

if stub.SETTINGS["firmware"] == "4.5":
    raise ImportError("no module named 'csi'")

GRAYSCALE = 0x08020001
RGB565 = 0x0C030002
QVGA = 17
_SIZES = {QVGA: (320, 240)}


class Image:
    def __init__(self, width, height, pixformat):
        self.size = (width, height)
        self.pixformat = pixformat


class _CSI:
    def __init__(self):
        stub.EVENTS.append(["CSI"])
        self._pixformat = None
        self._size = None
        self._window = None
        self._frames = 0

    def reset(self):
        stub.EVENTS.append(["reset"])

    def pixformat(self, pixformat):
        if pixformat not in (GRAYSCALE, RGB565):
            raise RuntimeError("Pixel format is not supported or is not set.")
        self._pixformat = pixformat

    def framesize(self, framesize):
        self._size = self._window = _SIZES[framesize]

    def width(self):
        return self._size[0]  # of the frame, whatever the window is

    def height(self):
        return self._size[1]

    def window(self, window):
        if self._size is None:
            raise RuntimeError("Frame size is not supported or is not set.")
        if window[0] < 1 or window[1] < 1:
            raise ValueError("Invalid ROI dimensions!")
        self._window = (min(window[0], self._size[0]), min(window[1], self._size[1]))
        stub.EVENTS.append(["window", list(self._window)])

    def snapshot(self, time=-1):
        if time != -1:
            return None  # such a call only lets the exposure settle
        stub.raise_from("camera_error")
        if self._frames == stub.SETTINGS["frames"]:
            raise KeyboardInterrupt  # what the IDE's stop button does
        self._frames += 1
        return Image(self._window[0], self._window[1], self._pixformat)


if stub.SETTINGS["firmware"] != "4.7":
    CSI = _CSI
