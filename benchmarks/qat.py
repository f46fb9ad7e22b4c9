"""Quantization-aware training against tfmot's: what it costs, and what it brings.

    python benchmarks/qat.py DATA_DIR [--only cost|accuracy] [--seeds 5]
    python benchmarks/qat.py --table

tfmot takes Keras 2 models only, so it runs in a process of its own (`rival.py` and
`tfmot_baseline.py`): the same architecture of stock layers with the same weights, the
same batches in the same order, the same epochs, optimizer and learning rate.

Cost, MobileNetV2 alpha 0.35 at 96 px, batches of 32: the step of float Keras 3 and
ours, and of float Keras 2 and tfmot, in turns, all as they compile by default;
making the model quantization-aware; how often our switch traces the step; the peak
memory of a training, each in its own process.

Accuracy, an easy setting (scikit-learn's digits) and a hard one (a folder of images,
channels of unlike scale, see `qat_accuracy.spread_channels`). One float training a
seed; from its weights go on, for the same epochs: float training, then post-training
quantization; our callback; tfmot. Accuracies are TFLM's on the int8 files. The grid of
tfmot's input is its own, and its file gets images that are rounded to it. "Training
graph" is what Keras evaluates: our view, or tfmot's quantized model.

Writes benchmarks/results/qat.json after every seed and goes on from there when started
again; remove it to measure anew. On two quiet cores the cost takes about 10 minutes,
a seed of both settings about 6.
"""

import argparse
import dataclasses
import os
import pathlib
import statistics
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from common import RESULTS, Results, markdown, run_or_show, spread

PATH = RESULTS / "qat.json"
HALVES = ("cost", "accuracy")
VARIANTS = {
    "float_tuned": "float in Keras",
    "ptq_tuned": "the same, rounded afterwards",
    "ours": "`omv.QuantizationAwareTraining`",
    "tfmot": "tfmot",
}
RATIOS = {
    "ours_to_float": "step, ours to float Keras 3",
    "tfmot_to_its_float": "step, tfmot to float Keras 2",
    "ours_to_tfmot": "step, ours to tfmot",
}
MEMORY_RATIOS = (
    ("peak memory of the process, ours to float Keras 3", "ours", "float"),
    ("peak memory of the process, tfmot to float Keras 2", "tfmot", "keras2"),
)


def run(options: argparse.Namespace) -> None:
    """Measures what is not measured yet."""
    # Slow to import, and not needed for the table.
    import qat_accuracy
    import qat_cost

    settings, cost = qat_accuracy.SETTINGS, qat_cost.Settings()
    if options.tiny:
        settings = {"tiny": qat_accuracy.TINY}
        cost = qat_cost.TINY
    results = Results(
        options.results,
        command="python benchmarks/qat.py DATA_DIR",
        settings={
            "cost": dataclasses.asdict(cost),
            **{name: dataclasses.asdict(one) for name, one in settings.items()},
        },
    )
    if "cost" in options.only:
        for part, function in qat_cost.PARTS.items():
            results.measure({"half": "cost", "part": part}, lambda f=function: f(cost))
    if "accuracy" in options.only:
        measure_accuracy(results, settings, options)


def measure_accuracy(
    results: Results, settings: dict[str, Any], options: argparse.Namespace
) -> None:
    """Measures every setting with every seed."""
    import qat_accuracy

    for name, setting in settings.items():
        data = qat_accuracy.load(setting, options.folder)
        for seed in range(options.seeds):
            task = qat_accuracy.Task(setting, data, seed)
            key = {"half": "accuracy", "setting": name, "seed": seed}
            results.measure(key, lambda task=task: qat_accuracy.measure(task))


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    """One line for each way; means over the seeds, with standard deviations."""
    lines = []
    for setting in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == setting]
        for name, title in VARIANTS.items():
            values = [row[name] for row in mine]
            lines.append((f"{setting}: {title}", spread(values), *_beside(name, mine)))
    head = ("accuracy, %", "mean", "to rounding afterwards", "training graph to device")
    return markdown(head, lines)


def _beside(name: str, rows: list[dict[str, Any]]) -> tuple[str, str]:
    """The paired difference, and how far the training graph is from the device."""
    if name not in ("ours", "tfmot"):
        return "", ""
    pairs = [row[name] - row["ptq_tuned"] for row in rows]
    gaps = [abs(row[f"{name}_graph"] - row[name]) for row in rows]
    return spread(pairs, signed=True), f"{100 * statistics.fmean(gaps):.2f} points"


def cost_table(rows: list[dict[str, Any]]) -> str:
    """The ratios of one run, and the seconds of the preparation."""
    parts = {row["part"]: row for row in rows}
    lines = []
    if steps := parts.get("steps"):
        lines += [
            (t, f"{steps['step_ratios'][name]:.2f}") for name, t in RATIOS.items()
        ]
        lines.append(("making the model quantization-aware, tfmot", _seconds(steps)))
    if preparation := parts.get("preparation"):
        lines.append(
            ("making the model quantization-aware, ours", _seconds(preparation))
        )
    if switch := parts.get("switch"):
        traces = switch["traces_of_epochs"]
        lines += [
            ("traces of the step at the switch", str(traces[switch["switch_epoch"]])),
            ("traces as ranges freeze", str(traces[switch["freeze_epoch"]])),
        ]
    if memory := parts.get("memory"):
        for title, one, other in MEMORY_RATIOS:
            peaks = memory[one]["peak_bytes"], memory[other]["peak_bytes"]
            lines.append((title, f"{peaks[0] / peaks[1]:.2f}"))
    return markdown(("cost", "figure"), lines)


def _seconds(row: dict[str, Any]) -> str:
    times = row["preparation_seconds"]
    return f"{statistics.median(times):.2f} s, the first {times[0]:.2f} s"


def table(content: dict[str, Any]) -> str:
    """The README's tables of what was measured."""
    makers = {"cost": cost_table, "accuracy": accuracy_table}
    rows = {
        half: [row for row in content["rows"] if row["half"] == half] for half in HALVES
    }
    return "\n\n".join(makers[half](rows[half]) for half in HALVES if rows[half])


def main() -> None:
    """Measures and prints, or prints the tables of what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--only", choices=HALVES, nargs="+", default=HALVES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--tiny", action="store_true", help="only to see that all works"
    )
    run_or_show(parser, PATH, run, table)


if __name__ == "__main__":
    main()
