"""A stand-in for the omv module, modules/py_omv.c."""

import stub


def version_string():
    return stub.SETTINGS["firmware"]


def arch():
    return stub.SETTINGS["arch"]
