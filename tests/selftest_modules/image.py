"""As much of the image module as a selftest meets (py_image.c at 4.0.0 and 4.5.5)."""

import sensor


class Image:
    """Pixels in RGB565, or grey ones of 8 bits."""

    def __init__(self, width, height, pixformat, copy_to_fb=False):
        self.width, self.height, self.pixformat = width, height, pixformat
        self._pixels = {}

    def set_pixel(self, x, y, color):
        if self.pixformat == sensor.RGB565:
            red, green, blue = color
            color = red >> 3, green >> 2, blue >> 3
        self._pixels[x, y] = color

    def tensor(self):
        """Return the bytes that py_tf.c:231-345 at 4.0.0 makes of it for int8."""
        bytes_of = []
        for y in range(self.height):
            for x in range(self.width):
                bytes_of.extend(self._channels(self._pixels[x, y]))
        return bytes(byte ^ 128 for byte in bytes_of)

    def _channels(self, color):
        if self.pixformat == sensor.GRAYSCALE:
            return (color,)
        red, green, blue = color
        return red << 3 | red >> 2, green << 2 | green >> 4, blue << 3 | blue >> 2
