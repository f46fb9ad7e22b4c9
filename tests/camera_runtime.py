"""Finds a MicroPython to run the camera's script with.

`micropython` from PATH comes first. Where there is none but `apt-get` exists, Debian
trixie's MicroPython 1.25.0, the release that OpenMV 5.0 is built on, is downloaded
with the libraries it needs and unpacked into a cache folder. Apt runs with folders
of its own: no root is needed and nothing is installed on the system.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

RELEASE = "trixie"
MIRROR = "http://deb.debian.org/debian"
KEYRINGS = tuple(
    pathlib.Path("/usr/share/keyrings") / f"debian-archive-keyring.{suffix}"
    for suffix in ("gpg", "pgp")
)
TIMEOUT_S = 180


class UnavailableError(RuntimeError):
    """There is no MicroPython here, and none can be fetched."""


def micropython_command(cache: pathlib.Path) -> list[str]:
    """Return the start of a command line that runs MicroPython.

    Args:
        cache: A folder that outlives the test session.

    Raises:
        UnavailableError: If there is none, with the reason.
    """
    installed = shutil.which("micropython")
    command = [installed] if installed else _fetched_command(cache / RELEASE)
    _run([*command, "-c", "import vfs; vfs.VfsPosix"])
    return command


def _fetched_command(folder: pathlib.Path) -> list[str]:
    if not folder.exists():
        _fetch(folder)
    loader = next((folder / "usr/lib").rglob("ld-linux*.so*"))
    program = folder / "usr/bin/micropython"
    return [str(loader), "--library-path", str(loader.parent), str(program)]


def _fetch(folder: pathlib.Path) -> None:
    """Download and unpack beside `folder`, then rename: other tests may do the same."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as work_name:
        work = pathlib.Path(work_name)
        _download(work)
        for package in sorted(work.glob("archives/*.deb")):
            _run(["dpkg", "-x", str(package), str(work / "root")])
        try:
            (work / "root").rename(folder)
        except OSError:
            if not folder.exists():
                raise


def _download(work: pathlib.Path) -> None:
    apt = shutil.which("apt-get")
    keyring = next((path for path in KEYRINGS if path.exists()), None)
    if apt is None or keyring is None or shutil.which("dpkg") is None:
        raise UnavailableError(
            "no `micropython` on PATH, and no apt-get, dpkg and Debian keyring to "
            "fetch it with"
        )
    for name in ("lists/partial", "archives/partial", "root"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    source = f"deb [signed-by={keyring}] {MIRROR} {RELEASE} main\n"
    (work / "sources.list").write_text(source)
    options = _apt_options(work)
    _run([apt, *options, "update"])
    _run([apt, *options, "--yes", "--download-only", "install", "micropython"])


def _apt_options(work: pathlib.Path) -> list[str]:
    """Return options that keep apt away from the system's own state."""
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": work,
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work,
        "Dir::Cache::archives": work / "archives",
        "Dir::Log": work,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Debug::NoLocking": "1",
    }
    pairs = [("-o", f"{name}={value}") for name, value in settings.items()]
    return ["-q", *(word for pair in pairs for word in pair)]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]} could not run: {error}") from error
    if done.returncode:
        tail = (done.stderr or done.stdout).strip()[-500:]
        raise UnavailableError(f"{command[0]} failed: {tail}")
