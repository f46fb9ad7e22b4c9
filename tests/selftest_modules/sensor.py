"""The pixel formats of the sensor module."""

GRAYSCALE, RGB565 = "GRAYSCALE", "RGB565"
