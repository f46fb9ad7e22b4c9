"""Puts the tables of what benchmarks measured into the README.

    python benchmarks/readme.py

Each stands there between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import importlib
import json
import pathlib
import re

README = pathlib.Path(__file__).parent.parent / "README.md"
BENCHMARKS = (
    *("what_fits", "search", "pruning", "file_size", "cost_accuracy"),
    *("int8_accuracy", "qat"),
)
MARKED = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def tables() -> dict[str, str]:
    """The tables by the names that they have in the README."""
    made = {}
    for name in BENCHMARKS:
        benchmark = importlib.import_module(name)
        made[name] = benchmark.table(json.loads(benchmark.PATH.read_text()))
    made["qat_cost"], made["qat_accuracy"] = made.pop("qat").split("\n\n")
    return made


def rendered(text: str) -> str:
    """The README with its tables made anew.

    Raises:
        ValueError: If a table is missing, unknown or there more than once.
    """
    made, found = tables(), sorted(MARKED.findall(text))
    if found != sorted(made):
        raise ValueError(f"Expected once each: {sorted(made)}. Received: {found}.")

    def marked(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n\n{made[match[1]]}\n\n<!-- end -->"

    return MARKED.sub(marked, text)


def main() -> None:
    """Rewrites the README."""
    README.write_text(rendered(README.read_text()))


if __name__ == "__main__":
    main()
