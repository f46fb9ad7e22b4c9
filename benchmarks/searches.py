"""Searches that get their answers from a table of trained networks.

`search.py` runs them and says what each is.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras_tuner
import numpy as np
import optuna
from search_table import CHANNELS, CLASSES, EPOCHS, SPACE

import keras_omv as omv
from keras_omv.oracles import make_oracle
from keras_omv.proposals import SearchSpace

WITHIN = 0.005
GRACE_EPOCHS = -(-EPOCHS // 3)
Key = tuple[float, int, int | None, int]
Answer = Callable[[Any], tuple[float, bool]]
"""The accuracy of hyperparameters, and whether early stopping ended the training."""


class Found(keras_tuner.errors.FatalError):
    """The search has trained a network that is good enough."""


class Task:
    """A budget, the networks of the table that fit it, and what a search has spent."""

    def __init__(self, rows: Sequence[dict[str, Any]], budget: omv.Budget) -> None:
        self.budget = budget
        levers = {"classes": CLASSES, "channels": CHANNELS, **SPACE}
        self.points = omv.feasible_points(budget, **levers)
        self.everything = omv.feasible_points(omv.Budget(), **levers)
        self.rows = {_key(row): row for row in rows}
        self.feasible = {_point_key(point) for point in self.points}
        self.best = max(self.rows[key]["int8_accuracy"] for key in self.feasible)
        self.begin()

    def begin(self) -> None:
        """A new search."""
        self.epochs, self.trials, self.infeasible, self.found = 0, 0, 0, False
        self._trained: dict[Key, int] = {}
        self.curves: list[list[float]] = []

    def train(self, key: Key, epochs: int = EPOCHS) -> float:
        """The accuracy after some epochs; raises `Found` when that is enough."""
        self.trials += 1
        self.epochs += max(0, epochs - self._trained.get(key, 0))
        self._trained[key] = max(epochs, self._trained.get(key, 0))
        if key not in self.feasible:
            self.infeasible += 1
            return 0.0
        row = self.rows[key]
        self.curves.append(row["val_accuracy"][:epochs])
        if epochs < EPOCHS:
            return row["val_accuracy"][epochs - 1]
        if row["int8_accuracy"] >= self.best - WITHIN:
            self.found = True
            raise Found
        return row["int8_accuracy"]

    def stop_epoch(self, key: Key) -> int:
        """When the tuner's early stopping would end the training."""
        curve = self.rows[key]["val_accuracy"]
        for epoch in range(GRACE_EPOCHS, EPOCHS):
            others = [
                max(other[:epoch]) for other in self.curves if len(other) >= epoch
            ]
            if len(others) >= 3 and max(curve[:epoch]) < np.quantile(others, 0.25):
                return epoch
        return EPOCHS


def _key(row: dict[str, Any]) -> Key:
    return row["alpha"], row["resolution"], row["head_channels"], row["depth"]


def _point_key(point: omv.Point) -> Key:
    levers = point.levers
    return levers.alpha, levers.resolution, levers.head_channels, levers.depth


class TableTuner(keras_tuner.Tuner):
    """KerasTuner's own loop, with the table in place of trainings."""

    def __init__(self, answer: Answer, **options: Any) -> None:
        self.answer = answer
        super().__init__(**options)

    def run_trial(self, trial: Any, *args: Any, **options: Any) -> dict[str, float]:
        accuracy, stopped = self.answer(trial.hyperparameters)
        return {"omv_int8_accuracy": accuracy, "omv_stopped": float(stopped)}


def run_keras_tuner(oracle: Any, answer: Answer) -> None:
    """Runs KerasTuner until it has found what it looks for, or gives up."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, _quiet():
        tuner = TableTuner(answer, oracle=oracle, directory=folder)
        with contextlib.suppress(Found):
            tuner.search(verbose=0)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # KerasTuner prints the traceback of every trial that fails.
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield


def far(seed: int) -> int:
    """A seed far from the next one's: KerasTuner counts on from it, draw by draw."""
    return int(np.random.default_rng(seed).integers(1, 2**31))


def most_macs_first(task: Task, seed: int) -> None:
    """Trains what fits in the order of the MACs."""
    with contextlib.suppress(Found):
        for point in task.points:
            task.train(_point_key(point))


def feasible_search(name: str | None, task: Task, seed: int) -> None:
    """A search over the feasible space."""
    space = SearchSpace(task.points)
    endless = keras_tuner.oracles.HyperbandOracle(
        objective=keras_tuner.Objective("omv_int8_accuracy", "max"),
        max_epochs=EPOCHS,
        hyperband_iterations=100,
        seed=far(seed),
    )
    oracle = make_oracle(
        endless if name == "hyperband" else name,
        space,
        cost=None,
        max_trials=10 * len(task.points),
        max_epochs=EPOCHS,
        seed=far(seed),
    )

    def answer(hp: Any) -> tuple[float, bool]:
        key = _point_key(space.proposal(hp.values).point)
        if name:
            return task.train(key, hp.values.get("tuner/epochs", EPOCHS)), False
        epochs = task.stop_epoch(key)
        return task.train(key, epochs), epochs < EPOCHS

    run_keras_tuner(oracle, answer)


def ours(task: Task, seed: int) -> None:
    feasible_search(None, task, seed)


def random(task: Task, seed: int) -> None:
    feasible_search("random", task, seed)


def hyperband(task: Task, seed: int) -> None:
    feasible_search("hyperband", task, seed)


def random_with_max_model_size(task: Task, seed: int) -> None:
    """KerasTuner's usual way to keep models small."""
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("omv_int8_accuracy", "max"),
        max_trials=10_000,
        seed=far(seed),
        max_consecutive_failed_trials=10_000,  # 3 would end the search too early.
    )
    weights = {_point_key(p): p.cost.parameters for p in task.everything}
    space = oracle.get_space()
    for name, values in _choices().items():
        space.Choice(name, values)
    oracle.update_space(space)

    def answer(hp: Any) -> tuple[float, bool]:
        key = _grid_key(hp.values)
        # Narrow networks of unlike alpha can be one: the grid has them all.
        if weights.get(key, 0) > task.budget.flash_bytes:
            raise keras_tuner.errors.FailedTrialError
        return task.train(key), False

    run_keras_tuner(oracle, answer)


def tpe(task: Task, seed: int) -> None:
    """Optuna's default sampler with the budget as constraints."""
    costs = {_point_key(p): p.cost for p in task.everything}
    limits = task.budget

    def objective(trial: Any) -> float:
        values = {k: trial.suggest_categorical(k, v) for k, v in _choices().items()}
        cost = costs[_grid_key(values)]
        trial.set_constraint("flash", cost.flash_bytes / limits.flash_bytes - 1)
        trial.set_constraint("ram", cost.ram_bytes / limits.ram_bytes - 1)
        return task.train(_grid_key(values))

    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    with contextlib.suppress(Found):
        study.optimize(objective, n_trials=10 * len(task.everything))


def _choices() -> dict[str, list[Any]]:
    heads = [0 if head is None else head for head in SPACE["head_channels"]]
    return {
        "alpha": list(SPACE["alphas"]),
        "resolution": list(SPACE["resolutions"]),
        "head": heads,
        "depth": list(SPACE["depths"]),
    }


def _grid_key(values: dict[str, Any]) -> Key:
    head = values["head"] or None
    return values["alpha"], values["resolution"], head, values["depth"]


SEARCHES = {
    "ours": ours,
    "most MACs first": most_macs_first,
    "random": random,
    "hyperband": hyperband,
    "random, max_model_size": random_with_max_model_size,
    "tpe": tpe,
}
