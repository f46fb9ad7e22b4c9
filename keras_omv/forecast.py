"""How accurate a candidate is likely to be, from what was tried and from its cost.

A Gaussian process over the levers, around what is known of MobileNetV2 before any
trial: more MACs, more accuracy. Accuracies are shares. No TensorFlow here.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, Matern

from keras_omv.proposals import AUGMENTATIONS, Proposal

ACCURACY_PER_DOUBLING = 0.055
"""Top-1 accuracy that twice the MACs bring: the least-squares slope over the 22
MobileNetV2 checkpoints, alpha 0.35 to 1.4 at 96 to 224 px, that their authors publish
(tensorflow/models, research/slim/nets/mobilenet/README.md): 45.5 % at 11 M MACs,
71.8 % at 300 M, 75.0 % at 582 M."""
SLOPE_DEVIATION = 0.03
"""How far the slope of other images may be from it: 0 is nearly two of these away."""
BEND_DOUBLINGS = 8.0
"""Doublings of the MACs over which the slope itself changes."""
RESIDUAL_DEVIATION = 0.04
"""How far a candidate may lie from the slope."""
NOISE_DEVIATION = 0.01
"""Of one training and 1,000 to 3,000 validation images: sqrt(p (1 - p) / n)."""
_BLIND = 1e6
"""The length scale of a feature that a kernel does not see."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial of a candidate found, or is taken to find while it runs.

    Attributes:
        proposal: The candidate.
        accuracy: Its accuracy, `None` while the trial runs.
    """

    proposal: Proposal
    accuracy: float | None


def choose(
    pool: Sequence[Proposal], outcomes: Sequence[Outcome], *, cost: str | None = None
) -> Proposal:
    """The candidate whose trial is expected to improve most on what is known.

    Args:
        pool: Candidates that were not tried.
        outcomes: Of those that were, or are being tried.
        cost: A cost's name, such as `"ram_bytes"`, to improve the front of accuracy
            against it; `None` to improve the best accuracy.

    Returns:
        The one with the highest expected improvement; before any outcome, the one
        with the most MACs.
    """
    mean, deviation = forecast(pool, _with_guesses(outcomes))
    known = [o for o in outcomes if o.accuracy is not None]
    if cost is not None:
        gain = _expected_area(pool, known, mean, deviation, cost)
    elif known:
        best = max(float(o.accuracy or 0.0) for o in known)
        gain = expected_improvement(mean, deviation, best)
    else:
        gain = mean
    return pool[int(np.argmax(gain))]


def forecast(
    pool: Sequence[Proposal], outcomes: Sequence[Outcome]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the accuracy of candidates.

    Args:
        pool: Candidates.
        outcomes: With their accuracies.

    Returns:
        Two arrays of shape `(len(pool),)`. Without outcomes the mean is relative.
    """
    everything = [*pool, *(o.proposal for o in outcomes)]
    features = _features(everything)
    slope = ACCURACY_PER_DOUBLING * features[:, 0]
    if not outcomes:
        return slope, np.full(len(pool), RESIDUAL_DEVIATION)
    rest = np.array([o.accuracy for o in outcomes]) - slope[len(pool) :]
    level = rest.mean()
    model = GaussianProcessRegressor(
        _kernel(features.shape[1]), alpha=NOISE_DEVIATION**2, optimizer=None
    )
    model.fit(features[len(pool) :], rest - level)
    mean, deviation = model.predict(features[: len(pool)], return_std=True)
    return slope[: len(pool)] + level + mean, deviation


def expected_improvement(
    mean: np.ndarray, deviation: np.ndarray, best: float
) -> np.ndarray:
    """By how much candidates are expected to exceed the best (Mockus 1975)."""
    deviation = np.maximum(deviation, 1e-9)
    z = (mean - best) / deviation
    gain: np.ndarray = (mean - best) * norm.cdf(z) + deviation * norm.pdf(z)
    return gain


def _expected_area(
    pool: Sequence[Proposal],
    known: Sequence[Outcome],
    mean: np.ndarray,
    deviation: np.ndarray,
    cost: str,
) -> np.ndarray:
    """The area that candidates are expected to add under the front.

    A candidate's cost is known before its trial, so that the expected hypervolume
    improvement in two dimensions is a sum of expected improvements: one for each
    step of the front at that cost and above, times the width of the step.
    """
    costs = np.log2([getattr(c.point.cost, cost) for c in pool])
    taken = sorted(
        (float(np.log2(getattr(o.proposal.point.cost, cost))), float(o.accuracy or 0))
        for o in known
    )
    end = max([costs.max(), *(at for at, _ in taken)]) + 1.0
    gain = np.zeros(len(pool))
    begin, front = -np.inf, float(mean.min())
    for edge, accuracy in [*taken, (end, 0.0)]:
        width = np.clip(edge - np.maximum(costs, begin), 0.0, None)
        gain += width * expected_improvement(mean, deviation, front)
        begin, front = edge, max(front, accuracy)
    return gain


def _with_guesses(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Take running trials to find what is forecast, so that others go elsewhere."""
    known = [o for o in outcomes if o.accuracy is not None]
    running = [o.proposal for o in outcomes if o.accuracy is None]
    if not known or not running:
        return known
    mean, _ = forecast(running, known)
    guesses = zip(running, mean, strict=True)
    return known + [Outcome(proposal, float(m)) for proposal, m in guesses]


def _features(proposals: Sequence[Proposal]) -> np.ndarray:
    """Doublings of MACs first, then the levers and the training, about 0 to 1 each."""
    rows = []
    for proposal in proposals:
        levers, cost = proposal.point.levers, proposal.point.cost
        rows.append(
            (
                np.log2(cost.macs),
                np.log2(levers.resolution) / 2,
                np.log2(levers.alpha) / 3,
                np.log2(levers.head) / 4,
                levers.depth / 14,
                np.log10(proposal.learning_rate or 1.0),
                proposal.sparsity or 0.0,
                _augmentation(proposal.augmentation),
            )
        )
    features = np.array(rows)
    features[:, 0] -= features[:, 0].mean()
    return features


def _augmentation(name: str | None) -> float:
    return list(AUGMENTATIONS).index(name) / 3 if name else 0.0


def _kernel(features: int) -> Kernel:
    """Over the MACs a slope that bends slowly, over the rest something smooth."""
    macs = [BEND_DOUBLINGS, *[_BLIND] * (features - 1)]
    rest = [_BLIND, *[1.0] * (features - 1)]
    slope = ConstantKernel((SLOPE_DEVIATION * BEND_DOUBLINGS) ** 2) * RBF(macs)
    return slope + ConstantKernel(RESIDUAL_DEVIATION**2) * Matern(rest, nu=2.5)
