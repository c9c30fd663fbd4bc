"""A window of a real browser in which every complaint, and every word with anybody else, fails the test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, expect

CHROMIUM = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)

NEEDS_CHROMIUM = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: apt-get install chromium"),
]

expect.set_options(timeout=30_000)  # what is drawn comes when the machine has time for it


@contextmanager
def opened(browser: Browser, allowed: str) -> Iterator[Page]:
    """Open a window that may ask for addresses which begin with `allowed`, and for no others."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    complaints: list[str] = []

    def hear(said: ConsoleMessage) -> None:
        if said.type in ("error", "warning") and "net::ERR" not in said.text:  # the browser's own word on a lost server
            complaints.append(said.text)

    def see(request: Request) -> None:
        if not request.url.startswith((allowed, "data:", "about:")):
            complaints.append(request.url)

    def refuse(dialog: Dialog) -> None:
        complaints.append(dialog.message)
        dialog.dismiss()

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", see)
    page.on("dialog", refuse)
    page.set_default_timeout(60_000)
    yield page
    context.close()
    assert complaints == []


def names(page: Page) -> list[str]:
    """Return the contestants in the order in which they are seen."""
    return page.locator("#board .entry:visible .name > a").all_inner_texts()


def head(page: Page, key: str) -> Any:
    """Return the head of a column."""
    return page.locator(f'#board th[data-key="{key}"] button')
