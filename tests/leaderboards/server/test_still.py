"""Pages that no server answers, in a real browser: from a disk, from a plain web host's subfolder, and as one file."""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.leaderboards.conftest import World
from tests.leaderboards.server.conftest import Held
from tests.leaderboards.server.window import NEEDS_CHROMIUM, head, names, opened
from whitebench_leaderboards.server.bundle import write_pages
from whitebench_leaderboards.server.folder import Folder
from whitebench_leaderboards.server.handout import to_html
from whitebench_leaderboards.server.reader import Reader

pytestmark = NEEDS_CHROMIUM

LABEL = "crate[dim=64,depth=4]"
EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"
EVERYWHERE = ["disk", "host", "file"]


@pytest.fixture
def held(world: World) -> Held:
    held = Held([*world.full(), *world.entry("vit", [0.99, 0.98, 0.97], task="faces"),
                 *world.entry(EVIL, [0.9, 0.91, 0.92], task="faces")])  # fmt: skip
    pictures = held.pictures("")
    held.pictures = lambda run_id: pictures if run_id == "run-vit-digits-0" else {}  # type: ignore[method-assign]
    held.cells = lambda _suite, _overrides: []  # type: ignore[method-assign,assignment]
    return held


@pytest.fixture
def root(reader: Reader, tmp_path: Path) -> Path:
    """Return a folder with a bundle in a subfolder, and with a board as one file beside it."""
    reader.refresh()
    folder = Folder(tmp_path / "www" / "results" / "site")
    write_pages(reader, reader.shelves()[:1], folder, command="", told=lambda _done, _known: None)
    page = to_html(reader.ledger("tiny"), command="whitebench board tiny --format html")
    (tmp_path / "www" / "tiny.html").write_text(page, encoding="utf-8")
    return tmp_path / "www"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hosted(root: Path) -> Iterator[str]:
    """Serve the folder as `python -m http.server` does, and return where."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def site(where: str, root: Path, request: pytest.FixtureRequest) -> str:
    """Return the address of the bundle."""
    home = cast("str", request.getfixturevalue("hosted")) if where == "host" else root.as_uri()
    return f"{home}/results/site"


@pytest.fixture
def board(where: str, root: Path, site: str) -> str:
    """Return the address of the board."""
    return f"{root.as_uri()}/tiny.html" if where == "file" else f"{site}/suite/tiny/index.html"


@pytest.fixture
def page(browser: Browser, board: str) -> Iterator[Page]:
    """Open the board in a window that may ask nobody else."""
    allowed = board if board.endswith("tiny.html") else board.partition("/site/")[0]
    with opened(browser, allowed) as page:
        page.goto(board)
        yield page


everywhere = pytest.mark.parametrize("where", EVERYWHERE)
in_a_bundle = pytest.mark.parametrize("where", ["disk", "host"])


@everywhere
def test_a_board_is_sorted_filtered_and_searched_and_the_address_shows_the_same_to_whoever_opens_it(page: Page) -> None:
    assert page.locator(".task-head:visible").count() == 2
    head(page, "score/accuracy").click()
    assert names(page)[0] == "vit"
    assert "sort=-score/accuracy" in page.url
    page.get_by_label("Task").select_option("digits")
    page.get_by_label("in one table").check()
    page.get_by_label("ranked only").check()
    page.get_by_label("each seed").first.check()
    page.get_by_label("Search").fill("accuracy>95 parameters<100k")
    assert names(page) == ["vit", LABEL]
    expect(page.locator("#count")).to_have_text("2 of 8 rows")
    expect(page.locator("#board .entry:visible .strip .seed").first).to_be_visible()
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    assert names(page) == ["vit", LABEL]
    expect(page.get_by_label("Search")).to_have_value("accuracy>95 parameters<100k")
    assert page.locator('th[data-key="score/accuracy"]').get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Reset").click()
    assert len(names(page)) == 8
    assert "?" not in page.url


@everywhere
def test_columns_are_chosen_without_a_server(page: Page) -> None:
    values = '#board [data-key="values"]'
    expect(page.locator(values)).to_be_hidden()
    page.locator("#columns summary").click()
    expect(page.locator('#columns [value="gap"]')).to_be_checked()
    page.locator('#columns [value="gap"]').uncheck()
    page.locator('#columns [value="interval"]').uncheck()
    page.locator('#columns [value="values"]').check()
    expect(page.locator(values)).to_be_visible()
    expect(head(page, "gap")).to_be_hidden()
    assert page.locator("#board .strip:visible").count() == 0
    heads = page.locator("#board thead th:visible").count()
    for row in range(3):
        assert page.locator("#board .entry").nth(row).locator("td:visible, th:visible").count() == heads
    assert page.locator("#board .task-head th").first.get_attribute("colspan") == str(heads)
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator(values)).to_be_visible()
    expect(head(page, "gap")).to_be_hidden()
    expect(page.locator('#columns [value="values"]')).to_be_checked()
    page.get_by_role("button", name="Reset").click()
    expect(head(page, "gap")).to_be_visible()


@everywhere
def test_it_can_all_be_done_by_the_keyboard(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("partial")
    assert names(page) == ["partial"]
    page.get_by_label("Search").fill("")
    head(page, "seeds").focus()
    page.keyboard.press("Enter")
    assert "sort=seeds" in page.url
    page.locator("#columns summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#columns fieldset")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#columns fieldset")).to_be_hidden()


@everywhere
def test_names_from_strangers_notes_and_reasons_are_all_there_to_be_read(page: Page) -> None:
    assert EVIL in names(page)
    text = page.locator("main").inner_text()
    assert "oom: needs 3 GiB more" in text
    assert "not run yet" in text
    marks = page.locator("#board .marks a:visible")
    for place in range(marks.count()):
        assert page.locator(cast("str", marks.nth(place).get_attribute("href"))).is_visible()


@everywhere
def test_dark_and_light_follow_the_system(page: Page, board: str) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=cast("Any", scheme))
        grounds.add(page.evaluate("getComputedStyle(document.body.parentElement).backgroundColor"))
    assert len(grounds) == 2


@everywhere
def test_a_narrow_window_is_never_wider_than_itself(page: Page) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@in_a_bundle
def test_every_page_of_a_bundle_opens_without_a_complaint_also_narrow_and_dark(
    page: Page, site: str, root: Path
) -> None:
    folder = root / "results" / "site"
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 400, "height": 800})
    for file in sorted(folder.rglob("*.html")):
        page.goto(f"{site}/{file.relative_to(folder)}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, file
        assert page.get_by_role("heading", level=1).is_visible()


@in_a_bundle
def test_a_reader_comes_from_the_suites_to_a_cells_charts_and_figures(page: Page, site: str) -> None:
    page.goto(f"{site}/index.html")
    page.get_by_role("link", name="tiny").click()
    page.locator("#board .entry .name a", has_text="vit").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("vit")
    page.get_by_role("link", name="0", exact=True).first.click()
    expect(page.locator(".chart .main-svg").first).to_be_visible()
    figure = page.locator(".pictures img")
    figure.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.pictures img').naturalWidth > 100")
    page.get_by_role("link", name="tiny").click()
    page.get_by_role("link", name="charts", exact=True).click()
    expect(page.locator(".chart .main-svg").first).to_be_visible()
    assert page.locator(".chart", has_text="accuracy against cross-entropy").count() == 1
    page.get_by_role("link", name="whitebench").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Suites")


@in_a_bundle
def test_two_are_side_by_side_with_their_curves(page: Page, site: str) -> None:
    page.goto(f"{site}/suite/tiny/contestant/slow.html")
    page.get_by_role("link", name="vit").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("vit, slow")
    expect(page.locator(".chart .main-svg").first).to_be_visible()


@pytest.mark.parametrize("where", ["file"])
def test_a_page_that_stands_alone_says_what_it_is_and_leads_nowhere(page: Page) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text("tiny, version 1")
    assert re.fullmatch(
        r"Made \d{4}-\d\d-\d\d \d\d:\d\d UTC by whitebench [\d.]+ \(whitebench board tiny --format html\)\."
        r" Its last cell ended 2026-01-01 00:00 UTC\.",
        page.locator("footer").inner_text(),
    )
    leads = page.evaluate(
        "[...document.querySelectorAll('[href], [src]')].map((one) => one.getAttribute('href') ?? one.src)"
    )
    assert all(one.startswith(("#", "data:image/svg+xml,")) for one in leads)


@everywhere
def test_pictures_for_the_eye(page: Page, board: str, tmp_path: Path) -> None:
    """Draw the board in light, dark and narrow; kept by pytest's --basetemp for whoever wants to look."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=cast("Any", scheme))
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(board)
            page.screenshot(path=tmp_path / f"board-{scheme}-{width}.png", full_page=True)
