"""Runs code in the kernel of a notebook.

    python tests/notebook.py CODE

Prints JSON: what the kernel sent meanwhile, and what is below the cell in the end.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a cell did.

    Attributes:
        drawn: All texts that were ever shown in place of another one.
        printed: What it printed.
        left: The texts other than prints that are below the cell in the end.
    """

    drawn: str
    printed: str
    left: list[str]


def run(code: str, **settings: str) -> Ran:
    """Runs a cell in a process of its own, with settings of the environment."""
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | settings
    done = subprocess.run(
        [sys.executable, pathlib.Path(__file__), code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Ran(**json.loads(done.stdout))


def main(code: str) -> None:
    # What the tests but not the package need; a notebook has both.
    import nbclient
    import nbformat

    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = nbclient.NotebookClient(book, timeout=100, kernel_name="python3")
    drawn, process = [], client.process_message

    def note(message: Any, *others: Any) -> Any:
        if message["msg_type"] == "update_display_data":
            drawn.append(message["content"]["data"]["text/plain"])
        return process(message, *others)

    client.process_message = note  # type: ignore[method-assign]
    client.execute()
    outputs = book.cells[0].outputs
    printed = "".join(o["text"] for o in outputs if o["output_type"] == "stream")
    others = [o for o in outputs if o["output_type"] != "stream"]
    left = [o["data"]["text/plain"] for o in others]
    texts = {"drawn": "\n".join(drawn), "printed": printed, "left": left}
    sys.stdout.write(json.dumps(texts))


if __name__ == "__main__":
    main(sys.argv[1])
