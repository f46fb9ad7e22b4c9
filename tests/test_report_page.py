"""report.html: looked at in a browser, alone, whatever the classes are called."""

import base64
import dataclasses
import html.parser
import io
import re

import browser
import exports
import numpy as np
import pytest
from PIL import Image

import keras_omv as omv
from keras_omv import verify
from keras_omv.evaluation import DeviceRun
from keras_omv.memory_map import memory_map
from keras_omv.report_page import LARGEST_TABLE, WORST_MISTAKES, page
from keras_omv.verify import Scores

HOSTILE = (
    "<script>alert(1)</script>",
    "\"' onmouseover='x",
    "</title></style>&lt;{{ 7 * 7 }}",
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    models = {"small & <quick>": exports.make_model(4), "large": exports.make_model(8)}
    return exports.make_export(tmp_path_factory.mktemp("camera") / "out", models)


@pytest.fixture(scope="module")
def text(exported):
    return exported.text("report.html")


class Reader(html.parser.HTMLParser):
    """Collects a page's visible text, its tags and their attributes."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.attributes, self._open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag in ("style", "script"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if self._open and tag == self._open[-1]:
            self._open.pop()

    def handle_data(self, data):
        if not self._open:
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.words))

    def values(self, name):
        return [value for _, found, value in self.attributes if found == name]


def test_the_page_shows_verdict_accuracies_candidates_and_next_step(exported, text):
    report, shown = exported.report, Reader(text).text
    accuracy = report.accuracy
    assert "Fits OpenMV Cam H7" in shown
    for share in (accuracy.int8, accuracy.float32, accuracy.camera.int8):
        assert f"{100 * share:.1f} %" in shown
    for name in (*exports.NAMES, "small & <quick>", "large"):
        assert name in shown
    assert report.choice in shown
    assert "Copy" in shown or "Add" in shown
    assert report.sha256 in shown
    for how in ("exact: the size of model.tflite", "estimated: from MACs"):
        assert how in shown


def test_every_count_of_the_confusion_matrix_is_in_the_table(exported, text):
    table = text[text.index('<table class="heat">') :]
    cells = re.findall(r'<td class="(?:right|cell)[^>]*>(\d+)</td>', table)
    counts = [count for row in exported.report.accuracy.confusion for count in row]
    assert list(map(int, cells)) == counts


def test_the_page_stands_alone(text):
    reader = Reader(text)
    assert "script" not in reader.tags
    assert "link" not in reader.tags
    addresses = [*reader.values("src"), *reader.values("href")]
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")


def test_the_surest_mistakes_are_shown_as_pictures(exported, text):
    mistakes = [p for p in Reader(text).values("src") if p.startswith("data:")]
    wrong = exported.report.accuracy.images - sum(
        row[index] for index, row in enumerate(exported.report.accuracy.confusion)
    )
    assert 0 < len(mistakes) == min(WORST_MISTAKES, wrong)
    data = base64.b64decode(mistakes[0].partition(",")[2])
    shown = np.asarray(Image.open(io.BytesIO(data)))
    index = int(re.search(r'alt="Evaluation image (\d+)"', text).group(1))
    assert np.array_equal(shown, exported.images[index].astype("uint8"))


def render(exported, **changes):
    """The page of a report that was changed, on the same network."""
    from keras_omv import flatbuffer

    model = (exported.folder / "model_desktop.tflite").read_bytes()
    network = flatbuffer.read(model)
    values = np.full((2, 3), -128, "int8")
    values[0, 0], values[1, 2] = 127, 60
    pixels = exported.images[:2].astype("uint8")
    run = DeviceRun(network, pixels, np.array([1, 0]), Scores(values, "tflite_micro"))
    board = changes.pop("board", omv.get_board(exports.BOARD))
    report = dataclasses.replace(exported.report, **changes)
    return page(report, board=board, network=network, run=run)


def test_class_names_stay_text_whatever_they_hold(exported):
    reader = Reader(render(exported, class_names=HOSTILE))
    assert "script" not in reader.tags
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    for name in HOSTILE:
        assert re.sub(r"\s+", " ", name) in reader.text
    assert "49" not in reader.text.split("Surest mistakes")[1].split("Memory")[0]


def test_mistakes_come_with_the_confidence_of_the_device(exported):
    shown = Reader(render(exported)).text
    assert f"{exports.NAMES[0]} 99.6 %" in shown
    assert shown.index("99.6 %") < shown.index("73.4 %")


def test_a_model_that_does_not_fit_is_told_what_would(exported):
    board = omv.Budget(ram_bytes=2_000)
    fit = board.fit(exported.report.cost)
    shown = Reader(render(exported, board=board, fit=fit, budget=board)).text
    assert "Does not fit the budget" in shown
    assert "How to make it fit" in shown
    assert "smaller resolution or alpha" in shown
    assert re.search(r"As it is, it fits .*openmv-h7-plus", shown)
    assert f"{exported.report.cost.ram_bytes - 2_000:,} bytes over the limit" in shown


def test_a_gap_between_training_and_device_is_a_warning(exported):
    accuracy = dataclasses.replace(
        exported.report.accuracy, agreement=0.95, fake_quantized=0.0
    )
    shown = Reader(render(exported, accuracy=accuracy)).text
    assert "View and device agree on 95.0%" in shown
    assert "points apart; at most 0.3 are expected" in shown


def test_the_view_is_not_called_training(exported):
    shown = Reader(render(exported, quantization="calibrated")).text
    assert "Quantized view the camera's integers, computed in TensorFlow" in shown
    assert "training graph" not in shown.lower()
    assert "In training" not in shown


def test_the_lead_says_what_computed_the_accuracy(exported):
    accuracy = exported.report.accuracy
    assert "computed as the camera computes" in Reader(render(exported)).text
    litert = dataclasses.replace(accuracy, runtime=verify.LITERT)
    shown = Reader(render(exported, accuracy=litert)).text
    assert "computed as the camera computes" not in shown
    assert "which may differ from the camera by a step" in shown


def test_a_camera_with_a_compiler_is_promised_nothing_exact(exported):
    report = dataclasses.replace(exported.report, board="openmv-n6")
    shown = Reader(render(dataclasses.replace(exported, report=report))).text
    assert "estimated; the compiler decides" in shown
    assert "before compilation, in TFLM" in shown
    assert "Time of one image" not in shown
    assert "computed as the camera computes" not in shown


def test_ram_on_older_firmware_is_not_called_exact(exported):
    shown = Reader(render(exported, firmware="4.7.0")).text
    assert "as firmware 5.0; older ones differ" in shown
    assert "older ones differ" not in Reader(render(exported)).text


def test_the_next_steps_go_by_the_accuracies(exported):
    accuracy = exported.report.accuracy
    worse = dataclasses.replace(
        accuracy.camera, int8=accuracy.camera.int8_clean - 0.1, images=60
    )
    changed = dataclasses.replace(accuracy, camera=worse, agreement=0.9)
    steps = Reader(render(exported, accuracy=changed)).text
    size = exported.report.input_shape[1]
    assert "RGB565 costs 10.0 points: train on what the camera sees" in steps
    assert f"dataset.map(omv.camera_view({size}))" in steps
    assert "agree less than they should" in steps
    few = dataclasses.replace(worse, images=40)  # Four answers are chance.
    chance = dataclasses.replace(accuracy, camera=few)
    assert "RGB565 costs" not in Reader(render(exported, accuracy=chance)).text
    fine = Reader(render(exported)).text
    assert "RGB565 costs" not in fine
    assert "agree less" not in fine


def test_many_classes_are_listed_as_pairs(exported):
    count = LARGEST_TABLE + 1
    confusion = np.diag(np.full(count, 8))
    confusion[3, 5] = 4
    accuracy = dataclasses.replace(
        exported.report.accuracy, confusion=tuple(map(tuple, confusion.tolist()))
    )
    names = tuple(f"class {index}" for index in range(count))
    text = render(exported, accuracy=accuracy, class_names=names)
    assert '<table class="heat">' not in text
    assert "class 3 class 5 4 33.3 %" in re.sub(
        r"\s+", " ", re.sub(r"<[^>]+>", " ", text)
    )


def test_the_memory_map_is_the_arena_of_the_cost(exported):
    from keras_omv import flatbuffer

    model = (exported.folder / "model.tflite").read_bytes()
    network, arena = flatbuffer.read(model), exported.report.cost.arena
    drawn = memory_map(network, arena, limit_bytes=arena.ram_bytes + 100)
    assert max(block.bottom + block.height for block in drawn.blocks) == arena.ram_bytes
    live = arena.peak_activation_bytes + arena.peak_scratch_bytes
    assert drawn.peak.live_bytes == drawn.fullest[0].live_bytes == live
    assert drawn.limit_bytes == arena.ram_bytes + 100
    assert memory_map(network, arena, limit_bytes=10**9).limit_bytes is None
    moving = [block for block in drawn.blocks if block.kind != "fixed"]
    for one in moving:
        for other in moving:
            if one is not other and _share_time(one, other):
                assert not _share_bytes(one, other), (one, other)


def _share_time(one, other):
    return one.left < other.left + other.width and other.left < one.left + one.width


def _share_bytes(one, other):
    return (
        one.bottom < other.bottom + other.height
        and other.bottom < one.bottom + one.height
    )


needs_browser = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="chromium is not installed"
)


@needs_browser
def test_a_browser_opens_it_without_errors_or_requests(exported, tmp_path):
    path = exported.folder / "report.html"
    seen = browser.visit(path, tmp_path)
    assert seen.console == ()
    assert seen.requests == ()
    shown = Reader(seen.dom).text
    for name in (*exports.NAMES, "Memory over time", "Surest mistakes"):
        assert name in shown
    assert seen.dom.count("<rect") == exported.text("report.html").count("<rect")


@needs_browser
def test_a_browser_reports_what_the_page_may_not_do(tmp_path):
    """So that the test above can fail."""
    path = tmp_path / "bad.html"
    address = "http://127.0.0.1:9/other.png"
    path.write_text(f"<script>nothing.there()</script><img src={address}>")
    seen = browser.visit(path, tmp_path)
    assert any("nothing is not defined" in line for line in seen.console)
    assert seen.requests == (address,)


@needs_browser
@pytest.mark.parametrize("width", [500, 1200])
def test_the_page_is_painted_to_its_edges_and_not_wider(exported, tmp_path, width):
    """What a card shows ends before the page does: nothing hangs over its edge."""
    path = browser.picture(exported.folder / "report.html", tmp_path, width=width)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype("int16")
    assert pixels.shape[1] == width
    ground = pixels[2, 2]
    differs = np.abs(pixels - ground).max(axis=-1) > 8
    assert not differs[:, :8].any()
    assert not differs[:, -8:].any()
    assert differs.mean() > 0.2
