"""What a search may propose."""

import keras_tuner
import numpy as np
import pytest

import keras_omv as omv
from keras_omv.proposals import Proposal, SearchSpace

BUDGET = omv.Budget(flash_bytes=64 * 1024, ram_bytes=40 * 1024)
LEVERS = {"classes": 3, "channels": 1, "alphas": (0.05, 0.1, 0.2, 0.35)}
POINTS = omv.feasible_points(
    BUDGET,
    resolutions=(16, 24, 32, 48),
    head_channels=(64, 112),
    depths=(3, 6),
    **LEVERS,
)


def drawn(space, seed):
    """Values as KerasTuner's oracles draw them: each choice by itself."""
    hp = keras_tuner.HyperParameters()
    space.declare(hp)
    values = keras_tuner.HyperParameters()
    for number, parameter in enumerate(hp.space):
        values.merge([parameter])
        if values.is_active(parameter):
            values.values[parameter.name] = parameter.random_sample(seed + number)
    return values.values


@pytest.mark.parametrize("seed", range(0, 1000, 50))
def test_whatever_is_drawn_fits(seed):
    space = SearchSpace(POINTS)
    proposal = space.proposal(drawn(space, seed))
    BUDGET.check(proposal.point.cost)


def test_every_point_can_be_drawn_and_nothing_else():
    space = SearchSpace(POINTS)
    hp = keras_tuner.HyperParameters()
    space.declare(hp)
    names = sum(len(p.values) for p in hp.space if p.name != "resolution")
    assert names == len(POINTS)
    for point in POINTS:
        proposal = Proposal(point=point)
        assert space.proposal(space.values(proposal)) == proposal


def test_the_training_is_searched_where_it_is_wanted():
    space = SearchSpace(
        POINTS,
        learning_rate=(1e-4, 1e-2),
        sparsities=(0.0, 0.5),
        augmentations=("none", "flip+shift"),
    )
    proposal = space.proposal(drawn(space, 3))
    assert 1e-4 <= proposal.learning_rate <= 1e-2
    assert proposal.sparsity in (0.0, 0.5)
    assert proposal.augmentation in ("none", "flip+shift")
    assert SearchSpace(POINTS).proposal(drawn(SearchSpace(POINTS), 3)).training == {}


def test_a_sample_holds_every_point_where_there_is_room():
    space = SearchSpace(POINTS)
    everything = space.sample(len(POINTS), np.random.default_rng(0))
    assert {p.point for p in everything} == set(POINTS)
    few = space.sample(3, np.random.default_rng(0))
    assert few == space.sample(3, np.random.default_rng(0))
    assert len(few) == 3


def test_a_sample_draws_the_training_too():
    space = SearchSpace(POINTS, learning_rate=(1e-4, 1e-2), sparsities=(0.0, 0.5))
    sample = space.sample(100, np.random.default_rng(0))
    assert len(sample) == 100
    assert all(1e-4 <= p.learning_rate <= 1e-2 for p in sample)
    assert {p.sparsity for p in sample} == {0.0, 0.5}
    assert space.proposal(space.values(sample[0])) == sample[0]


def test_spaces_that_differ_have_other_fingerprints():
    spaces = [
        SearchSpace(POINTS),
        SearchSpace(POINTS[1:]),
        SearchSpace(POINTS, learning_rate=(1e-4, 1e-2)),
        SearchSpace(POINTS, sparsities=(0.5,)),
    ]
    assert len({space.fingerprint() for space in spaces}) == len(spaces)
    assert SearchSpace(POINTS).fingerprint() == spaces[0].fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": (1e-2, 1e-4)}, r"lowest and the highest.*\(0.01, 0.0001\)"),
        ({"sparsities": (1.0,)}, r"shares in \[0, 1\)"),
        ({"augmentations": ("mirror",)}, "Received: 'mirror'"),
    ],
)
def test_what_has_no_meaning_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace(POINTS, **options)


def test_a_space_holds_something():
    with pytest.raises(ValueError, match="at least one point"):
        SearchSpace([])
