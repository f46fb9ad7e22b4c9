"""Who proposes the next candidate: KerasTuner's oracles, and one that knows costs."""

from typing import Any

import keras_tuner
import numpy as np

from keras_omv.forecast import Outcome, choose
from keras_omv.proposals import COSTS, ORACLES, Proposal, SearchSpace

INT8_ACCURACY = "omv_int8_accuracy"
STOPPED = "omv_stopped"
METRICS = (INT8_ACCURACY, "val_accuracy", *(f"omv_{cost}" for cost in COSTS))
"""What can be an objective."""
POOL_SIZE = 4096
"""Candidates that a forecast looks at: what is more is drawn from, at random."""
_TELLING = ("COMPLETED", "RUNNING")
"""States of trials that tell something: failed ones do not."""


class ForecastOracle(keras_tuner.Oracle):
    """Proposes the candidate that is expected to improve most on what is known.

    A Gaussian process over the levers, around the accuracy that MobileNetV2's MACs
    have brought elsewhere (`keras_omv.forecast`). Every proposal follows from the
    seed and the finished trials alone, so that an interrupted search goes on as if
    it had not been.

    Args:
        space: What may be proposed.
        cost: The name of a cost, such as `"ram_bytes"`, to look for the front of
            accuracy against it. Defaults to `None`: for the best accuracy alone.
        max_trials: How many candidates to try. Defaults to `20`.
        seed: Of the candidates that are looked at, where there are many.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        cost: str | None = None,
        max_trials: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__(
            objective=keras_tuner.Objective(INT8_ACCURACY, "max"),
            max_trials=max_trials,
            seed=seed + 1,  # KerasTuner takes 0 for none.
        )
        self.space = space
        self.cost = cost

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """What to try next; called by `create_trial`."""
        trials = list(self.trials.values())
        random = np.random.default_rng([self.seed, len(trials)])
        tried = {self._proposal(trial) for trial in trials}
        sample = self.space.sample(POOL_SIZE, random)
        pool = [proposal for proposal in sample if proposal not in tried]
        if not pool:
            return {"status": "IDLE" if self.ongoing_trials else "STOPPED"}
        outcomes = [self._outcome(t) for t in trials if t.status in _TELLING]
        chosen = choose(pool, outcomes, cost=self.cost)
        return {"status": "RUNNING", "values": self.space.values(chosen)}

    def _proposal(self, trial: Any) -> Proposal:
        return self.space.proposal(trial.hyperparameters.values)

    def _outcome(self, trial: Any) -> Outcome:
        # One that was stopped is only known to be behind: as if it still ran.
        ended = trial.status == "COMPLETED" and not _was_stopped(trial)
        return Outcome(self._proposal(trial), trial.score if ended else None)


def _was_stopped(trial: Any) -> bool:
    metrics = trial.metrics
    return metrics.exists(STOPPED) and bool(metrics.get_best_value(STOPPED))


def make_oracle(
    oracle: Any,
    space: SearchSpace,
    *,
    cost: str | None,
    max_trials: int,
    max_epochs: int,
    seed: int,
) -> Any:
    """The oracle of a search.

    Args:
        oracle: One of KerasTuner's, a name of `ORACLES`, or `None` for ours.
        space: What may be proposed; declared to the oracle.
        cost: See `ForecastOracle`; not for KerasTuner's oracles.
        max_trials: How many trials at most; Hyperband counts for itself.
        max_epochs: Of a whole training, for Hyperband.
        seed: Of an oracle that is given by name.

    Raises:
        ValueError: If it is no oracle.
    """
    if cost is not None and oracle not in (None, "forecast"):
        raise ValueError(
            "Expected our own oracle for a `trade_off`. Received: "
            f"oracle={oracle!r}, trade_off={cost!r}. Next step: leave one of them out."
        )
    objective = keras_tuner.Objective(INT8_ACCURACY, "max")
    options = {"objective": objective, "seed": seed + 1}
    made: Any
    if oracle is None or oracle == "forecast":
        made = ForecastOracle(space, cost=cost, max_trials=max_trials, seed=seed)
    elif oracle == "random":
        made = keras_tuner.oracles.RandomSearchOracle(max_trials=max_trials, **options)
    elif oracle == "grid":
        made = keras_tuner.oracles.GridSearchOracle(max_trials=max_trials, **options)
    elif oracle == "bayesian":
        made = keras_tuner.oracles.BayesianOptimizationOracle(
            max_trials=max_trials,
            # KerasTuner's own number is more than all trials: 3 a hyperparameter.
            num_initial_points=max(3, max_trials // 4),
            **options,
        )
    elif oracle == "hyperband":
        made = keras_tuner.oracles.HyperbandOracle(max_epochs=max_epochs, **options)
    elif isinstance(oracle, keras_tuner.Oracle):
        made = oracle
        if made.objective.name == "default_objective":
            made.objective = objective
    else:
        raise ValueError(
            "Invalid value received for argument `oracle`. Expected a "
            f"keras_tuner.Oracle, None, or one of {', '.join(ORACLES)}. Received: "
            f"oracle={oracle!r}"
        )
    _check_objective(made.objective)
    _declare(space, made)
    return made


def _check_objective(objective: Any) -> None:
    for part in getattr(objective, "objectives", [objective]):
        if part.name not in METRICS:
            raise ValueError(
                f"Invalid objective. Expected one of {', '.join(METRICS)}. Received: "
                f"{part.name!r}. Next step: keras_tuner.Objective"
                f"({INT8_ACCURACY!r}, 'max')."
            )


def can_restore(oracle: Any) -> bool:
    """Whether an oracle can go on from its saved state.

    KerasTuner's grid search does not save where it is (`gridsearch.py`, 1.4.8). It
    begins anew instead, in the same order, and finds the results that there are.
    """
    return not isinstance(oracle, keras_tuner.oracles.GridSearchOracle)


def _declare(space: SearchSpace, oracle: Any) -> None:
    hyperparameters = oracle.get_space()
    space.declare(hyperparameters)
    oracle.update_space(hyperparameters)
