"""The README's commands and examples are the ones that are run."""

import pathlib
import re
import shlex

import numpy as np
import pytest

from keras_omv.arguments import make_parser
from keras_omv.cli import main

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_ci_runs_the_readmes_test_command():
    command = next(block for block in blocks("sh") if "pytest" in block)
    script = (ROOT / ".ci" / "run").read_text()
    for part in command.strip().split(" && "):
        assert part in script


def test_every_python_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    labels = np.arange(32) % 2
    images = random.integers(0, 256, (32, 48, 48, 3)).astype("float32")
    names = {
        "names": ["cat", "dog"],
        "train_images": images,
        "train_labels": labels,
        "test_images": images,
        "test_labels": labels,
    }
    for block in blocks("python"):
        quick = block.replace("max_trials=20", "max_trials=1, alphas=[0.1]")
        quick = quick.replace("epochs=24", "epochs=1")
        exec(compile(quick, "README.md", "exec"), names)
    assert (tmp_path / "camera" / "model.tflite").exists()
    assert names["report"].quantization == "trained"


def commands():
    """Every command line of ours, as the words that follow `keras-omv`."""
    lines = "\n".join(blocks("sh")).replace("&&", "\n").splitlines()
    found = (line.split("keras-omv ", 1) for line in lines if "/keras-omv " in line)
    return [shlex.split(rest, comments=True) for _, rest in found]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one_that_the_shell_takes(words):
    options = make_parser().parse_args(words)
    assert callable(options.run)


@pytest.mark.parametrize(
    "words", [w for w in commands() if w[0] in ("cost", "space")], ids=" ".join
)
def test_commands_that_need_no_images_run_as_they_stand(words, capsys):
    main(words)
    assert "KiB" in capsys.readouterr().out
