"""Every example of every docstring is run."""

import ast
import doctest
import importlib
import inspect
import pathlib

import documented
import exports
import keras
import numpy as np
import pytest
import small_search
import tensorflow as tf

import keras_omv as omv

BOARD = "openmv-h7-plus"  # That of the examples that read a folder.
QUICKER = {
    "epochs=24": "epochs=2",
    "epochs=30": "epochs=3",
    "start_epoch=20": "start_epoch=1",
    "start_epoch=22": "start_epoch=1",
    "epochs=5": "epochs=2",
    "end_step=1000": "end_step=3",
    '"openmv-h7-plus", classes=5': '"openmv-h7-plus", max_trials=1, **small_search',
}


def docstrings(path):
    """Every docstring of a module."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kinds))
    return [found for node in nodes if (found := ast.get_docstring(node))]


TEXTS = {
    f"keras_omv.{path.stem}": docstrings(path)
    for path in sorted((documented.ROOT / "keras_omv").glob("*.py"))
}
SESSIONS = [name for name, texts in TEXTS.items() if any(">>>" in t for t in texts)]
BLOCKS = [
    pytest.param(name, language, block, id=f"{name}-{number}")
    for name, texts in TEXTS.items()
    for number, (language, block) in enumerate(
        block for text in texts for block in documented.blocks(text)
    )
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's folder, with an exported `camera`."""
    made = tmp_path_factory.mktemp("user")
    exports.make_export(made / "camera", board=BOARD)
    model = (made / "camera" / "model_desktop.tflite").read_bytes()
    (made / "old.tflite").write_bytes(model)
    return made


def dataset(images, labels):
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(50)


def names_of_users(folder):
    """What the examples take as given."""
    images, labels = exports.make_images()
    digits, digit_labels = small_search.digits(100)
    model = exports.make_model()
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    return {
        "keras": keras,
        "np": np,
        "omv": omv,
        "pathlib": pathlib,
        "tf": tf,
        "images": images,
        "labels": labels,
        "train_images": images,
        "test_images": images,
        "test_labels": labels,
        "names": exports.NAMES,
        "paths": [folder / "camera" / "labels.txt"],
        "read": pathlib.Path.read_bytes,
        "model": model,
        "wide_model": model,
        "pruned_model": exports.make_model(4),
        "train": dataset(digits[:50], digit_labels[:50]),
        "validation": dataset(digits[50:], digit_labels[50:]),
        "tuner": small_search.make(str(folder / "search"), max_trials=1),
        "small_search": small_search.SETTINGS,
    }


@pytest.mark.parametrize("name", SESSIONS)
def test_every_session_prints_what_is_written(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    module = importlib.import_module(name)
    names = {"keras": keras, "np": np, "omv": omv, "tf": tf}
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted
    assert result.failed == 0


@pytest.mark.parametrize(("name", "language", "block"), BLOCKS)
def test_every_block_runs(name, language, block, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert language == "python", "a block that no test runs"
    names = names_of_users(folder)
    if name == "keras_omv.selftest":
        names["model"] = pathlib.Path("camera/model.tflite").read_bytes()
    documented.run(block, names, QUICKER)


def test_nothing_is_made_quicker_that_no_example_has():
    text = "".join(text for texts in TEXTS.values() for text in texts)
    assert not [long for long in QUICKER if long not in text]


class Undocumented(keras.callbacks.Callback):
    pass


def own_docstring(value):
    """What is written for it, not what it inherits or what dataclasses make up."""
    [node] = ast.parse(inspect.getsource(value)).body
    return ast.get_docstring(node)


def test_every_public_name_is_documented():
    assert not [n for n in omv.__all__ if not own_docstring(getattr(omv, n))]


def test_no_docstring_is_taken_from_elsewhere():
    assert inspect.getdoc(Undocumented)
    assert own_docstring(Undocumented) is None
