"""Commands on a real pseudo-terminal, and what is on its screen in the end."""

import dataclasses
import os
import pty
import re
import subprocess
import sys

SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")
SETTINGS = {
    **{name: value for name, value in os.environ.items() if name != "CI"},
    **{"TERM": "xterm", "COLUMNS": "120", "TF_CPP_MIN_LOG_LEVEL": "3"},
}


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a process did.

    Attributes:
        code: Its exit code.
        shown: All that went to the terminal, in its order.
        out: What went to stdout where that is a pipe.
    """

    code: int
    shown: str
    out: str = ""

    @property
    def screen(self):
        return screen_of(self.shown)


def run_on_terminal(command, *, pipes_stdout=False, **settings):
    """Runs a command whose stderr, and mostly stdout, are a pseudo-terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if pipes_stdout else theirs,
        stderr=theirs,
        env={**SETTINGS, **settings},
    ) as process:
        os.close(theirs)
        shown = _read(ours)
        os.close(ours)
        out = process.stdout.read().decode() if pipes_stdout else ""
    return Ran(process.returncode, shown.decode(), out)


def run_in_pipes(command, **settings):
    """Runs a command that has no terminal."""
    ran = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**SETTINGS, **settings},
    )
    return Ran(ran.returncode, ran.stderr, ran.stdout)


def python(code, *arguments):
    """The command that runs some Python."""
    return [sys.executable, "-c", code, *map(str, arguments)]


def screen_of(text):
    """The lines that a terminal shows after this text, the empty ones left out."""
    lines, row, column, place = [[]], 0, 0, 0
    while place < len(text):
        found = SEQUENCE.match(text, place)
        if found:
            place = found.end()
            number, kind = found.groups()
            if kind == "A":
                row = max(0, row - int(number or 1))
            elif kind == "K":
                first = 0 if number == "2" else column
                lines[row][first:] = " " * (column - first)
            elif (kind, number) not in {("h", "?25"), ("l", "?25")} and kind != "m":
                raise ValueError(f"not known: {found.group()!r}")
            continue
        character = text[place]
        place += 1
        if character == "\r":
            column = 0
        elif character == "\b":
            column = max(0, column - 1)
        elif character == "\n":
            row += 1
            lines += [[] for _ in range(row + 1 - len(lines))]
        else:
            line = lines[row]
            line += " " * (column + 1 - len(line))
            line[column] = character
            column += 1
    return [text for line in lines if (text := "".join(line).rstrip())]


def _read(descriptor):
    """All that comes until the other end is closed, which Linux calls an error."""
    parts = []
    while True:
        try:
            part = os.read(descriptor, 1 << 16)
        except OSError:
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)
