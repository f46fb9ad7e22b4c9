"""The README's commands and examples are the ones that are run."""

import pathlib
import re

import numpy as np

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
