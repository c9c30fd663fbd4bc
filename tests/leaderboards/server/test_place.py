"""Which file a page becomes, and how it is reached from another."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from whitebench.identity import CellName
from whitebench_leaderboards.server import link
from whitebench_leaderboards.server.place import addresses_in, file_of, name_of, path_between, relink

HOSTILE = ["../x", "..", ".", "<script>", 'a"b', "a/b", "a~2fb", "~", "%2e%2e", "con", "ViT", "vit", "ünï", "\x1b[31m",
           "a" * 200, "crate[dim=64,depth=4]", ".git", "x.", "a\nb", "\ud800"]  # fmt: skip


def test_a_plain_name_is_its_files_name() -> None:
    for name in ("vit", "crate-modern", "crate_2.1", "0"):
        assert name_of(name) == name


def test_any_other_name_is_safe_and_has_a_file_of_its_own_on_every_disk() -> None:
    names = [name_of(name) for name in HOSTILE]
    assert len({name.lower() for name in names}) == len(HOSTILE)
    for name in names:
        assert re.fullmatch(r"[a-z0-9._~-]{1,100}", name)
        assert not name.startswith(".")
        assert quote(name) == name
    assert name_of("crate[dim=64,depth=4]").startswith("crate-dim-64-depth-4~")


def test_nobody_can_take_the_file_of_a_hostile_name_by_being_called_so() -> None:
    taken = name_of("<script>")
    assert name_of(taken) != taken


@pytest.mark.parametrize(
    ("address", "file"),
    [
        ("/", "index.html"),
        ("/suite/tiny", "suite/tiny/index.html"),
        ("/suite/tiny/charts", "suite/tiny/charts.html"),
        ("/suite/tiny/board.csv", "suite/tiny/board.csv"),
        ("/suite/tiny/contestant/vit", "suite/tiny/contestant/vit.html"),
        ("/suite/tiny/cell/vit/digits/0", "suite/tiny/cell/vit/digits/0.html"),
        ("/suite/tiny/figure/vit/digits/0/spectrum", "suite/tiny/figure/vit/digits/0/spectrum.svg"),
        ("/suite/tiny/compare?with=vit&with=crate", "suite/tiny/compare/vit/crate.html"),
        ("/static/whitebench.css", "static/whitebench.css"),
        ("/api/v1/suites", "api/v1/suites.json"),
        ("/api/v1/boards/tiny", "api/v1/boards/tiny.json"),
        ("/api/v1/cells/tiny/vit/digits/0", "api/v1/cells/tiny/vit/digits/0.json"),
    ],
)
def test_a_page_is_where_its_address_says(address: str, file: str) -> None:
    assert file_of(address) == file


@pytest.mark.parametrize("address", ["/login", "/mlflow/#/runs/1", "/suite/tiny/compare", "/suite/tiny/board.exe",
                                     "/suite/tiny/contestant/", "/suite/tiny/tradeoff/digits?x=macs",
                                     "//elsewhere.org/x", "/static/../x"])  # fmt: skip
def test_what_only_a_server_answers_is_no_file(address: str) -> None:
    assert file_of(address) is None


def test_a_suite_that_was_changed_has_a_folder_of_its_own() -> None:
    changed = file_of(link.suite("tiny", "budget.epochs=3"))
    assert changed is not None
    assert changed.startswith("suite/tiny-budget-epochs-3~")


@pytest.mark.parametrize("name", HOSTILE[:-1])
def test_every_name_has_an_address_that_leads_back_to_it(name: str) -> None:
    one = CellName(suite="tiny", contestant=name, task="digits", seed=0)
    address = link.cell(one)
    assert ".." not in address.split("/")
    assert address.count("/") == 6
    assert file_of(address) == f"suite/tiny/cell/{name_of(name)}/digits/0.html"


def test_links_lead_from_file_to_file_and_one_that_leads_nowhere_is_none() -> None:
    page = (
        '<a href="/suite/tiny?x=1&amp;y=2">a</a> <a href="#note-1">b</a> '
        '<a class="c" href="/login">d</a> href=&#34;/x&#34;'
    )
    assert addresses_in(page) == ["/suite/tiny?x=1&y=2", "/login"]
    there = relink(page, lambda address: '"there"' if address.startswith("/suite") else None)
    assert there == ('<a href="&quot;there&quot;">a</a> <a href="#note-1">b</a> <a class="c">d</a> href=&#34;/x&#34;')
    assert path_between("suite/tiny/cell/vit/digits/0.html", "index.html") == "../../../../../index.html"
    assert path_between("index.html", "static/still.js") == "static/still.js"
