"""What a test wants the camera to be, and what the script did to it."""

SETTINGS = {
    "firmware": "5.0.0",
    "input_shape": [1, 96, 96, 3],
    "frames": [[0.1, 0.7, 0.2]] * 3,  # scores of each; then the IDE's stop button
    "heap_error": None,  # [type, text], where weights are to go to the heap
    "load_error": None,  # [type, text], wherever they are to go
    "camera_error": None,  # [type, text], raised by the first frame
    "sensor_formats": ["RGB565", "GRAYSCALE"],
    "pressed": [],  # numbers of the frames at which the button is down
    "full_card": False,
}
EVENTS = []
MOST_EVENTS = 500  # a script that runs on and on must not fill the memory
STATE = {"frame": 0, "ms": 0}

FRAME_MS = 80

ERRORS = {
    error.__name__: error
    for error in (OSError, MemoryError, ValueError, RuntimeError, AttributeError)
}


def firmware():
    """Return the release as numbers."""
    return tuple(int(number) for number in SETTINGS["firmware"].split("."))


def raise_from(setting):
    """Raise the error that a test asked for, if it asked for one."""
    if SETTINGS[setting]:
        name, text = SETTINGS[setting]
        raise ERRORS[name](text)


def capture(size, pixformat):
    """Return the next frame, as all releases' snapshot does."""
    raise_from("camera_error")
    if STATE["frame"] == len(SETTINGS["frames"]):
        raise KeyboardInterrupt  # what the IDE's stop button does
    STATE["frame"] += 1
    STATE["ms"] += FRAME_MS
    return Image(size, pixformat)


def settle():
    """Frames that nobody looks at; they may fail like any other."""
    raise_from("camera_error")
    EVENTS.append(["settle"])


def steps():
    """Return the int8 outputs for this frame, whose scale is 1/256 from -128 on."""
    scores = SETTINGS["frames"][STATE["frame"] - 1]
    return [min(127, round(score * 256) - 128) for score in scores]


def check_picture(image, channels):
    """Check that a picture is what the model was exported for."""
    if image.pixformat != ("RGB565" if channels == 3 else "GRAYSCALE"):
        raise ValueError("the picture's format is not the model's")
    if len(EVENTS) < MOST_EVENTS:
        EVENTS.append(["predict", list(image.size)])


def window(arguments, frame):
    """Return the part of the frame that is meant, as all releases do.

    src/omv/modules/py_sensor.c:286-337 at 4.0.0, modules/py_csi_ng.c:367-417 at 5.0.0.
    """
    if len(arguments) == 2:
        width, height = arguments
        x, y = frame[0] // 2 - width // 2, frame[1] // 2 - height // 2
    elif len(arguments) == 4:
        x, y, width, height = arguments
    else:
        raise ValueError("Expected (w, h) or (x, y, w, h) tuple/list.")
    if width < 1 or height < 1:
        raise ValueError("Invalid ROI dimensions!")
    if x < 0 or y < 0 or x + width > frame[0] or y + height > frame[1]:
        raise ValueError("the firmware would cut this window without a word")
    EVENTS.append(["window", [x, y, width, height]])
    return width, height


class Image:
    """A picture: `save` is all that a script does with it, the rest is the model's."""

    def __init__(self, size, pixformat):
        self.size = size
        self.pixformat = pixformat

    def save(self, path, roi=None, quality=50):
        if SETTINGS["full_card"]:
            raise OSError(28)  # ENOSPC
        with open(path, "wb") as file:
            file.write(b"JPEG of frame %d" % STATE["frame"])
        EVENTS.append(["save", path, quality])
