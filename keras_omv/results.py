"""What the trials of a search found out, and which of them are worth having.

Each trial's result is one file in its folder, written whole or not at all: every
worker of a search reads what all of them did. This module imports no TensorFlow.
"""

import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from keras_omv.architecture import Levers
from keras_omv.proposals import COSTS
from keras_omv.units import format_bytes

_LOGGER = logging.getLogger(__name__)
RESULT_FILE = "result.json"


class Judged(Protocol):
    """What has an accuracy, and costs under their own names."""

    @property
    def int8_accuracy(self) -> float: ...


AnyJudged = TypeVar("AnyJudged", bound=Judged)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What one trial found out.

    Attributes:
        trial_id: KerasTuner's name of the trial.
        levers: The network.
        training: Learning rate, sparsity and augmentation where they are searched.
        epochs: The epoch that training was to end at.
        initial_epoch: The epoch that it went on from, 0 but for Hyperband.
        int8_accuracy: Of the int8 network on the validation data, a share.
        val_accuracy: Of the Keras model after each epoch that was trained.
        flash_bytes: Size of the file.
        ram_bytes: The arena.
        macs: Multiplications of one inference.
        latency_ms: Estimated time of one inference.
        started_from: Where its weights came from: `""` for random ones, a trial's
            name, or `"weights"` for those the tuner was given.
        stopped: Whether it was behind and ended early: what it found is no answer.
        duration_s: Seconds of training and measuring.
        model_trial_id: The trial in whose folder the model is.
    """

    trial_id: str
    levers: Levers
    training: dict[str, Any]
    epochs: int
    initial_epoch: int
    int8_accuracy: float
    val_accuracy: tuple[float, ...]
    flash_bytes: int
    ram_bytes: int
    macs: int
    latency_ms: float
    started_from: str
    stopped: bool
    duration_s: float
    model_trial_id: str

    @property
    def name(self) -> str:
        """A folder's name: the levers, and the trial where its training is searched."""
        levers = self.levers
        name = f"a{levers.alpha:g}_r{levers.resolution}_h{levers.head}_d{levers.depth}"
        name = name.replace(".", "")  # The firmware dislikes dots in names.
        return f"{name}_t{self.trial_id}" if self.training else name

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for trials that train the same network in the same way."""
        training = tuple(sorted(self.training.items()))
        return self.levers, training, self.epochs, self.initial_epoch

    @property
    def metrics(self) -> dict[str, float]:
        """The figures by their names in logs, for oracles and TensorBoard."""
        return {
            "omv_int8_accuracy": self.int8_accuracy,
            "val_accuracy": self.val_accuracy[-1],
            "omv_stopped": float(self.stopped),
            **{f"omv_{name}": float(getattr(self, name)) for name in COSTS},
        }

    def __str__(self) -> str:
        levers = self.levers
        return (
            f"{self.int8_accuracy:.1%} int8: alpha {levers.alpha:g}, "
            f"{levers.resolution} px, head {levers.head}, depth {levers.depth}, "
            f"{format_bytes(self.flash_bytes)} flash, "
            f"{format_bytes(self.ram_bytes)} RAM, {self.latency_ms:.0f} ms"
        )


def write_result(folder: pathlib.Path, result: TrialResult) -> None:
    """Writes a trial's result into its folder."""
    text = json.dumps(dataclasses.asdict(result), indent=1)
    write_atomically(folder / RESULT_FILE, text)


def read_result(folder: pathlib.Path) -> TrialResult | None:
    """A trial's result, `None` where there is none that can be read."""
    path = folder / RESULT_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        content["levers"] = Levers(**content["levers"])
        content["val_accuracy"] = tuple(content["val_accuracy"])
        return TrialResult(**content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        _LOGGER.warning("%s cannot be read and is passed over: %s", path, error)
        return None


def read_results(project: pathlib.Path) -> tuple[TrialResult, ...]:
    """The results of all trials of a project, the most accurate first."""
    folders = sorted(project.glob("trial_*"))
    found = [result for f in folders if (result := read_result(f)) is not None]
    # Of equals the quicker one, which is the smaller one in RAM as a rule.
    return tuple(sorted(found, key=lambda r: (-r.int8_accuracy, r.latency_ms)))


def pareto(results: Iterable[AnyJudged], cost: str) -> tuple[AnyJudged, ...]:
    """The results that no other one beats in both accuracy and a cost.

    Args:
        results: Of any trials.
        cost: A name of `COSTS`.

    Returns:
        The cheapest first.

    Raises:
        ValueError: If the cost is unknown.
    """
    if cost not in COSTS:
        raise ValueError(
            f"Invalid value received for argument `cost`. Expected one of "
            f"{', '.join(COSTS)}. Received: cost={cost!r}"
        )
    ordered: Sequence[AnyJudged] = sorted(
        results, key=lambda r: (getattr(r, cost), -r.int8_accuracy)
    )
    front: list[AnyJudged] = []
    for result in ordered:
        if not front or result.int8_accuracy > front[-1].int8_accuracy:
            front.append(result)
    return tuple(front)


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a text file that is there whole or not at all."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
