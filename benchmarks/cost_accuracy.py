"""How close four estimates come to the camera's RAM, and two to a file's size.

    python benchmarks/cost_accuracy.py [FOLDER]

FOLDER holds .tflite files and device-ram.json with what the firmware reported for each
(`ml.Model(...).ram`), by default tests/data/device-ram. The estimates of the RAM:

- keras_omv: `keras_omv.arena`, which knows nothing of the measurements.
- working set: the largest sum of live tensors, as tflite-tools computes it (outputs of
  an operation and all that is still needed; no scratch, no structures). It is bounded
  from below by any arena.
- wheel: what the tflite_micro package's interpreter takes on this PC, in a process of
  its own, because TFLM aborts on some files. Skipped where it is not installed.

The file's size is compared with the count of parameters at one byte each, and with the
sum of the weights' and biases' bytes. Results go to benchmarks/results/
cost_accuracy.json; `--table` prints the README's table of them.
"""

import argparse
import importlib.util
import json
import pathlib
import re
import statistics
import subprocess
import sys

from common import RESULTS, markdown, run_or_show, stamp, write

from keras_omv import arena, flatbuffer
from keras_omv.network import Network

PATH = RESULTS / "cost_accuracy.json"
FOLDER = pathlib.Path(__file__).parent.parent / "tests" / "data" / "device-ram"
ESTIMATES = {
    "keras_omv": "keras_omv",
    "wheel": "tflite_micro wheel on a PC",
    "working_set": "sum of live tensors (tflite-tools)",
}
EXTRA_BYTES = 512
"""What the firmware adds to any arena; given to the wheel too."""

WHEEL = """
import sys
from tflite_micro import runtime
interpreter = runtime.Interpreter.from_file(sys.argv[1], arena_size=1 << 24)
interpreter.print_allocations()
"""


def working_set_bytes(network: Network) -> int:
    """Return the largest sum of live tensors over the operations."""
    last_use = {index: len(network.ops) for index in network.outputs}
    for place, op in reversed(list(enumerate(network.ops))):
        for index in (*op.inputs, *op.outputs):
            last_use.setdefault(index, place)
    live, largest = set(network.inputs), 0
    for place, op in enumerate(network.ops):
        live |= {*op.outputs}
        used = live | {*op.inputs}
        sizes = [network.tensors[i] for i in used if i >= 0]
        largest = max(largest, sum(t.size_bytes for t in sizes if not t.is_constant))
        live = {index for index in live if last_use[index] > place}
    return largest


def wheel_bytes(path: pathlib.Path) -> int | None:
    """Return the arena of the tflite_micro package, `None` where it has none."""
    if importlib.util.find_spec("tflite_micro") is None:
        return None
    command = [sys.executable, "-c", WHEEL, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    found = re.search(r"Arena allocation total (\d+) bytes", text)
    return int(found[1]) + EXTRA_BYTES if found else None


def weight_bytes(network: Network) -> int:
    """Return the bytes of all constants."""
    return sum(t.data.nbytes for t in network.tensors if t.data is not None)


def measure(path: pathlib.Path, known: dict[str, int]) -> dict[str, int | str | None]:
    """Return the true figures of a file and the estimates of them."""
    data = path.read_bytes()
    network = flatbuffer.read(data)
    m55 = known.get("device_ram_bytes_m55")
    return {
        "file": path.name,
        "device_ram_bytes": known["device_ram_bytes"],
        "keras_omv_ram_bytes": arena.plan(network).ram_bytes,
        "working_set_ram_bytes": working_set_bytes(network),
        "wheel_ram_bytes": wheel_bytes(path),
        "device_ram_bytes_m55": m55,
        "keras_omv_ram_bytes_m55": arena.plan(network, "cortex-m55").ram_bytes
        if m55
        else None,
        "file_bytes": len(data),
        "parameters": network.parameters,
        "weight_bytes": weight_bytes(network),
    }


def error_percent(estimate: int | None, truth: int) -> float | None:
    """Return how far an estimate is from the truth; below zero where too low."""
    return None if estimate is None else 100 * (estimate - truth) / truth


def errors(rows: list[dict], key: str, truth: str) -> list[float]:
    """Return the errors of one estimate, in percent."""
    values = [error_percent(row[key], row[truth]) for row in rows if row[truth]]
    return [value for value in values if value is not None]


def summary(values: list[float]) -> dict[str, float | int]:
    """Return how many, the mean size of the errors, and their range."""
    return {
        "files": len(values),
        "mean_percent": round(statistics.fmean(map(abs, values)), 2),
        "lowest_percent": round(min(values), 2),
        "highest_percent": round(max(values), 2),
    }


def summaries(rows: list[dict]) -> dict[str, dict]:
    """Return the summary of every estimate."""
    pairs = {
        **{f"{key}_ram_bytes": "device_ram_bytes" for key in ESTIMATES},
        "keras_omv_ram_bytes_m55": "device_ram_bytes_m55",
        "parameters": "file_bytes",
        "weight_bytes": "file_bytes",
    }
    found = {key: errors(rows, key, truth) for key, truth in pairs.items()}
    return {key: summary(values) for key, values in found.items() if values}


def table(content: dict) -> str:
    """Return the README's table: each estimate, and how far it is off."""
    titles = {
        **{f"{key}_ram_bytes": f"RAM: {title}" for key, title in ESTIMATES.items()},
        "keras_omv_ram_bytes_m55": "RAM on the Cortex-M55: keras_omv",
        "parameters": "File: count of parameters",
        "weight_bytes": "File: bytes of weights and biases",
    }
    lines = [
        (
            title,
            str(row["files"]),
            f"{row['mean_percent']:.1f} %",
            f"{row['lowest_percent']:+.1f} %",
            f"{row['highest_percent']:+.1f} %",
        )
        for key, title in titles.items()
        if (row := content["summary"].get(key)) is not None
    ]
    return markdown(("estimate", "files", "mean error", "lowest", "highest"), lines)


def file_lines(rows: list[dict]) -> str:
    """Return one line for each file: the true RAM and the estimates' errors."""
    lines = [f"{'file':30} {'device':>8} {'ours':>8} {'set':>8} {'wheel':>8}  B"]
    for row in rows:
        truth = row["device_ram_bytes"]
        offs = [error_percent(row[f"{k}_ram_bytes"], truth) for k in ESTIMATES]
        shown = ["-" if off is None else f"{off:+.1f} %" for off in offs]
        ours, wheel, live = (f"{text:>8}" for text in shown)
        lines.append(f"{row['file']:30} {truth:8} {ours} {live} {wheel}")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> None:
    """Measure every file of a folder that device-ram.json knows."""
    folder = options.folder
    known = json.loads((folder / "device-ram.json").read_text())["models"]
    rows = [measure(folder / name, known[name]) for name in sorted(known)]
    figures = {"summary": summaries(rows), "files": rows}
    command = "python benchmarks/cost_accuracy.py"
    write(options.results, {"command": command, **stamp(), **figures})
    print(file_lines(rows))


def main() -> None:
    """Measure, write and print, or print the table of what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=FOLDER)
    run_or_show(parser, PATH, run, table)


if __name__ == "__main__":
    main()
