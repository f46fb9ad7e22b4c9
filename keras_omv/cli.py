"""The command line, see `keras-omv --help`."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence

from rich.console import Console

from keras_omv.arguments import make_parser
from keras_omv.progress import silent


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; errors go to stderr in one line and exit with 1.

    So does `verify` where something did not pass, which it prints itself.
    """
    options = make_parser().parse_args(arguments)
    is_quiet = getattr(options, "quiet", False)
    console = Console(quiet=is_quiet, highlight=False)
    try:
        with _errors_only() if is_quiet else contextlib.nullcontext():
            code = options.run(options, console)
    except (ValueError, OSError) as error:
        Console(stderr=True, highlight=False).print(
            f"keras-omv: {error}", style="red", markup=False, soft_wrap=True
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if code:
        raise SystemExit(code)


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    """Keeps bars and warnings off stderr."""
    logger = logging.getLogger("keras_omv")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with silent(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
