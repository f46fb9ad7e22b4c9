"""Debian's chromium without a screen, for pages that tests look at."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import urllib.parse

OWN_HOSTS = ("accounts.google.com", "clients2.google.com", "update.googleapis.com")
"""Whom the browser calls by itself, whatever the page is."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--hide-scrollbars"),
    *("--enable-logging=stderr", "--log-level=0"),
)


@dataclasses.dataclass(frozen=True)
class Visit:
    """What a browser made of a page.

    Attributes:
        dom: The document after it was loaded, as HTML.
        console: The lines of its console: errors, blocked loads.
        requests: Every address on a network that the page asked for.
    """

    dom: str
    console: tuple[str, ...]
    requests: tuple[str, ...]


def visit(page: pathlib.Path, folder: pathlib.Path) -> Visit:
    """Opens a page in a new profile."""
    network_log = folder / "network.json"
    done = chromium(folder, page.as_uri(), "--dump-dom", f"--log-net-log={network_log}")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Visit(done.stdout, tuple(console), _requests(network_log))


def picture(page: pathlib.Path, folder: pathlib.Path, *, width: int) -> pathlib.Path:
    """Photographs a page, the first 1200 pixels of its height."""
    path = folder / f"{width}.png"
    chromium(
        folder, page.as_uri(), f"--screenshot={path}", f"--window-size={width},1200"
    )
    return path


def chromium(folder, address, *options):
    profile = folder / "profile"
    command = [CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}", *options]
    return subprocess.run(
        [*command, address],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )


def _requests(network_log):
    log = json.loads(network_log.read_text("utf-8"))
    urls = [event.get("params", {}).get("url", "") for event in log["events"]]
    asked = (url for url in urls if url.startswith(("http", "ws")))
    return tuple(
        dict.fromkeys(
            url for url in asked if urllib.parse.urlsplit(url).hostname not in OWN_HOSTS
        )
    )
