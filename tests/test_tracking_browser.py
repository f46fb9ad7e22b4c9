"""What people see: a real TensorBoard, looked at in a real browser.

`TRACKING_PICTURE=tensorboard.png pytest tests/test_tracking_browser.py` keeps the
picture that the README shows.
"""

import contextlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import browser
import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from test_results import result

import keras_omv as omv
from keras_omv.architecture import Levers
from keras_omv.recipe import make_variables
from keras_omv.search_tracking import write_trial

pytestmark = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="chromium is not installed"
)
BOARD = omv.get_board("openmv-m7")
EPOCHS = 6
STEPS = 20
_OPTIONS = (
    # TensorBoard then draws its lines as SVG, which is in the document.
    "--disable-3d-apis",
    "--virtual-time-budget=60000",
)


@contextlib.contextmanager
def tensorboard(log_dir):
    """The address of a TensorBoard server that has read a folder."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir)]
    options = ("--host", "127.0.0.1", "--port", "0", "--load_fast", "false")
    server = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    try:
        lines = iter(server.stderr.readline, "")
        found = (re.search(r"http://127\.0\.0\.1:\d+/", line) for line in lines)
        address = next(match.group() for match in found if match)
        wait_for_runs(address)
        yield address
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()


def ask(address, question=None):
    """What the server answers, as data."""
    data = None if question is None else json.dumps(question).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def wait_for_runs(address):
    deadline = time.monotonic() + 120
    while not ask(f"{address}data/runs"):
        assert time.monotonic() < deadline, "TensorBoard has read nothing"
        time.sleep(0.5)


def chromium(folder, address, *options):
    return browser.chromium(folder, address, *_OPTIONS, *options).stdout


def cards(dom):
    """The charts of the Time Series tab: their text and the colours of their lines."""
    for card in re.findall(r"<scalar-card\b.*?</scalar-card>", dom, re.DOTALL):
        text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", card)))
        lines = re.findall(r"<path d=\"M[^\"]*L[^>]*stroke: (rgb\([^)]*\))", card)
        yield text, set(lines)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A fit whose model is too large for its camera until channels are gone."""
    folder = tmp_path_factory.mktemp("watched") / "logs"
    digits = load_digits()
    images = np.kron(digits.images * (255 / 16), np.ones((1, 4, 4)))[..., None]
    rate = keras.optimizers.schedules.CosineDecay(3e-3, EPOCHS * STEPS)
    keras.utils.set_random_seed(0)
    model = omv.MobileNetV2((32, 32, 1), 10, alpha=0.75, head_channels=64, depth=3)
    model.compile(
        keras.optimizers.Adam(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    make_variables(model)
    model.fit(
        images[: 32 * STEPS],
        digits.target[: 32 * STEPS],
        epochs=EPOCHS,
        verbose=0,
        callbacks=[
            omv.ChannelPruning(BOARD),
            omv.BudgetMonitor(
                BOARD, evaluation_data=(images[-200:], digits.target[-200:])
            ),
            keras.callbacks.TensorBoard(folder),
        ],
    )
    return folder


def test_a_browser_shows_charts_with_the_cameras_limits(watched, tmp_path):
    picture = tmp_path / "tensorboard.png"
    with tensorboard(watched) as address:
        page = f"{address}#timeseries"
        dom = chromium(tmp_path, page, "--window-size=1500,1500", "--dump-dom")
        size = "--window-size=1500,1120"
        chromium(tmp_path, page, size, f"--screenshot={picture}")
        texts = ask(f"{address}data/plugin/text/text?run=camera&tag=Verdict")
    shown = dict(cards(dom))
    for name in ("Flash (KiB)", "RAM (KiB)"):
        ((text, lines),) = [item for item in shown.items() if name in item[0]]
        assert " camera " in text
        assert " limit " in text
        assert len(lines) == 2
    for name in ("int8 on the camera", "float in Keras"):
        ((text, lines),) = [item for item in shown.items() if name in item[0]]
        assert " limit " not in text
        assert len(lines) == 1
    for group in ("Accuracy", "Memory", "Sparsity", "Speed"):
        assert re.search(rf">\s*{group}\s*<", dom)
    assert "Does not fit" in texts[0]["text"]
    assert "Fits openmv-m7" in texts[-1]["text"]
    assert "<strong>" in texts[-1]["text"]
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape == (1120, 1500, 3)
    if "TRACKING_PICTURE" in os.environ:
        shutil.copy(picture, os.environ["TRACKING_PICTURE"])


def test_tensorboard_lists_every_trial_in_its_hparams_tab(tmp_path):
    for number, alpha in enumerate((0.1, 0.2, 0.35)):
        levers = Levers(alpha=alpha, resolution=96, classes=5)
        found = result(str(number), levers=levers, int8_accuracy=0.5 + alpha)
        write_trial(tmp_path, found)
    with tensorboard(tmp_path / "tensorboard") as address:
        hparams = f"{address}data/plugin/hparams"
        experiment = ask(f"{hparams}/experiment", {"experimentName": ""})
        columns = [{"metric": info["name"]} for info in experiment["metricInfos"]]
        question = {"startIndex": 0, "sliceSize": 10, "colParams": columns}
        question["allowedStatuses"] = ["STATUS_UNKNOWN", "STATUS_RUNNING"]
        groups = ask(f"{hparams}/session_groups", question)["sessionGroups"]
        dom = chromium(tmp_path, f"{address}#hparams", "--dump-dom")
    names = {info["name"] for info in experiment["hparamInfos"]}
    assert {"alpha", "resolution (px)", "head (channels)", "depth (blocks)"} <= names
    rows = {group["name"]: group for group in groups}
    assert set(rows) == {"0", "1", "2"}
    assert rows["2"]["hparams"]["alpha"] == 0.35
    values = {v["name"]["tag"]: v["value"] for v in rows["2"]["metricValues"]}
    assert values["Accuracy/int8 on the camera"] == pytest.approx(0.85)
    assert {"Memory/Flash (KiB)", "Memory/RAM (KiB)"} <= set(values)
    assert values["Speed/Estimated time (ms)"] == pytest.approx(80.0)
    assert "tf-hparams-dashboard" in dom
