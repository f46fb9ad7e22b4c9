"""The forecast of what a candidate's trial will find."""

import numpy as np
import pytest

import keras_omv as omv
from keras_omv.forecast import Outcome, choose, expected_improvement, forecast
from keras_omv.proposals import Proposal

POINTS = omv.feasible_points(
    omv.Budget(ram_bytes=120_000),
    classes=5,
    channels=3,
    alphas=(0.1, 0.2, 0.35, 0.5),
    resolutions=(32, 48, 64, 96),
    head_channels=(None, 160),
    depths=(17, 10),
)
POOL = [Proposal(point=point) for point in POINTS]


def test_before_any_trial_the_most_macs_are_tried():
    assert choose(POOL, []).point.cost.macs == max(p.cost.macs for p in POINTS)


def test_an_outcome_is_believed_and_spreads_to_its_neighbours():
    tried = POOL[5]
    mean, deviation = forecast(POOL, [Outcome(tried, 0.6)])
    assert mean[5] == pytest.approx(0.6, abs=0.01)
    assert deviation[5] == deviation.min()
    assert deviation.max() > 2 * deviation.min()


def test_more_macs_are_expected_to_bring_more():
    mean, _ = forecast(POOL, [Outcome(POOL[0], 0.7)])
    macs = np.log2([p.point.cost.macs for p in POOL])
    assert np.corrcoef(mean, macs)[0, 1] > 0.95


def test_outcomes_overrule_what_was_expected():
    # Fewer MACs were better, three times.
    order = sorted(POOL, key=lambda p: p.point.cost.macs)
    chosen = [order[-1], order[len(order) // 2], order[0]]
    outcomes = [Outcome(p, a) for p, a in zip(chosen, (0.4, 0.55, 0.7), strict=True)]
    rest = [p for p in POOL if p not in chosen]
    best = choose(rest, outcomes).point.cost.macs
    assert best < np.median([p.point.cost.macs for p in POOL])


def test_running_trials_send_others_elsewhere():
    known = [Outcome(POOL[0], 0.7)]
    rest = POOL[1:]
    first = choose(rest, known)
    second = choose([p for p in rest if p != first], [*known, Outcome(first, None)])
    assert second != first


def test_expected_improvement_grows_with_mean_and_deviation():
    means, deviations = np.array([0.5, 0.6, 0.5]), np.array([0.01, 0.01, 0.1])
    gain = expected_improvement(means, deviations, 0.55)
    assert gain[1] > gain[0]
    assert gain[2] > gain[0]
    assert np.all(gain >= 0)
    # Certain of it: the difference itself.
    sure = expected_improvement(np.array([0.7]), np.array([0.0]), 0.6)
    assert sure[0] == pytest.approx(0.1)


@pytest.mark.parametrize("cost", ["flash_bytes", "ram_bytes", "macs", "latency_ms"])
def test_the_front_is_filled_from_end_to_end(cost):
    truth = {p: 0.4 + 0.03 * np.log2(p.point.cost.macs / 1e5) for p in POOL}
    outcomes = []
    for _ in range(8):
        rest = [p for p in POOL if p not in {o.proposal for o in outcomes}]
        chosen = choose(rest, outcomes, cost=cost)
        outcomes.append(Outcome(chosen, truth[chosen]))
    costs = np.log2([getattr(o.proposal.point.cost, cost) for o in outcomes])
    all_costs = np.log2([getattr(p.point.cost, cost) for p in POOL])
    assert np.ptp(costs) > 0.6 * np.ptp(all_costs)


def test_the_training_counts_too():
    point = POINTS[0]
    rates = [Proposal(point=point, learning_rate=r) for r in (1e-4, 1e-3, 1e-2)]
    outcomes = [Outcome(rates[0], 0.4), Outcome(rates[1], 0.6)]
    mean, _ = forecast(
        [
            Proposal(point=point, learning_rate=2e-4),
            Proposal(point=point, learning_rate=2e-3),
        ],
        outcomes,
    )
    assert mean[1] > mean[0]
