"""How long a reader looks at nothing: a board's first paint in a real browser, of a real server. For `board`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

TIMES = 3
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
_SERVE = "import sys; from whitebench.cli import main; sys.argv[0] = 'whitebench'; main()"


class NoBrowserError(Exception):
    """There is no chromium on this machine."""


def first_paints(uri: str, suite: Path) -> tuple[float, list[float]]:
    """Return the seconds to the first paint of a suite's board: by the first to ask a new server, and by those after.

    Raises:
        NoBrowserError: there is none.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        raise NoBrowserError("there is no chromium here")
    with _serving(uri, suite) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        _painted(browser, address)  # the suites: whoever opens the server comes here first
        board = f"{address}suite/{suite.stem}"
        first, *later = [_painted(browser, board) for _ in range(1 + TIMES)]
        browser.close()
    return first, later


def _painted(browser: Browser, address: str) -> float:
    """Open a page in a window that has never seen it, and return the seconds until something stands there."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_function(_PAINTED)
    seconds = float(page.evaluate(_PAINTED)) / 1000
    context.close()
    return seconds


@contextmanager
def _serving(uri: str, suite: Path) -> Iterator[str]:
    command = [sys.executable, "-c", _SERVE, "serve", str(suite), "--store", uri, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found, "the server did not say where it is"
            yield found[0]
        finally:
            server.terminate()
