"""A KerasTuner search that only trains what fits the camera."""

import logging
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

from keras_omv import trial as trials
from keras_omv.boards import Board, Budget
from keras_omv.errors import SearchError
from keras_omv.exporter import export
from keras_omv.recipe import Recipe
from keras_omv.results import TrialResult
from keras_omv.script_options import ScriptOptions
from keras_omv.search_loop import SearchLoop
from keras_omv.search_options import (
    SEARCH_ALPHAS,
    SEARCH_DEPTHS,
    SEARCH_HEADS,
    SEARCH_RESOLUTIONS,
    SearchOptions,
)
from keras_omv.trained import adopt

_LOGGER = logging.getLogger(__name__)


class MobileNetV2Tuner(SearchLoop):
    """Searches the MobileNetV2 that a camera runs most accurately.

    Width (alpha), resolution, last convolution and depth are searched, and the
    training's learning rate, sparsity and augmentation if wanted. Whatever an oracle
    can propose fits the camera: its exact flash and RAM are known before anything is
    built. Every trial gets the images at its own resolution, scaled as the camera
    scales its frames, and is judged by the accuracy of its int8 network.

    For TensorBoard every trial is written as it ends: `tensorboard --logdir` of the
    project's folder `tensorboard` shows them all in its HParams tab and, with
    matplotlib, the Pareto fronts and what fits the camera as images, once the search
    has ended.

    A search survives its process: made again with the same arguments, it keeps the
    finished trials and repeats the one that ran.

    Args:
        board: A `Board`, its name, or a `Budget`.
        classes: Number of classes.
        oracle: A `keras_tuner.Oracle`, or the name of one: `"forecast"` (ours),
            `"random"`, `"grid"`, `"bayesian"` or `"hyperband"`. Defaults to `None`,
            ours. The objective of one that has none is `"omv_int8_accuracy"`;
            `"val_accuracy"`, `"omv_flash_bytes"`, `"omv_ram_bytes"`, `"omv_macs"` and
            `"omv_latency_ms"` are there too. KerasTuner adds up a list of objectives
            as they are, shares to bytes: `trade_off` is the way to have two.
        channels: 1 for grey, 3 for RGB. Defaults to `3`.
        alphas: Widths to choose from. Defaults to nine from 0.05 to 0.5, as wider
            ones learn little more from a few thousand images.
        resolutions: Sides in pixels to choose from. Defaults to 32 to 128 in steps
            of 16.
        head_channels: Widths of the last convolution to choose from; `None` is the
            paper's 1280. Defaults to `(None, 640, 320, 160, 64)`.
        depths: How many of the 17 blocks to keep. Defaults to `(17, 13, 10, 6, 3)`.
        max_latency_ms: Estimated time that an inference may take. Defaults to
            `None`, no limit.
        learning_rate: The lowest and highest to search. Defaults to `None`, the
            recipe's.
        sparsities: Shares of zeros to choose from. Defaults to `()`, the recipe's.
        augmentations: `"none"`, `"flip"`, `"shift"` and `"flip+shift"` to choose
            from. Defaults to `()`, the recipe's.
        trade_off: `"flash_bytes"`, `"ram_bytes"`, `"macs"` or `"latency_ms"`: our
            oracle then looks for the Pareto front of accuracy against it. Defaults
            to `None`, for the highest accuracy.
        max_trials: How many trials at most; for oracles given by name but
            `"hyperband"`, which counts for itself. Defaults to `20`.
        epochs: Of a whole training. Defaults to `None`: the oracle's `max_epochs`
            where it has one, else the recipe's, 24.
        recipe: How else a trial trains: batch size, learning rate, augmentation.
            Defaults to `Recipe()`.
        weights: What trials start from that no earlier trial can start:
            `"imagenet"`, a file or a Keras model, see `keras_omv.pretrained`.
            Defaults to `None`, random weights.
        carry_weights: Whether a trial starts from the most accurate earlier one that
            is at least as wide and deep, of another network. Such trials have seen
            more epochs than their own; weigh their results so. Defaults to `True`.
        early_stopping: Whether a trial that is behind three quarters of the earlier
            ones at the same epoch is stopped. Defaults to `True`.
        quantization_aware: Whether the last quarter of each training rounds to int8;
            otherwise ranges are calibrated after it. Defaults to `False`.
        on_trial_error: Whether the search goes on with other candidates
            (`"continue"`) or stops (`"raise"`) where a trial fails. Defaults to
            `"continue"`; three failures in a row stop it.
        distribution_strategy: A `tf.distribute.Strategy` to train every trial on
            several GPUs.
        seed: Of everything random. Defaults to `0`.
        directory: Where projects are. Defaults to the working directory.
        project_name: The folder of this search in it.
        overwrite: Whether to forget the trials of an earlier search there.

    Raises:
        BudgetError: If no candidate fits, with what the smallest lacks and the
            cameras that would do.
        SearchError: If the folder holds another search.
        ValueError: If an argument has no meaning.

    Example:

    ```python
    tuner = omv.MobileNetV2Tuner("openmv-h7-plus", classes=5)
    tuner.search(train, validation_data=validation)
    tuner.export_best("camera")
    ```
    """

    def __init__(
        self,
        board: Board | Budget | str,
        classes: int,
        *,
        oracle: Any = None,
        channels: int = 3,
        alphas: Sequence[float] = SEARCH_ALPHAS,
        resolutions: Sequence[int] = SEARCH_RESOLUTIONS,
        head_channels: Sequence[int | None] = SEARCH_HEADS,
        depths: Sequence[int] = SEARCH_DEPTHS,
        max_latency_ms: float | None = None,
        learning_rate: tuple[float, float] | None = None,
        sparsities: Sequence[float] = (),
        augmentations: Sequence[str] = (),
        trade_off: str | None = None,
        max_trials: int = 20,
        epochs: int | None = None,
        recipe: Recipe | None = None,
        weights: Any = None,
        carry_weights: bool = True,
        early_stopping: bool = True,
        quantization_aware: bool = False,
        on_trial_error: Literal["continue", "raise"] = "continue",
        distribution_strategy: Any = None,
        seed: int = 0,
        directory: str | os.PathLike[str] | None = None,
        project_name: str | None = None,
        overwrite: bool = False,
    ) -> None:
        super().__init__(
            SearchOptions(
                board=board,
                classes=classes,
                oracle=oracle,
                channels=channels,
                alphas=alphas,
                resolutions=resolutions,
                head_channels=head_channels,
                depths=depths,
                max_latency_ms=max_latency_ms,
                learning_rate=learning_rate,
                sparsities=sparsities,
                augmentations=augmentations,
                trade_off=trade_off,
                max_trials=max_trials,
                epochs=epochs,
                recipe=recipe,
                weights=weights,
                carry_weights=carry_weights,
                early_stopping=early_stopping,
                quantization_aware=quantization_aware,
                on_trial_error=on_trial_error,
                distribution_strategy=distribution_strategy,
                seed=seed,
                directory=directory,
                project_name=project_name,
                overwrite=overwrite,
            )
        )

    def export_best(
        self,
        directory: str | os.PathLike[str],
        *,
        class_names: Sequence[str] | None = None,
        script: ScriptOptions | None = None,
    ) -> Any:
        """Writes the camera folder of the most accurate trial.

        Args:
            directory: The folder to write, as for `omv.export`.
            class_names: The labels. Defaults to `None`: those of the dataset, where
                it has a `class_names` as Keras' folder datasets do, else numbers.
            script: As for `omv.export`.

        Returns:
            The `ExportReport`; with accuracies where `search` was called before.

        Raises:
            SearchError: If no trial is finished.
        """
        results = self.results()
        if not results:
            raise SearchError(
                f"Expected finished trials in {self.runner.folder}. Received: none. "
                "Next step: tuner.search(train, validation_data=validation)."
            )
        return self._export(results[0], directory, class_names, script)

    def export_pareto(
        self,
        directory: str | os.PathLike[str],
        *,
        cost: str = "flash_bytes",
        class_names: Sequence[str] | None = None,
        script: ScriptOptions | None = None,
    ) -> tuple[Any, ...]:
        """Writes a camera folder for each trial of the Pareto front.

        Args:
            directory: The folder that gets one folder per trial, named by its levers.
            cost: As for `pareto`.
            class_names: As for `export_best`.
            script: As for `omv.export`.

        Returns:
            The reports, the cheapest first.
        """
        folders = pathlib.Path(directory)
        return tuple(
            self._export(result, folders / result.name, class_names, script)
            for result in self.pareto(cost)
        )

    def _export(
        self,
        result: TrialResult,
        directory: str | os.PathLike[str],
        class_names: Sequence[str] | None,
        script: ScriptOptions | None,
    ) -> Any:
        folder = self.runner.trial_folder(result.model_trial_id)
        model, view = trials.load_quantized(folder)
        adopt(model, view)
        side = result.levers.resolution
        return export(
            model,
            directory,
            board=self.board,
            class_names=class_names or self._labels(),
            evaluation_data=self._data and self._data[1].arrays(side),
            script=script,
            seed=self.recipe.seed,
            trials=self.results(),
        )

    def _labels(self) -> Sequence[str]:
        if self._class_names:
            return self._class_names
        _LOGGER.warning(
            "The dataset has no class_names: labels.txt gets numbers. Next step: "
            "tuner.export_best(directory, class_names=[...])."
        )
        return [f"class {number}" for number in range(self.classes)]
