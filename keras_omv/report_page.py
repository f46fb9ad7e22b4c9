"""report.html: one page about an export, to look at rather than to read.

It stands alone: styles and pictures are in it, it has no scripts and loads nothing.
The layout is `templates/report.html` (Jinja2, which escapes every text); this module
gives it numbers and sentences.
"""

import base64
import dataclasses
import functools
import io
from collections.abc import Mapping

import jinja2
import numpy as np
from PIL import Image

from keras_omv.boards import Board, Budget
from keras_omv.evaluation import Accuracy, DeviceRun, Mistake
from keras_omv.front_map import front_map
from keras_omv.memory_map import memory_map
from keras_omv.network import Network
from keras_omv.report import ExportReport, how
from keras_omv.report_figures import is_exact_release, versions
from keras_omv.report_steps import next_steps
from keras_omv.space import ALPHAS
from keras_omv.space_map import SIDES, SpaceMap, space_map
from keras_omv.units import format_bytes
from keras_omv.verify import TFLM

WORST_MISTAKES = 12
LARGEST_TABLE = 16
"""More classes than that are listed as pairs: a table of them is not readable."""
LISTED_PAIRS = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Bar:
    """A size beside its limit.

    Attributes:
        name: What it is of.
        used_bytes: What the model takes.
        limit_bytes: What the camera has, `None` for no limit.
        over_bytes: By how much it is over, 0 where it is not.
        place: Where it lies.
    """

    name: str
    used_bytes: int
    limit_bytes: int | None
    over_bytes: int
    place: str

    @property
    def end_bytes(self) -> int:
        """What the bar's right end stands for."""
        return max(self.used_bytes, self.limit_bytes or self.used_bytes, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """One accuracy.

    Attributes:
        name: What was measured.
        value: The share.
        note: On what.
        is_device: Whether it is what the camera does.
    """

    name: str
    value: float
    note: str
    is_device: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """How often one class is taken for another."""

    truth: str
    predicted: str
    count: int
    share: float


def page(
    report: ExportReport,
    *,
    board: Board | Budget,
    network: Network,
    run: DeviceRun | None,
    made_with: Mapping[str, str | None] | None = None,
) -> str:
    """The text of report.html.

    Args:
        report: The export's figures.
        board: The camera.
        network: The network, with the names of its layers.
        run: Its answers to the evaluation images, `None` without.
        made_with: Versions of Python and the packages. Defaults to `None`: those that
            are installed.
    """
    arena, accuracy = report.cost.arena, report.accuracy
    limit_bytes = report.fit.ram_limit_bytes
    return _template().render(
        report=report,
        camera=board.title if isinstance(board, Board) else "budget",
        verdict=_verdict(report, board),
        ram_note=_ram_note(report),
        computed=_computed(report),
        bars=_bars(report),
        shares=_shares(report, accuracy) if accuracy else (),
        accuracy=accuracy,
        has_table=len(report.class_names) <= LARGEST_TABLE,
        pairs=_pairs(accuracy, report.class_names) if accuracy else (),
        mistakes=run.worst_mistakes(WORST_MISTAKES) if run else (),
        map=arena and memory_map(network, arena, limit_bytes=limit_bytes),
        space=_space(report, board),
        sides=SIDES,
        alphas=ALPHAS,
        front=front_map(report.trials, report.cost.flash_bytes),
        steps=next_steps(report, board),
        how=how(report),
        versions=versions() if made_with is None else made_with,
    )


def _space(report: ExportReport, board: Board | Budget) -> SpaceMap:
    """Which MobileNetV2s fit the camera, for the same images and classes."""
    _, height, width, channels = report.input_shape
    return space_map(
        board,
        classes=len(report.class_names),
        channels=3 if channels == 3 else 1,
        marked=width if height == width else None,
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_omv", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["size"] = format_bytes
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    environment.filters["points"] = lambda share: f"{100 * share:+.1f}"
    environment.filters["milliseconds"] = lambda time_ms: f"{time_ms:.3g} ms"
    environment.filters["picture"] = _picture
    return environment.get_template("report.html")


def _picture(mistake: Mistake) -> str:
    """The address of an inline PNG."""
    pixels = mistake.pixels
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _verdict(report: ExportReport, board: Board | Budget) -> dict[str, str]:
    name = board.title if isinstance(board, Board) else board.label
    if not report.fits:
        return {"state": "bad", "text": f"Does not fit {name}"}
    if report.needs_compiler and not report.is_compiled:
        return {"state": "fair", "text": f"Must be compiled for {name}"}
    return {"state": "good", "text": f"Fits {name}"}


def _bars(report: ExportReport) -> tuple[Bar, Bar]:
    fit, cost = report.fit, report.cost
    return (
        Bar(
            "Flash",
            cost.flash_bytes,
            fit.flash_limit_bytes,
            fit.flash_over_bytes,
            {"romfs": "in ROMFS", "flash": "on /flash", "sdcard": "on the SD card"}.get(
                fit.storage, ""
            ),
        ),
        Bar(
            "RAM",
            cost.ram_bytes,
            fit.ram_limit_bytes,
            fit.ram_over_bytes,
            f"in {fit.arena_memory}" if fit.arena_memory else "",
        ),
    )


def _ram_note(report: ExportReport) -> str:
    if report.runs_compiled:
        return "estimated; the compiler decides"
    if is_exact_release(report.firmware):
        return "exact"
    return "as firmware 5.0; older ones differ"


def _computed(report: ExportReport) -> str:
    """What the device's accuracy was computed by."""
    runtime = report.accuracy.runtime if report.accuracy else TFLM
    name = "TFLM" if runtime == TFLM else runtime
    if report.runs_compiled:
        return f"before compilation, in {name}"
    if runtime == TFLM:
        return "computed as the camera computes"
    return f"computed in {name}, which may differ from the camera by a step"


def _shares(report: ExportReport, accuracy: Accuracy) -> tuple[Share, ...]:
    camera = accuracy.camera
    kept = "grey as they are" if report.is_grey else "RGB565, not scaled"
    seen = f"{camera.images:,} images in {kept}"
    if camera.images < accuracy.images:
        seen += f"; {100 * camera.int8_clean:.1f} % on the same ones as they are"
    view = "the camera's integers, computed in TensorFlow"
    before = ", before compilation" if report.runs_compiled else ""
    device = f"int8, {accuracy.runtime}{before}"
    return (
        Share("Keras model", accuracy.float32, "float32", False),
        Share("Quantized view", accuracy.fake_quantized, view, False),
        Share("On the device", accuracy.int8, device, True),
        Share("In the camera's colours", camera.int8, seen, True),
    )


def _pairs(accuracy: Accuracy, names: tuple[str, ...]) -> list[Pair]:
    """What is most often taken for something else."""
    counts = np.array(accuracy.confusion)
    wrong = counts * (1 - np.eye(len(counts), dtype="int64"))
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED_PAIRS]
    rows, columns = np.unravel_index(order, wrong.shape)
    return [
        Pair(
            names[row],
            names[column],
            int(wrong[row, column]),
            float(wrong[row, column] / counts[row].sum()),
        )
        for row, column in zip(rows, columns, strict=True)
        if wrong[row, column]
    ]
