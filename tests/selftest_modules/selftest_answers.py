"""What TFLM answers to the bytes of an input: answers.json, made by a test."""

import json
from binascii import hexlify
from hashlib import sha256

with open("answers.json") as file:
    SETTINGS = json.load(file)


def steps(tensor):
    """Return the int8 outputs; a frame that TFLM never saw has none."""
    key = hexlify(sha256(bytes(tensor)).digest()).decode()
    return SETTINGS["answers"][key]
