"""What a search may propose: only networks that fit, each with how it is trained.

KerasTuner's oracles draw every hyperparameter by itself and know no limits, so the
limits are in what is declared: a choice of resolutions and, under each of them, a
choice of the networks that fit at that resolution. Whatever an oracle draws fits.
This module imports neither TensorFlow nor KerasTuner.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_omv.architecture import Levers
from keras_omv.boards import Board, Budget
from keras_omv.errors import BudgetError
from keras_omv.space import Point, check_smallest, feasible_points

COSTS = ("flash_bytes", "ram_bytes", "macs", "latency_ms")
"""What a network costs on the camera."""
ORACLES = ("forecast", "random", "grid", "bayesian", "hyperband")
"""The names of oracles: ours, and KerasTuner's."""
AUGMENTATIONS = {
    "none": (False, 0.0),
    "flip": (True, 0.0),
    "shift": (False, 0.1),
    "flip+shift": (True, 0.1),
}
"""Whether images are mirrored, and by which share of the side they are moved."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One candidate of a search.

    Attributes:
        point: The network and its cost on the camera.
        learning_rate: The highest of its training; `None` is the recipe's.
        sparsity: Share of weights that are made zero; `None` is the recipe's.
        augmentation: A name of `AUGMENTATIONS`; `None` is the recipe's.
    """

    point: Point
    learning_rate: float | None = None
    sparsity: float | None = None
    augmentation: str | None = None

    @property
    def training(self) -> dict[str, Any]:
        """What is searched of the training, by name."""
        values = {
            "learning_rate": self.learning_rate,
            "sparsity": self.sparsity,
            "augmentation": self.augmentation,
        }
        return {name: value for name, value in values.items() if value is not None}


class SearchSpace:
    """Networks that fit, as hyperparameters of KerasTuner.

    Args:
        points: From `omv.feasible_points`, all for the same camera, classes and
            channels; at least one.
        learning_rate: The lowest and highest to search, or `None`.
        sparsities: To choose from, or empty.
        augmentations: Names of `AUGMENTATIONS` to choose from, or empty.

    Raises:
        ValueError: If there is no point, or an option without a meaning.
    """

    def __init__(
        self,
        points: Sequence[Point],
        *,
        learning_rate: tuple[float, float] | None = None,
        sparsities: Sequence[float] = (),
        augmentations: Sequence[str] = (),
    ) -> None:
        if not points:
            raise ValueError(
                "Expected at least one point. Received: none. Next step: "
                "omv.feasible_points(board, classes=...) lists what fits."
            )
        _check_training(learning_rate, sparsities, augmentations)
        self.points = tuple(points)
        self.learning_rate = learning_rate
        self.sparsities = tuple(sparsities)
        self.augmentations = tuple(augmentations)
        self._by_label: dict[int, dict[str, Point]] = {}
        for point in self.points:  # The most MACs first: so a grid search begins.
            named = self._by_label.setdefault(point.levers.resolution, {})
            named[_label(point.levers)] = point

    def declare(self, hp: Any) -> None:
        """Declares the hyperparameters.

        Args:
            hp: A `keras_tuner.HyperParameters`.
        """
        resolutions = sorted(self._by_label, reverse=True)
        hp.Choice("resolution", resolutions)
        for resolution in resolutions:
            with hp.conditional_scope("resolution", [resolution]):
                hp.Choice(_name(resolution), list(self._by_label[resolution]))
        if self.learning_rate:
            low, high = self.learning_rate
            hp.Float("learning_rate", low, high, sampling="log")
        if self.sparsities:
            hp.Choice("sparsity", list(self.sparsities))
        if self.augmentations:
            hp.Choice("augmentation", list(self.augmentations))

    def proposal(self, values: Mapping[str, Any]) -> Proposal:
        """The candidate that drawn values stand for.

        Args:
            values: `hp.values` of a trial.
        """
        resolution = values["resolution"]
        return Proposal(
            point=self._by_label[resolution][values[_name(resolution)]],
            learning_rate=values.get("learning_rate"),
            sparsity=values.get("sparsity"),
            augmentation=values.get("augmentation"),
        )

    def values(self, proposal: Proposal) -> dict[str, Any]:
        """The values that stand for a candidate: the reverse of `proposal`."""
        levers = proposal.point.levers
        name = _name(levers.resolution)
        return {
            "resolution": levers.resolution,
            name: _label(levers),
            **proposal.training,
        }

    def sample(self, size: int, random: np.random.Generator) -> list[Proposal]:
        """Candidates to choose from: all of them, or as many drawn at random.

        Args:
            size: How many at most.
            random: What draws.
        """
        points = self.points
        if len(points) > size:
            # The one with the most MACs always: a search begins with it.
            drawn = 1 + random.choice(len(points) - 1, size - 1, replace=False)
            points = tuple(points[index] for index in (0, *sorted(drawn)))
        if not (self.learning_rate or self.sparsities or self.augmentations):
            return [Proposal(point=point) for point in points]
        return [self._with_training(points, random) for _ in range(size)]

    def fingerprint(self) -> str:
        """Of everything that can be proposed: the same space has the same."""
        content = [
            [dataclasses.astuple(point.levers) for point in self.points],
            [self.learning_rate, self.sparsities, self.augmentations],
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def _with_training(
        self, points: Sequence[Point], random: np.random.Generator
    ) -> Proposal:
        rate = None
        if self.learning_rate:
            low, high = np.log(self.learning_rate)
            rate = float(np.exp(random.uniform(low, high)))
        return Proposal(
            point=points[int(random.integers(len(points)))],
            learning_rate=rate,
            sparsity=_draw(self.sparsities, random),
            augmentation=_draw(self.augmentations, random),
        )


def _draw(values: Sequence[Any], random: np.random.Generator) -> Any:
    return values[int(random.integers(len(values)))] if values else None


def _name(resolution: int) -> str:
    # A name of its own for each: oracles mix up values that share a name.
    return f"network_{resolution}"


def _label(levers: Levers) -> str:
    return f"alpha {levers.alpha:g}, head {levers.head}, depth {levers.depth}"


def _check_training(
    learning_rate: tuple[float, float] | None,
    sparsities: Sequence[float],
    augmentations: Sequence[str],
) -> None:
    if learning_rate and not 0 < learning_rate[0] < learning_rate[1]:
        raise ValueError(
            "Invalid value received for argument `learning_rate`. Expected the lowest "
            "and the highest, such as (3e-4, 1e-2). Received: "
            f"learning_rate={learning_rate}"
        )
    if not all(0 <= sparsity < 1 for sparsity in sparsities):
        raise ValueError(
            "Invalid value received for argument `sparsities`. Expected shares in "
            f"[0, 1). Received: sparsities={tuple(sparsities)}"
        )
    unknown = [name for name in augmentations if name not in AUGMENTATIONS]
    if unknown:
        raise ValueError(
            "Invalid value received for argument `augmentations`. Expected some of "
            f"{', '.join(AUGMENTATIONS)}. Received: {', '.join(map(repr, unknown))}"
        )


def points_that_fit(
    board: Board | Budget, *, max_latency_ms: float | None, **levers: Any
) -> Sequence[Point]:
    """The candidates of a search.

    Args:
        board: The camera.
        max_latency_ms: Estimated time that an inference may take, `None` for any.
        **levers: As for `omv.feasible_points`, each several values.

    Raises:
        BudgetError: If none fits, with what the smallest lacks and the cameras that
            would do, or none is fast enough.
        ValueError: If a lever has no value.
    """
    empty = [name for name, value in levers.items() if value in ((), [], range(0))]
    if empty:
        raise ValueError(f"Expected some {', '.join(empty)} to search. Received: none.")
    points = feasible_points(board, **levers)
    if not points:
        check_smallest(board, **levers)
    if max_latency_ms is None:
        return points
    fast = [point for point in points if point.cost.latency_ms <= max_latency_ms]
    if not fast:
        fastest = min(point.cost.latency_ms for point in points)
        raise BudgetError(
            f"Expected a candidate of at most {max_latency_ms:g} ms. Received: the "
            f"fastest that fits {board.label} takes {fastest:.1f} ms. Next step: allow "
            "more time, or smaller resolutions and alphas."
        )
    return fast
