"""The README's commands and examples are the ones that are run."""

import re
import shlex

import documented
import numpy as np
import pytest

from keras_omv.arguments import make_parser
from keras_omv.cli import main

README = (documented.ROOT / "README.md").read_text()
BLOCKS = documented.blocks(README)
# What takes long, and what the test runs in its place.
QUICKER = {
    "max_trials=20, epochs=24": (
        "max_trials=1, epochs=1, alphas=[0.1], depths=[1], resolutions=[32]"
    ),
    "alpha=0.35)": "alpha=0.35, depth=3, head_channels=32)",
    "epochs=20": "epochs=2",
    "start_epoch=15": "start_epoch=1",
}
# Lines that are no command of ours, and where what they do is done in a test.
ELSEWHERE = (
    r'python3 -m venv .venv|.venv/bin/pip install -q (\.|-e "\.\[test\]")|'
    r".venv/bin/pytest -n 2|"  # .ci/run
    r"export KERASTUNER_(ORACLE_IP|TUNER_ID)=.*"  # test_search_workers.py
)
WITHOUT_IMAGES = ("boards", "cost", "space")


def words_of(command):
    return shlex.split(command.split("keras-omv ", 1)[1], comments=True)


def lines():
    """Every command line of the README's blocks."""
    shell = "\n".join(body for language, body in BLOCKS if language == "sh")
    parts = (part.strip() for part in re.split(r"\n|&&", shell))
    return [part for part in parts if part]


def inline():
    """Every command of ours within the text."""
    found = re.findall(r"`(keras-omv\s[^`]*)`", README)
    return [" ".join(command.split()) for command in found]


COMMANDS = [words_of(line) for line in (*lines(), *inline()) if "keras-omv " in line]


def with_first_word(*names):
    return [words for words in COMMANDS if words[0] in names]


def test_there_are_only_blocks_of_python_and_of_commands():
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    others = [line for line in lines() if not line.startswith(".venv/bin/keras-omv ")]
    assert not [line for line in others if not re.fullmatch(ELSEWHERE, line)]


def test_ci_runs_the_readmes_test_command():
    command = next(body for _, body in BLOCKS if "pytest" in body)
    script = (documented.ROOT / ".ci" / "run").read_text()
    for part in command.strip().split(" && "):
        assert part in script


def test_nothing_is_made_quicker_that_no_example_has():
    examples = "".join(body for language, body in BLOCKS if language == "python")
    assert not [long for long in QUICKER if long not in examples]


def test_every_python_example_runs_and_what_it_writes_is_verified(
    tmp_path, monkeypatch, capsys
):
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
    for language, body in BLOCKS:
        if language == "python":
            documented.run(body, names, QUICKER)
    assert names["report"].quantization == "trained"

    (tmp_path / "camera").rename("digits-camera")
    capsys.readouterr()
    for words in with_first_word("verify"):
        main(words)
    assert "digits-camera: passed" in capsys.readouterr().out


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_one_that_the_shell_takes(words):
    if words[-1] == "--help":
        with pytest.raises(SystemExit, match="0"):
            make_parser().parse_args(words)
        return
    options = make_parser().parse_args(words)
    assert callable(options.run)


@pytest.mark.parametrize("words", with_first_word(*WITHOUT_IMAGES), ids=" ".join)
def test_commands_that_need_no_images_run_as_they_stand(words, capsys):
    main(words)
    assert re.search(" [KM]iB", capsys.readouterr().out)


def test_every_script_that_is_named_is_there():
    named = re.findall(r"python ((?:benchmarks|examples)/\w+\.py)", README)
    assert named
    assert not [path for path in named if not (documented.ROOT / path).exists()]
