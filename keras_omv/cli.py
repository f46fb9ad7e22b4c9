"""The command line, see `keras-omv --help`."""

from collections.abc import Sequence

from rich.console import Console

from keras_omv.arguments import make_parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; errors go to stderr in one line and exit with 1.

    So does `verify` where something did not pass, which it prints itself.
    """
    options = make_parser().parse_args(arguments)
    console = Console(quiet=getattr(options, "quiet", False), highlight=False)
    try:
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
