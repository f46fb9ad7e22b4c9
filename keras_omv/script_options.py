"""What main.py does beside naming what it sees; imports no TensorFlow."""

import dataclasses
import re

FRAME_WIDTH, FRAME_HEIGHT = 320, 240
"""QVGA, the frame that every script asks of the sensor."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScriptOptions:
    """Options of the camera's script: each is a constant at its top, or not in it.

    Example:
        >>> import keras_omv as omv
        >>> omv.ScriptOptions(smooth=5, threshold=0.6).threshold
        0.6

    Attributes:
        smooth: How many pictures' scores to average, 2 or more. Defaults to `None`:
            each picture is judged alone.
        threshold: A best score below it, from 0 to 1, is printed as unsure. Defaults
            to `None`.
        roi: `(x, y, width, height)` in pixels of the 320x240 frame; the script takes
            the largest window of the model's shape from its middle. Defaults to
            `None`: the whole frame.
        action: Whether there is a function `on_class(label, confidence)`, called after
            each picture, to fill in main.py. Defaults to `False`.
        save_below: Pictures with a lower best score are saved as JPEG files, in a
            folder for each predicted label: images for the next training. Defaults
            to `None`.
        save_button: The name of a pin, such as `"P0"`. A button between it and ground
            saves what the camera sees. Defaults to `None`.

    Raises:
        ValueError: If an option is none of these.
    """

    smooth: int | None = None
    threshold: float | None = None
    roi: tuple[int, int, int, int] | None = None
    action: bool = False
    save_below: float | None = None
    save_button: str | None = None

    def __post_init__(self) -> None:
        if self.smooth is not None and not (_is_whole(self.smooth) and self.smooth > 1):
            raise self._error("smooth", "a number of pictures, 2 or more", 5)
        for name in ("threshold", "save_below"):
            if not _is_share(getattr(self, name)):
                raise self._error(name, "a score above 0 and up to 1", 0.6)
        if self.roi is not None:
            self._check_roi()
        if not isinstance(self.action, bool):
            raise self._error("action", "True or False", True)
        if not _is_pin(self.save_button):
            raise self._error("save_button", "the name of a pin", "P0")

    @property
    def saves(self) -> bool:
        """Whether the script saves pictures."""
        return self.save_below is not None or self.save_button is not None

    def _check_roi(self) -> None:
        if not _is_in_frame(self.roi):
            expected = "x, y, width and height, whole pixels inside the 320x240 frame"
            raise self._error("roi", expected, (40, 0, 240, 240))
        # Lists come from report.json and from the command line.
        object.__setattr__(self, "roi", tuple(self.roi or ()))

    def _error(self, name: str, expected: str, example: object) -> ValueError:
        return ValueError(
            f"Invalid value received for argument `{name}`. Expected {expected}. "
            f"Received: {name}={getattr(self, name)!r}. Next step: {name}={example!r}, "
            "or leave it out."
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_share(value: object) -> bool:
    if value is None:
        return True
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < float(value) <= 1  # type: ignore[arg-type]


def _is_pin(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, str) and bool(re.fullmatch(r"[A-Za-z0-9_.]+", value))


def _is_in_frame(roi: object) -> bool:
    if not isinstance(roi, tuple | list) or len(roi) != 4:
        return False
    if not all(map(_is_whole, roi)):
        return False
    x, y, width, height = roi
    is_inside = x + width <= FRAME_WIDTH and y + height <= FRAME_HEIGHT
    return bool(is_inside and min(x, y) >= 0 and min(width, height) >= 1)
