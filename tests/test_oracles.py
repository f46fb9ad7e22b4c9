"""Every oracle proposes only what fits, and ends where there is nothing more."""

import contextlib
import io

import keras_tuner
import pytest

import keras_omv as omv
from keras_omv.oracles import ForecastOracle, make_oracle
from keras_omv.proposals import SearchSpace

# KerasTuner's Gaussian process on few and equal trials.
pytestmark = pytest.mark.filterwarnings("ignore:.*(optimal value|lbfgs failed)")
NAMES = ("forecast", "random", "grid", "bayesian", "hyperband")
BUDGET = omv.Budget(flash_bytes=64 * 1024, ram_bytes=40 * 1024)
POINTS = omv.feasible_points(
    BUDGET,
    classes=3,
    channels=1,
    alphas=(0.05, 0.1, 0.2, 0.35),
    resolutions=(16, 24, 32, 48),
    head_channels=(64, 112),
    depths=(3, 6),
)


class FormulaTuner(keras_tuner.Tuner):
    """KerasTuner's own loop and files, with a formula in place of a training."""

    def __init__(self, space, **options):
        self.space = space
        self.proposals = []
        super().__init__(**options)

    def run_trial(self, trial, **_):
        proposal = self.space.proposal(trial.hyperparameters.values)
        self.proposals.append(proposal)
        return {"omv_int8_accuracy": 0.4 + proposal.point.cost.macs % 1009 / 4000}


def search(name, points, folder, *, max_trials=30, **options):
    space = SearchSpace(points)
    oracle = make_oracle(
        name, space, max_trials=max_trials, max_epochs=9, seed=0, cost=None, **options
    )
    with contextlib.redirect_stdout(io.StringIO()):
        tuner = FormulaTuner(space, oracle=oracle, directory=folder)
        tuner.search(verbose=0)
    return tuner


@pytest.mark.parametrize("name", NAMES)
def test_every_trial_of_every_oracle_fits(name, tmp_path):
    tuner = search(name, POINTS, tmp_path)
    assert len(tuner.proposals) >= 9
    for proposal in tuner.proposals:
        BUDGET.check(proposal.point.cost)
    states = {trial.status for trial in tuner.oracle.trials.values()}
    assert states == {"COMPLETED"}


@pytest.mark.parametrize("name", NAMES)
def test_one_feasible_point_is_found_and_the_search_ends(name, tmp_path):
    tuner = search(name, POINTS[:1], tmp_path, max_trials=5)
    assert {proposal.point for proposal in tuner.proposals} == {POINTS[0]}


@pytest.mark.parametrize("name", ["forecast", "random", "grid"])
def test_a_search_ends_when_every_point_was_tried(name, tmp_path):
    few = POINTS[:6]
    tuner = search(name, few, tmp_path, max_trials=100)
    tried = [proposal.point for proposal in tuner.proposals]
    assert len(tried) == len(set(tried))
    assert set(tried) == set(few)


def test_ours_finds_the_best_sooner_than_by_chance(tmp_path):
    best = max(POINTS, key=lambda point: point.cost.macs)
    tuner = search("forecast", POINTS, tmp_path, max_trials=1)
    assert tuner.proposals[0].point == best


def test_the_same_seed_proposes_the_same(tmp_path):
    first = search("forecast", POINTS, tmp_path / "first", max_trials=6)
    second = search("forecast", POINTS, tmp_path / "second", max_trials=6)
    assert first.proposals == second.proposals


def test_an_oracle_of_the_user_gets_our_objective_where_it_has_none():
    oracle = keras_tuner.oracles.RandomSearchOracle(max_trials=3)
    made = make_oracle(
        oracle, SearchSpace(POINTS), cost=None, max_trials=9, max_epochs=9, seed=0
    )
    assert made is oracle
    assert made.objective.name == "omv_int8_accuracy"
    assert made.objective.direction == "max"


def test_an_objective_of_the_user_is_kept():
    goal = keras_tuner.Objective("omv_latency_ms", "min")
    oracle = keras_tuner.oracles.RandomSearchOracle(objective=goal, max_trials=3)
    space = SearchSpace(POINTS)
    made = make_oracle(oracle, space, cost=None, max_trials=9, max_epochs=9, seed=0)
    assert made.objective == goal


@pytest.mark.parametrize("oracle", ["genetic", 7])
def test_what_is_no_oracle_is_refused(oracle):
    with pytest.raises(
        ValueError, match=r"Expected a keras_tuner\.Oracle, None, or one"
    ):
        make_oracle(
            oracle, SearchSpace(POINTS), cost=None, max_trials=9, max_epochs=9, seed=0
        )


def test_failed_trials_are_not_proposed_again_and_teach_nothing():
    space = SearchSpace(POINTS)
    oracle = ForecastOracle(space, max_trials=3)
    space.declare(hp := oracle.get_space())
    oracle.update_space(hp)
    first = oracle.populate_space("0")["values"]
    hp.values = first
    trial = keras_tuner.engine.trial.Trial(hp, "0", status="FAILED")
    oracle.trials["0"] = trial
    assert oracle.populate_space("1")["values"] != first
