"""A stand-in for the csi module.

4.8.0 and later have modules/py_csi_ng.c, with CSI; 4.6.0 and 4.7.0 call the sensor
module by this name too (py_csi.c); before, there was none.
"""

import stub

if stub.firmware() < (4, 6):
    raise ImportError("no module named 'csi'")

GRAYSCALE = "GRAYSCALE"
RGB565 = "RGB565"
QVGA = (320, 240)


class _CSI:
    def __init__(self):
        stub.EVENTS.append(["CSI"])
        self._pixformat = None
        self._frame = None
        self._window = None

    def reset(self):
        stub.EVENTS.append(["reset"])

    def pixformat(self, pixformat):
        if pixformat not in stub.SETTINGS["sensor_formats"]:
            raise RuntimeError("Pixel format is not supported or is not set.")
        self._pixformat = pixformat

    def framesize(self, framesize):
        self._frame = self._window = framesize

    def width(self):
        return self._frame[0]  # of the frame, whatever the window is

    def height(self):
        return self._frame[1]

    def window(self, window):
        self._window = stub.window(window, self._frame)

    def snapshot(self, time=-1):
        if time != -1:
            return stub.settle()  # such a call only lets the exposure settle
        return stub.capture(self._window, self._pixformat)


if stub.firmware() >= (4, 8):
    CSI = _CSI
