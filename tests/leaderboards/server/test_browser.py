"""The board in a real browser: what a reader does with it, and what it must not let happen."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from tests.leaderboards.conftest import World
from tests.leaderboards.server.conftest import Held
from tests.leaderboards.server.window import NEEDS_CHROMIUM, head, names, opened
from tests.leaderboards.test_overall import records_of_six
from whitebench_leaderboards.server.app import make_app
from whitebench_leaderboards.server.reader import Reader

pytestmark = NEEDS_CHROMIUM

LABEL = "crate[dim=64,depth=4]"


@pytest.fixture
def address(reader: Reader) -> Iterator[str]:
    """Serve what the reader reads, and return where."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    settings = uvicorn.Config(make_app(reader), log_level="error", lifespan="off")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=20)


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Open a window that may ask the server alone."""
    with opened(browser, address) as page:
        page.goto(f"{address}/suite/tiny")
        yield page


def test_a_click_on_a_head_sorts_the_better_end_first_and_stands_in_the_address(page: Page) -> None:
    head(page, "score/accuracy").click()
    assert names(page)[0] == "vit"
    assert "sort=-score/accuracy" in page.url
    head(page, "score/accuracy").click()
    assert names(page)[0] == "old"
    assert page.locator('th[data-key="score/accuracy"]').get_attribute("aria-sort") == "ascending"
    head(page, "score/accuracy").click()
    assert "sort" not in page.url


def test_rows_without_a_value_stay_last_whichever_way(page: Page) -> None:
    for _ in range(2):
        head(page, "score/cross-entropy").click()
        assert "never" in names(page)[3:]


def test_a_permalink_shows_the_same_to_whoever_opens_it(page: Page, address: str) -> None:
    head(page, "cost/parameters").click()
    page.get_by_label("ranked only").check()
    page.get_by_label("Search").fill("r")
    page.locator("#columns summary").click()
    page.locator('#columns [value="gap"]').uncheck()
    expect(head(page, "gap")).to_have_count(0)
    page.locator('#columns [value="validation"]').check()  # the chooser stays open
    expect(head(page, "validation")).to_be_visible()
    seen, link = names(page), page.url
    page.goto("about:blank")
    page.goto(link)
    assert names(page) == seen
    expect(page.get_by_label("ranked only")).to_be_checked()
    expect(page.get_by_label("Search")).to_have_value("r")
    expect(head(page, "gap")).to_have_count(0)
    expect(head(page, "validation")).to_be_visible()


def test_a_search_looks_at_names_and_notes_and_at_numbers_as_they_are_shown(page: Page) -> None:
    search = page.get_by_label("Search")
    search.fill("crate")
    assert names(page) == [LABEL]
    search.fill("guest")  # a footnote
    assert names(page) == ["slow"]
    search.fill("accuracy>95 parameters<100k")
    assert names(page) == ["vit", LABEL]
    expect(page.locator("#count")).to_have_text("2 of 6 rows")
    page.get_by_role("button", name="Reset").click()
    assert len(names(page)) == 6
    assert "q=" not in page.url


def test_seeds_are_drawn_on_demand(page: Page) -> None:
    seeds = page.locator("#board .strip .seed")
    expect(seeds.first).to_be_hidden()
    page.get_by_label("each seed").first.check()
    expect(seeds.first).to_be_visible()
    assert "seeds=1" in page.url


def test_several_tasks_stand_in_groups_or_in_one_table(held: Held, world: World, page: Page) -> None:
    held.change([*world.full(), *world.entry("vit", [0.99, 0.98, 0.97], task="faces")])
    page.reload()
    assert page.locator(".task-head:visible").count() == 2
    page.get_by_label("in one table").check()
    assert page.locator(".task-head:visible").count() == 0
    head(page, "score/accuracy").click()
    assert page.locator("#board .entry:visible .task-column").first.inner_text() == "faces"
    page.get_by_label("Task").select_option("digits")
    assert len(names(page)) == 6


def test_two_that_are_marked_are_compared(page: Page) -> None:
    expect(page.locator(".chosen")).to_be_hidden()
    for label in ("vit", LABEL):
        page.get_by_label(f"compare {label}").check()
    expect(page.locator(".chosen span")).to_have_text(f"vit, {LABEL}")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"vit, {LABEL}")
    expect(page.locator(".chart .main-svg").first).to_be_visible()


def test_it_can_all_be_done_by_the_keyboard(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("vit")
    assert names(page) == ["vit"]
    page.get_by_label("Search").fill("")
    head(page, "seeds").focus()
    page.keyboard.press("Enter")
    assert "sort=seeds" in page.url
    page.locator("#columns summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#columns fieldset")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#columns fieldset")).to_be_hidden()


def test_new_results_appear_without_a_reload_and_leave_the_reader_where_he_is(
    held: Held, world: World, page: Page
) -> None:
    page.evaluate("window.isTheSamePage = true")
    page.get_by_label("compare vit").check()
    search = page.get_by_label("Search")
    search.fill("e")
    held.change([*world.full(), *world.entry("newcomer", [0.99, 0.98, 0.97])])
    expect(page.locator("#board .name", has_text="newcomer")).to_be_visible()
    assert page.evaluate("window.isTheSamePage")
    expect(page.get_by_label("compare vit")).to_be_checked()
    expect(search).to_have_value("e")
    expect(search).to_be_focused()
    expect(page.locator('[data-id="digits/newcomer"]')).to_have_class(re.compile("is-new"))
    page.get_by_label("Search").fill("")
    head(page, "score/accuracy").click()  # the table that came is as alive as the one that went
    assert names(page)[0] == "newcomer"


def test_a_server_that_was_away_is_said_and_forgotten(page: Page) -> None:
    page.route("**/suite/tiny", lambda route: route.abort())
    expect(page.locator("#live")).to_have_text("No connection to the server")
    page.unroute("**/suite/tiny")
    expect(page.locator("#live")).to_be_hidden()


def ratio(foreground: str, background: str) -> float:
    """Return the contrast of two colours (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(foreground), luminance(background)))
    return (light + 0.05) / (dark + 0.05)


CONTRAST = """
() => [...document.querySelectorAll('main *, header *, footer *')]
  .filter((one) => one.checkVisibility() && [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
  .filter((one) => !one.closest('svg, .said, option'))
  .map((one) => {
    let ground = one;
    while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
    const style = getComputedStyle(one);
    return [one.className || one.tagName, style.color, ground ? getComputedStyle(ground).backgroundColor : ''];
  })
"""


@pytest.mark.parametrize("path", ["/", "/suite/tiny", "/suite/tiny/cell/vit/digits/0", "/suite/tiny/contestant/vit"])
def test_every_word_has_the_contrast_that_wcag_asks_for(page: Page, address: str, path: str) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=cast("Any", scheme))
        page.goto(f"{address}{path}")
        page_ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        found = cast("list[list[str]]", page.evaluate(CONTRAST))
        assert len(found) > 10
        weak = [one for one in found if ratio(one[1], one[2] or page_ground) < 4.5]
        assert weak == [], scheme


def test_dark_and_light_follow_the_system_charts_too(page: Page, address: str) -> None:
    page.goto(f"{address}/suite/tiny/cell/vit/digits/0")
    text = page.locator(".chart .xtick text").first
    grounds, inks = set(), set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=cast("Any", scheme))
        grounds.add(page.evaluate("getComputedStyle(document.body.parentElement).backgroundColor"))
        page.wait_for_timeout(500)
        inks.add(text.evaluate("one => getComputedStyle(one).fill"))
    assert len(grounds) == len(inks) == 2


@pytest.mark.parametrize("path", ["/", "/suite/tiny", "/suite/tiny/cell/vit/digits/0", "/suite/tiny/contestant/vit",
                                  "/suite/tiny/compare?with=vit&with=slow", "/suite/tiny/charts"])  # fmt: skip
def test_a_narrow_window_is_never_wider_than_itself(page: Page, address: str, path: str) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.goto(f"{address}{path}")
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_name_stays_in_sight_while_a_wide_table_is_scrolled(page: Page) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    page.locator(".wide").evaluate("one => one.scrollLeft = 600")
    box = page.locator("#board .entry .name").first.bounding_box()
    assert box is not None
    assert 0 <= box["x"] < 60


def test_the_tasks_as_a_whole_are_charts_and_a_table_that_the_keyboard_opens(
    held: Held, world: World, page: Page, address: str
) -> None:
    held.change(records_of_six(world))
    page.goto(f"{address}/suite/tiny/charts")
    figures = page.locator("section").first.locator(".chart")
    expect(figures).to_have_count(3)
    for number in range(3):
        expect(figures.nth(number).locator(".main-svg").first).to_be_visible()
    expect(figures.first.locator(".ytick text")).to_have_text(["best", "middle", "low"])
    expect(figures.nth(2).locator(".heatmap-label text").first).to_be_visible()
    summary = figures.nth(2).locator("summary")
    summary.focus()
    page.keyboard.press("Enter")
    expect(figures.nth(2).locator("tbody tr").first).to_have_text(re.compile(r"best\s*–\s*8\d\s*8\d"))


def test_a_model_called_script_is_a_name_and_nothing_else(held: Held, page: Page, address: str) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    world = World(suite="tiny")
    held.change([*world.entry(evil, [0.9, 0.8, 0.9]), *world.entry("vit", [0.8, 0.8, 0.9])])
    page.reload()
    assert evil in page.locator("#board .name").first.inner_text()
    page.get_by_label("compare vit").check()
    page.get_by_label(f"compare {evil}").check()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".chart .legendtext").first).to_be_visible()
    page.goto(f"{address}/suite/tiny/charts")
    page.goto(f"{address}/suite/tiny?q={evil}&sort=%3Cb%3E&columns=%3Cscript%3E")
    page.wait_for_timeout(500)


def test_pictures_for_the_eye(page: Page, address: str, tmp_path: Path) -> None:
    """Draw every page in light, dark and narrow; kept by pytest's --basetemp for whoever wants to look."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=cast("Any", scheme))
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 900})
            for name, path in (("suites", "/"), ("board", "/suite/tiny"), ("cell", "/suite/tiny/cell/vit/digits/0")):
                page.goto(f"{address}{path}")
                file = tmp_path / f"{name}-{scheme}-{width}.png"
                page.screenshot(path=file)
                assert file.stat().st_size > 5_000
