"""What a test wants the camera to be, and what the script did to it."""

SETTINGS = {
    "firmware": "5.0",  # "4.7": csi has no CSI; "4.5": there is no csi
    "input_shape": [1, 96, 96, 3],
    "outputs": [0.1, 0.7, 0.2],
    "load_error": None,  # [type, text], raised by ml.Model
    "camera_error": None,  # [type, text], raised by the first frame
    "frames": 3,  # then the IDE's stop button is pressed
}
EVENTS = []

ERRORS = {
    error.__name__: error
    for error in (OSError, MemoryError, ValueError, RuntimeError, AttributeError)
}


def raise_from(setting):
    """Raise the error that a test asked for, if it asked for one."""
    if SETTINGS[setting]:
        name, text = SETTINGS[setting]
        raise ERRORS[name](text)
