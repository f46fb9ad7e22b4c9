"""A stand-in for the sensor module.

src/omv/modules/py_sensor.c up to 4.5.9, py_csi.c from 4.6.0 on: 4.0.0 to 5.0.0 have
all that is here.
"""

import stub

GRAYSCALE = "GRAYSCALE"
RGB565 = "RGB565"
QVGA = (320, 240)

_camera = {"pixformat": None, "frame": None, "window": None}


def reset():
    stub.EVENTS.append(["reset"])


def set_pixformat(pixformat):
    if pixformat not in stub.SETTINGS["sensor_formats"]:
        if stub.firmware() < (4, 2):  # py_sensor.c:241 at 4.0.0
            raise ValueError("Pixel format is not supported!")
        raise RuntimeError("Pixel format is not supported or is not set.")
    _camera["pixformat"] = pixformat


def set_framesize(framesize):
    _camera["frame"] = _camera["window"] = framesize


def width():
    return _camera["frame"][0]  # of the frame, whatever the window is


def height():
    return _camera["frame"][1]


def set_windowing(*arguments):
    if len(arguments) == 1:
        arguments = arguments[0]
    _camera["window"] = stub.window(arguments, _camera["frame"])


def set_framebuffers(count):
    stub.EVENTS.append(["framebuffers", count])


def skip_frames(*, time=300):
    stub.settle()


def snapshot():
    return stub.capture(_camera["window"], _camera["pixformat"])
