"""The pictures show the figures of the package, and name what they show."""

import subprocess
import sys

import pytest

import keras_omv as omv
from keras_omv.architecture import Levers
from keras_omv.charts import VERMILION
from keras_omv.results import TrialResult, write_result
from keras_omv.screening import cost_of_levers

FOUND = (
    # alpha, resolution, int8 accuracy, whether it was stopped
    (0.05, 32, 0.60, False),
    (0.1, 48, 0.72, False),
    (0.1, 64, 0.70, False),
    (0.2, 64, 0.65, True),
    (0.35, 64, 0.81, False),
)


def trial(number, alpha, resolution, accuracy, stopped):
    levers = Levers(alpha=alpha, resolution=resolution, classes=5, depth=6)
    cost = cost_of_levers(levers)
    return TrialResult(
        trial_id=str(number),
        levers=levers,
        training={},
        epochs=2,
        initial_epoch=0,
        int8_accuracy=accuracy,
        val_accuracy=(accuracy,),
        flash_bytes=cost.flash_bytes,
        ram_bytes=cost.ram_bytes,
        macs=cost.macs,
        latency_ms=cost.latency_ms,
        started_from="",
        stopped=stopped,
        duration_s=1.0,
        model_trial_id=str(number),
    )


@pytest.fixture
def tuner(tmp_path):
    """A tuner whose trials are done."""
    tuner = omv.MobileNetV2Tuner(
        omv.Budget(ram_bytes=200_000),
        classes=5,
        alphas=(0.05,),
        resolutions=(32,),
        directory=tmp_path,
        project_name="search",
    )
    for number, found in enumerate(FOUND):
        folder = tmp_path / "search" / f"trial_{number}"
        folder.mkdir(parents=True)
        write_result(folder, trial(number, *found))
    return tuner


def offsets(axes):
    """The points of each scatter, by its label."""
    return {
        group.get_label(): {tuple(point) for point in group.get_offsets().tolist()}
        for group in axes.collections
    }


def saved(figure, folder):
    """Draws everything, as a user does who saves it."""
    path = folder / "picture.png"
    figure.savefig(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("cost", "divisor", "label"),
    [
        ("flash_bytes", 1024, "flash (KiB)"),
        ("ram_bytes", 1024, "RAM (KiB)"),
        ("macs", 1e6, "multiply-accumulates of one inference (millions)"),
        ("latency_ms", 1, "estimated time of one inference (ms)"),
    ],
)
def test_pareto_shows_every_trial_and_the_front(tuner, tmp_path, cost, divisor, label):
    figure = omv.plot_pareto(tuner, cost=cost)
    (axes,) = figure.axes
    shown = offsets(axes)
    assert {point for group in shown.values() for point in group} == {
        (getattr(result, cost) / divisor, result.int8_accuracy)
        for result in tuner.results()
    }
    front = [
        (getattr(result, cost) / divisor, result.int8_accuracy)
        for result in tuner.pareto(cost)
    ]
    assert shown["the front: alpha / pixels"] == set(front)
    assert [tuple(point) for point in axes.lines[0].get_xydata().tolist()] == front
    assert [text.get_text() for text in axes.texts] == [
        f"{result.levers.alpha:g} / {result.levers.resolution}"
        for result in tuner.pareto(cost)
    ]
    assert axes.get_xlabel() == label
    assert saved(figure, tmp_path).startswith(b"\x89PNG")


def test_pareto_tells_stopped_trials_from_beaten_ones(tuner):
    shown = offsets(omv.plot_pareto(tuner, cost="latency_ms").axes[0])
    accuracies = {label: {y for _, y in points} for label, points in shown.items()}
    assert accuracies == {
        "stopped early": {0.65},
        "beaten by another trial": {0.70},
        "the front: alpha / pixels": {0.60, 0.72, 0.81},
    }


def test_pareto_needs_trials_and_a_known_cost(tuner, tmp_path):
    with pytest.raises(ValueError, match=r"Expected one of flash_bytes, .*'accuracy'"):
        omv.plot_pareto(tuner, cost="accuracy")
    for path in (tmp_path / "search").glob("trial_*/result.json"):
        path.unlink()
    with pytest.raises(omv.SearchError, match=r"Received: none\. Next step: tuner\.se"):
        omv.plot_pareto(tuner)


def test_memory_draws_the_planned_arena_up_to_the_models_ram(tmp_path):
    cost = omv.estimate(alpha=0.35, resolution=96, classes=5, board="openmv-h7")
    figure = omv.plot_memory(cost, "openmv-h7")
    (axes,) = figure.axes
    *blocks, rest, peak = axes.containers
    drawn = {
        (bar.get_x(), bar.get_width(), 1024 * bar.get_y(), 1024 * bar.get_height())
        for group in blocks
        for bar in group
    }
    assert drawn == {
        (max(0, b.first_op), b.last_op - max(0, b.first_op) + 1, b.offset, b.size_bytes)
        for b in cost.arena.buffers
    }
    (stays,) = rest
    assert 1024 * stays.get_y() == cost.arena.head_bytes
    assert 1024 * (stays.get_y() + stays.get_height()) == cost.ram_bytes
    (fullest,) = peak
    assert fullest.get_x() == cost.arena.peak_op
    (name,) = axes.texts
    assert name.get_text() == "peak: block_1_depthwise, 135.00 KiB alive"
    assert saved(figure, tmp_path).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["openmv-h7", "arduino-nicla-vision"])
def test_memory_draws_the_limit_that_the_camera_has_for_this_model(name):
    board = omv.get_board(name)
    cost = omv.estimate(alpha=0.35, resolution=96, classes=5, board=board)
    (axes,) = omv.plot_memory(cost, board).axes
    (line,) = axes.lines
    assert line.get_color() == VERMILION
    assert {1024 * y for y in line.get_ydata()} == {board.fit(cost).ram_limit_bytes}
    assert line.get_label().startswith(f"limit of {name} (firmware 5.0.0): ")


def test_memory_keeps_a_limit_far_above_out_of_the_picture():
    cost = omv.estimate(alpha=0.35, resolution=96, classes=5)
    (axes,) = omv.plot_memory(cost, omv.Budget(ram_bytes=8 * cost.ram_bytes)).axes
    assert axes.get_ylim()[1] < 1.2 * cost.ram_bytes / 1024
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "limit of the budget: 1.57 MiB, far above" in texts


def test_memory_without_a_limit_draws_none():
    cost = omv.estimate(alpha=0.1, resolution=32, classes=2)
    for board in (None, omv.Budget(flash_bytes=10_000)):
        (axes,) = omv.plot_memory(cost, board).axes
        assert not axes.lines


def test_memory_needs_the_arena():
    point = omv.feasible_points("openmv-h7", classes=2, resolutions=32, limit=1)[0]
    with pytest.raises(ValueError, match=r"Next step: omv\.estimate"):
        omv.plot_memory(point.cost)


def test_space_shows_each_point_with_what_stops_it(tmp_path):
    board = omv.get_board("openmv-h7")
    alphas, resolutions = (0.05, 0.25, 0.35, 1.4), (32, 96, 128, 224)
    figure = omv.plot_space(
        board, classes=5, alphas=alphas[::-1], resolutions=resolutions
    )
    (axes,) = figure.axes
    shown = {label.split(" (")[0]: found for label, found in offsets(axes).items()}
    for row, alpha in enumerate(alphas):
        for side in resolutions:
            cost = omv.estimate(alpha=alpha, resolution=side, classes=5, board=board)
            over = " ".join(board.fit(cost).over)
            flash, ram = "Expected flash of" in over, "Expected RAM of" in over
            expected = {
                (False, False): "fits",
                (True, False): "too much flash",
                (False, True): "too much RAM",
                (True, True): "too much of both",
            }[flash, ram]
            assert [label for label, p in shown.items() if (side, row) in p] == [
                expected
            ]
    assert all(shown.values()), "the points show every verdict"
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "0.05",
        "0.25",
        "0.35",
        "1.4",
    ]
    assert saved(figure, tmp_path).startswith(b"\x89PNG")


def test_space_counts_what_fits():
    points = omv.feasible_points(
        "openmv-h7-plus", classes=5, channels=1, head_channels=64, depths=6
    )
    figure = omv.plot_space(
        "openmv-h7-plus", classes=5, channels=1, head_channels=64, depth=6
    )
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    # Equal networks are listed once, but drawn for each alpha that makes them.
    assert len(points) < 15 * 25
    assert texts[0] == f"fits ({15 * 25})"
    label = figure.axes[0].get_xlabel()
    assert "grey, 5 classes, depth 6, last convolution 64" in label


def test_figures_need_no_display_and_leave_pyplot_alone():
    code = (
        "import sys, keras_omv as omv\n"
        "omv.plot_space('openmv-m7', classes=2, resolutions=(32,))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "keras-omv\[plots\]"'):
        omv.plot_space("openmv-m7", classes=2)
