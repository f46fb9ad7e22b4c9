"""Epochs that searches need, replayed on a table of trained networks.

    pip install optuna
    python benchmarks/search.py [--seeds 50]
    python benchmarks/search.py --table

benchmarks/search_table.py trained every network of a small space that fits a budget
and kept its accuracy after every epoch. Here searches propose networks and get their
answers from that table, in milliseconds. A search is done when it has trained a
network to the end whose int8 accuracy is within 0.5 percentage points of the table's
best; what counts is the sum of the epochs of all its trials till then. Each search
runs under the table's budget and under tighter ones, where other networks are best.

- ours: the tuner's default oracle and early stopping. It follows from the costs and
  the results alone: all seeds give the same.
- most MACs first: no oracle at all, to see what of ours is its first guess.
- random, hyperband: KerasTuner's, given the feasible space.
- random, max_model_size: KerasTuner's over the whole grid; networks with more weights
  than the flash has bytes cost nothing, others that do not fit are trained in vain.
- tpe: Optuna's over the whole grid, told after each training by how much it exceeds
  the budget.

A network that a search proposes twice counts once. A search that ends without having
found one counts with the epochs it took, as `given_up`. The table's trainings begin
with random weights, so that weights carried from trial to trial play no part. Writes
benchmarks/results/search.json; takes some minutes on one core.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from common import RESULTS, markdown, run_or_show, stamp, write

if TYPE_CHECKING:
    from searches import Task

PATH = RESULTS / "search.json"
TIGHTER_KIB = ((192, 72), (128, 64), (96, 80), (64, 56))
"""Flash and RAM of the budgets that are tighter than the table's."""
TITLES = {
    "ours": "keras_omv",
    "most MACs first": "the most MACs first, no oracle",
    "hyperband": "KerasTuner Hyperband, feasible networks only",
    "random": "KerasTuner RandomSearch, feasible networks only",
    "tpe": "Optuna TPE with constraints",
    "random, max_model_size": "KerasTuner RandomSearch with `max_model_size`",
}


def run(options: argparse.Namespace) -> None:
    """Runs every search under every budget."""
    # Not needed for the table.
    import optuna
    from search_table import BUDGET, EPOCHS, TABLE
    from searches import SEARCHES, WITHIN, Task

    import keras_omv as omv

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = [json.loads(line) for line in TABLE.read_text().splitlines()]
    tighter = (
        omv.Budget(flash_bytes=flash * 1024, ram_bytes=ram * 1024)
        for flash, ram in TIGHTER_KIB
    )
    rows = [
        measure(name, search, task, options.seeds)
        for task in (Task(known, budget) for budget in (BUDGET, *tighter))
        for name, search in ((name, SEARCHES[name]) for name in TITLES)
    ]
    content = {
        "command": "python benchmarks/search.py",
        **stamp(),
        "seeds": options.seeds,
        "within": WITHIN,
        "epochs_of_a_training": EPOCHS,
        "rows": rows,
    }
    write(options.results, content)


def measure(
    name: str, search: "Callable[[Task, int], None]", task: "Task", seeds: int
) -> dict[str, Any]:
    """Runs one search under one budget with every seed."""
    epochs, infeasible, trials, given_up = [], 0, 0, 0
    for seed in range(seeds):
        task.begin()
        search(task, seed)
        epochs.append(task.epochs)
        infeasible += task.infeasible
        trials += task.trials
        given_up += not task.found
    row = {
        "search": name,
        "flash_bytes": task.budget.flash_bytes,
        "ram_bytes": task.budget.ram_bytes,
        "feasible": len(task.points),
        "grid": len(task.everything),
        "best": task.best,
        "epochs_mean": statistics.mean(epochs),
        "epochs_median": statistics.median(epochs),
        "epochs_worst": max(epochs),
        "trials": trials,
        "infeasible_trials": infeasible,
        "given_up": given_up,
    }
    print(row, flush=True)
    return row


def table(content: dict[str, Any]) -> str:
    """One line for each search: the mean, and sums, over the budgets."""
    head = ("search", "epochs", "gave up", "trials that do not fit")
    return markdown(head, (_line(name, content) for name in TITLES))


def _line(name: str, content: dict[str, Any]) -> tuple[str, ...]:
    mine = [row for row in content["rows"] if row["search"] == name]
    searches = content["seeds"] * len(mine)
    given_up, infeasible, trials = (
        sum(row[key] for row in mine)
        for key in ("given_up", "infeasible_trials", "trials")
    )
    return (
        TITLES[name],
        f"{statistics.fmean(row['epochs_mean'] for row in mine):.0f}",
        f"{given_up} of {searches}",
        f"{infeasible:,} of {trials:,}",
    )


def main() -> None:
    """Measures and prints, or prints the table of what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=50)
    run_or_show(parser, PATH, run, table)


if __name__ == "__main__":
    main()
