"""What benchmarks share: the data, what figures were taken on, results, tables.

Imports neither Keras nor keras_omv at the top: `tfmot_baseline.py`, which runs with
Keras 2, takes its batches from here too.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results"
PACKAGES = (
    *("keras-omv", "keras", "tensorflow", "tf-keras", "numpy"),
    *("tensorflow-model-optimization", "tflite-micro", "ai-edge-litert"),
    *("keras-tuner", "optuna"),
)
PIXEL_SCALE, PIXEL_OFFSET = 1 / 127.5, -1.0
"""What makes pixels from 0 to 255 the values from -1 to 1 that networks take."""


def versions() -> dict[str, str]:
    """The versions that figures depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware() -> dict[str, Any]:
    """What a measurement runs on, and how busy that is."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }


def stamp() -> dict[str, Any]:
    """When, on what and with what figures are taken."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return {"hardware": hardware(), "versions": versions(), "date": today.isoformat()}


def write(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


class Results:
    """Rows of measurements in a JSON file, which is written after each of them.

    A benchmark that was stopped goes on where it was when it is started again with
    the same settings.

    Args:
        path: The file.
        command: What makes it.
        settings: What the rows were measured with; anything that JSON can hold.

    Raises:
        ValueError: If the file holds rows of other settings.
    """

    def __init__(self, path: pathlib.Path, *, command: str, settings: Any) -> None:
        settings = json.loads(json.dumps(settings))
        new = {"command": command, "settings": settings, "rows": []}
        content = json.loads(path.read_text()) if path.exists() else new
        if content.get("settings") != settings:
            raise ValueError(
                f"Expected rows of the settings at hand. Received: {path} with others. "
                "Remove the file to measure anew."
            )
        self.path = path
        self.content = content

    def measure(self, key: dict[str, Any], function: Callable[[], dict]) -> dict:
        """The row of a key; measured only if it is not there yet.

        Args:
            key: The entries that tell the row from all others.
            function: Returns the other entries.
        """
        for row in self.content["rows"]:
            if key.items() <= row.items():
                return row
        row = {**key, **function(), **stamp()}
        self.content["rows"].append(row)
        write(self.path, self.content)
        print(row, flush=True)
        return row


def run_or_show(
    parser: argparse.ArgumentParser,
    path: pathlib.Path,
    run: Callable[[argparse.Namespace], None],
    table: Callable[[dict[str, Any]], str],
) -> None:
    """Measures and prints the table, or prints the table of what was measured.

    Args:
        parser: With the benchmark's own options.
        path: Where results are, unless `--results` says otherwise.
        run: Measures, and writes to `options.results`.
        table: Makes the README's table of the results.
    """
    parser.add_argument("--results", type=pathlib.Path, default=path)
    parser.add_argument("--table", action="store_true", help="print the table only")
    options = parser.parse_args()
    if not options.table:
        run(options)
    print(table(json.loads(options.results.read_text())))


def scaled(images: np.ndarray) -> np.ndarray:
    """Pixels as networks without a layer for it take them, float32 in [-1, 1]."""
    return images.astype("float32") * np.float32(PIXEL_SCALE) + np.float32(PIXEL_OFFSET)


def orders(images: int, epochs: int, seed: int) -> np.ndarray:
    """In which order every epoch takes the images, `(epochs, images)`."""
    random = np.random.default_rng(seed)
    return np.stack([random.permutation(images) for _ in range(epochs)])


def batches(
    images: np.ndarray, labels: np.ndarray, order: np.ndarray, batch_size: int
) -> tuple[Any, int]:
    """The batches of a training, the same in every Keras.

    Args:
        images: Of shape `(n, height, width, channels)`.
        labels: Of shape `(n,)`.
        order: From `orders`.
        batch_size: Images of a step; those left over at an epoch's end are not used.

    Returns:
        A dataset over all epochs, and the steps of one of them.
    """
    import tensorflow as tf

    steps = order.shape[1] // batch_size
    source = tf.constant(images), tf.constant(labels)
    indices = order[:, : steps * batch_size].reshape(-1, batch_size)

    def take(chosen: Any) -> tuple[Any, ...]:
        return tuple(tf.gather(part, chosen) for part in source)

    dataset = tf.data.Dataset.from_tensor_slices(indices).map(take).prefetch(2)
    return dataset, steps


def status_bytes(name: str) -> int:
    """A memory figure of this process: `VmRSS`, or `VmHWM`, its peak (Linux).

    `resource.getrusage` would count the peak of the process that started this one.
    """
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(found.split()[1])


def spread(values: Iterable[float], *, signed: bool = False) -> str:
    """The mean and, of several, the standard deviation of shares, in percent."""
    percents = [100 * value for value in values]
    mean = f"{statistics.fmean(percents):{'+' if signed else ''}.1f}"
    return f"{mean} ± {statistics.stdev(percents):.1f}" if percents[1:] else mean


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    ruler = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *rows))
