"""What `keras-omv search` does: from an image folder to the best camera folder."""

import argparse
import pathlib

from rich.console import Console

from keras_omv import screens
from keras_omv.boards import get_board
from keras_omv.deploy import check_destination
from keras_omv.progress import print_line
from keras_omv.shared_arguments import script_options
from keras_omv.survey import survey
from keras_omv.terminal import quiet_tensorflow

SMALLEST_RESOLUTION, RESOLUTION_STEP = 32, 16
USUAL_TRIALS, ENDLESS = 20, 10_000
USUAL_RESOLUTION = 48
"""What even smaller images are enlarged to."""


def search(options: argparse.Namespace, console: Console) -> None:
    """Searches a MobileNetV2 that fits a camera and writes the best one's folder."""
    if options.oracle == "hyperband" and options.trials:
        raise ValueError(
            "Expected no --trials for hyperband, which counts for itself. Received: "
            f"--trials {options.trials}. Next step: --epochs decides how long it takes."
        )
    board = get_board(options.board, firmware=options.firmware)
    check_destination(options.out)
    script = script_options(options)
    classes, side = survey(options.data)
    with quiet_tensorflow():
        from keras_omv.recipe import Recipe
        from keras_omv.search_progress import SearchProgress, ShownTuner
        from keras_omv.space import ALPHAS
    project = options.project or options.out.with_name(f"{options.out.name}-search")
    counted = not options.hours and options.oracle != "hyperband"
    progress = SearchProgress(
        console, trials=_trials(options) if counted else None, hours=options.hours
    )
    tuner = ShownTuner(
        progress,
        board=board,
        classes=classes,
        oracle=options.oracle,
        channels=1 if options.grey else 3,
        alphas=[alpha for alpha in ALPHAS if alpha <= options.max_alpha],
        resolutions=_resolutions(side, options.max_resolution),
        max_latency_ms=options.max_ms,
        max_trials=_trials(options),
        epochs=options.epochs,
        recipe=Recipe(
            batch_size=options.batch_size,
            flip=not options.no_flip,
            seed=options.seed,
        ),
        weights=options.weights,
        carry_weights=not options.from_scratch,
        early_stopping=not options.no_early_stopping,
        seed=options.seed,
        directory=project.parent,
        project_name=project.name,
    )
    console.print(
        f"{len(tuner.space.points)} networks fit {board.title}; trials are kept in "
        f"{project}, run this again to go on",
        markup=False,
    )
    progress.start()
    try:
        folder = pathlib.Path(options.data)
        tuner.search(folder, hours=options.hours, callbacks=[progress], verbose=0)
    except KeyboardInterrupt:
        count = len(tuner.results())
        text = f"Stopped with {count} finished trials; run this again to go on."
        print_line(text, console)
        raise
    finally:
        progress.stop()
    report = tuner.export_best(options.out, script=script)
    screens.print_report(report, board, console)


def _trials(options: argparse.Namespace) -> int:
    if options.hours:
        return ENDLESS
    return USUAL_TRIALS if options.trials is None else int(options.trials)


def _resolutions(image_side: int | None, largest: int) -> range:
    """Resolutions up to what the images have."""
    top = largest
    if image_side is not None:
        rounded = -(-image_side // RESOLUTION_STEP) * RESOLUTION_STEP
        top = min(largest, max(USUAL_RESOLUTION, rounded))
    return range(SMALLEST_RESOLUTION, top + 1, RESOLUTION_STEP)
