"""The options of a search: what it chooses from, how it trains, where it is kept."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_omv.boards import Board, Budget, as_board
from keras_omv.oracles import make_oracle
from keras_omv.proposals import COSTS, SearchSpace, points_that_fit
from keras_omv.recipe import Recipe
from keras_omv.runner import Runner
from keras_omv.space import ALPHAS

SEARCH_ALPHAS = tuple(alpha for alpha in ALPHAS if alpha <= 0.5)
SEARCH_RESOLUTIONS = tuple(range(32, 129, 16))
SEARCH_HEADS = (None, 640, 320, 160, 64)
SEARCH_DEPTHS = (17, 13, 10, 6, 3)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """The arguments of `omv.MobileNetV2Tuner`, which tells what each of them means.

    Raises:
        ValueError: If one has no meaning.
    """

    board: Board | Budget | str
    classes: int
    oracle: Any
    channels: int
    alphas: Sequence[float]
    resolutions: Sequence[int]
    head_channels: Sequence[int | None]
    depths: Sequence[int]
    max_latency_ms: float | None
    learning_rate: tuple[float, float] | None
    sparsities: Sequence[float]
    augmentations: Sequence[str]
    trade_off: str | None
    max_trials: int
    epochs: int | None
    recipe: Recipe | None
    weights: Any
    carry_weights: bool
    early_stopping: bool
    quantization_aware: bool
    on_trial_error: str
    distribution_strategy: Any
    seed: int
    directory: str | os.PathLike[str] | None
    project_name: str | None
    overwrite: bool

    def __post_init__(self) -> None:
        _check_choice("on_trial_error", self.on_trial_error, ("continue", "raise"))
        _check_choice("trade_off", self.trade_off, (None, *COSTS))
        if self.max_trials < 1:
            raise ValueError(
                "Invalid value received for argument `max_trials`. Expected 1 or more. "
                f"Received: max_trials={self.max_trials}"
            )

    def make_runner(self) -> Runner:
        """What runs the trials, with the space of all that fits the camera.

        Raises:
            BudgetError: If no candidate fits.
            ValueError: If an option has no meaning.
        """
        board = as_board(self.board)
        recipe = self._whole_recipe()
        return Runner(
            folder=pathlib.Path(
                self.directory or ".", self.project_name or "mobilenetv2"
            ),
            board=board,
            space=self._make_space(board),
            recipe=recipe,
            weights=self.weights,
            carry_weights=self.carry_weights,
            early_stopping=self.early_stopping,
            quantization_aware=self.quantization_aware,
            strategy=self.distribution_strategy,
        )

    def make_oracle(self, runner: Runner) -> Any:
        """What proposes the candidates of a runner's space.

        Raises:
            ValueError: If an option has no meaning.
        """
        return make_oracle(
            self.oracle,
            runner.space,
            cost=self.trade_off,
            max_trials=self.max_trials,
            max_epochs=runner.recipe.epochs,
            seed=self.seed,
        )

    def _whole_recipe(self) -> Recipe:
        """The recipe with the epochs that the oracle, or else the user, asks for."""
        recipe = self.recipe or Recipe(seed=self.seed)
        theirs: int | None = getattr(self.oracle, "max_epochs", None)
        if theirs is not None and self.epochs not in (None, theirs):
            raise ValueError(
                f"Expected the oracle's max_epochs, {theirs}. Received: "
                f"epochs={self.epochs}. Next step: leave epochs out."
            )
        wanted = theirs or (recipe.epochs if self.epochs is None else self.epochs)
        return dataclasses.replace(recipe, epochs=wanted)

    def _make_space(self, board: Board | Budget) -> SearchSpace:
        points = points_that_fit(
            board,
            classes=self.classes,
            channels=self.channels,
            alphas=self.alphas,
            resolutions=self.resolutions,
            head_channels=self.head_channels,
            depths=self.depths,
            max_latency_ms=self.max_latency_ms,
        )
        return SearchSpace(
            points,
            learning_rate=self.learning_rate,
            sparsities=self.sparsities,
            augmentations=self.augmentations,
        )


def _check_choice(name: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        raise ValueError(
            f"Invalid value received for argument `{name}`. Expected one of "
            f"{', '.join(map(repr, known))}. Received: {name}={value!r}"
        )
