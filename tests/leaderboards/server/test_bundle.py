"""The site as files: every link leads to a file, every name is harmless, and what needs a server is not there."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.leaderboards.conftest import World
from tests.leaderboards.server.conftest import Held
from whitebench.ledger import Published
from whitebench_leaderboards.render import render
from whitebench_leaderboards.server.bundle import write_pages
from whitebench_leaderboards.server.folder import Folder
from whitebench_leaderboards.server.reader import Reader

NAMES = ["<img src=x onerror=alert(1)><script>alert(2)</script>", "../x", "..", "a/b", "ViT", "vit", "con",
         "crate[dim=64,depth=4]", "a\"b'&{{7*7}}"]  # fmt: skip


@pytest.fixture(autouse=True)
def few_pictures(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one cell have pictures: drawing them takes the most time."""
    pictures = held.pictures("")
    monkeypatch.setattr(held, "pictures", lambda run_id: pictures if run_id == "run-vit-digits-0" else {})


def write(reader: Reader, folder: Path) -> Path:
    """Write what the reader's store has into the folder `site`, and return that."""
    path = folder / "site"
    reader.refresh()
    shown = [one for one in reader.shelves() if one.is_stored and one.is_known]
    write_pages(reader, shown, Folder(path), command="whitebench bundle DIR", told=lambda _done, _known: None)
    return path


def pages_of(site: Path) -> dict[str, str]:
    return {str(file.relative_to(site)): file.read_text(encoding="utf-8") for file in site.rglob("*.html")}


def links_of(page: str) -> Iterator[str]:
    for found in re.finditer(r'<[^>]*? (?:href|src|action|data-source)="([^"]*)"', page):
        yield unescape(found[1])


def assert_every_link_leads_somewhere(site: Path) -> None:
    files = {str(file.relative_to(site)) for file in site.rglob("*") if file.is_file()}
    reached = {"index.html"}
    for name, page in pages_of(site).items():
        for one in links_of(page):
            if one.startswith(("https://", "data:")):
                continue
            path, _, fragment = one.partition("#")
            assert not path.startswith("/"), one
            target = (site / name).parent / unquote(path) if path else site / name
            there = str(target.resolve().relative_to(site.resolve()))
            assert there in files, f"{name} links to {one}"
            assert not fragment or f'id="{fragment}"' in target.read_text(encoding="utf-8")
            reached.add(there)
    data = {file for file in files if file.startswith("api/")} | {"bundle.json"}
    assert files - reached - data == set(), "a page that nobody can come to"


def test_every_page_is_there_and_every_link_leads_to_one(reader: Reader, tmp_path: Path) -> None:
    site = write(reader, tmp_path)
    assert_every_link_leads_somewhere(site)
    pages = pages_of(site)
    assert {name.count("/cell/") for name in pages} == {0, 1}
    assert sum("/cell/" in name for name in pages) == 18
    assert sum("/contestant/" in name for name in pages) == 6
    assert "suite/tiny/charts.html" in pages
    assert (site / "suite/tiny/figure/vit/digits/0/spectrum.svg").read_bytes().startswith(b"<?xml")


def test_everyone_is_side_by_side_with_the_best_and_the_best_with_the_next(reader: Reader, tmp_path: Path) -> None:
    pages = pages_of(write(reader, tmp_path))
    crate = "crate-dim-64-depth-4~"
    compared = sorted(re.sub("~.*", "~", name) for name in pages if "/compare/" in name)
    assert compared == [
        f"suite/tiny/compare/vit/{name}" for name in (crate, "never.html", "old.html", "partial.html", "slow.html")
    ]
    assert '<a href="../compare/vit/slow.html">vit</a>' in pages["suite/tiny/contestant/slow.html"]
    assert ">crate[dim=64,depth=4]</a>" in pages["suite/tiny/contestant/vit.html"]


def test_boards_and_cells_are_there_for_programs_too(reader: Reader, client: Any, tmp_path: Path) -> None:
    site = write(reader, tmp_path)
    for ending, wanted in (("csv", "csv"), ("md", "markdown"), ("tex", "latex"), ("txt", "table"), ("json", "json")):
        text = (site / f"suite/tiny/board.{ending}").read_text(encoding="utf-8")
        assert text == render(reader.board("tiny"), wanted, width=160)  # type: ignore[arg-type]
    listed = json.loads((site / "bundle.json").read_text(encoding="utf-8"))["files"]
    for file, address in listed.items():
        if file.startswith("api/"):
            assert json.loads((site / file).read_text(encoding="utf-8")) == client.get(address).json()
    assert [one["suite"] for one in json.loads((site / "api/v1/suites.json").read_text(encoding="utf-8"))] == ["tiny"]
    assert sum(file.startswith("api/v1/cells/") for file in listed) == 18


def test_what_needs_a_server_is_not_there(held: Held, reader: Reader, tmp_path: Path) -> None:
    held.keys.append(("mine", ""))  # whose plan is not known
    for page in pages_of(write(reader, tmp_path)).values():
        for word in ("/login", "mlflow/", "openapi", "data-tag", "data-source", "startLive", 'type="module"',
                     "<form method", 'name="with"', "Not run yet", "whitebench serve"):  # fmt: skip
            assert word not in page
        assert "default-src &#39;none&#39;" in page
        assert "unsafe" not in page


def test_every_page_says_when_and_by_what_it_was_made(reader: Reader, tmp_path: Path) -> None:
    for page in pages_of(write(reader, tmp_path)).values():
        assert re.search(r"Made \d{4}-\d\d-\d\d \d\d:\d\d UTC by whitebench [\d.]+ \(whitebench bundle DIR\)\.", page)


def test_hostile_names_are_read_linked_and_never_obeyed(
    world: World, held: Held, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = dict.fromkeys(("../../x", "<b>", "spectrum"), held.pictures("run-vit-digits-0")["spectrum"])
    monkeypatch.setattr(held, "pictures", lambda run_id: pictures if run_id == "run-../x-digits-0" else {})
    monkeypatch.setattr(held, "cells", lambda _suite, _overrides: [])
    held.records = [
        *(one for place, name in enumerate(NAMES) for one in world.entry(name, [0.9 - place / 100, 0.8, 0.85])),
        world.absent("vit", 3, "failed", "<script>alert(3)</script> /home/mallory/hidden/x.py"),
    ]
    site = write(reader, tmp_path)
    assert_every_link_leads_somewhere(site)
    pages = pages_of(site)
    assert sum("/contestant/" in name for name in pages) == len(NAMES)
    assert len({name.lower() for name in pages}) == len(pages)
    for page in pages.values():
        assert "<script>alert" not in page
        assert "onerror=alert(1)>" not in page
        assert "mallory" not in page
    assert {file.name for file in tmp_path.iterdir()} == {"site", "tiny.toml"}


def test_a_suite_that_was_changed_stands_beside_the_plain_one(held: Held, reader: Reader, tmp_path: Path) -> None:
    held.keys.append(("tiny", "budget.epochs=3"))
    site = write(reader, tmp_path)
    assert_every_link_leads_somewhere(site)
    [changed] = [name for name in pages_of(site) if re.fullmatch(r"suite/tiny-budget-epochs-3~\w+/index.html", name)]
    assert f'href="{changed}"' in (site / "index.html").read_text(encoding="utf-8")
    assert "overridden: budget.epochs=3" in (site / changed).read_text(encoding="utf-8")


def test_what_changes_while_it_is_written_waits_for_the_next(
    held: Held, world: World, reader: Reader, tmp_path: Path
) -> None:
    def change(_done: int, _known: int) -> None:
        held.change([*world.full(), *world.entry("newcomer", [0.99, 0.98, 0.97])])

    reader.refresh()
    write_pages(reader, reader.shelves()[:1], Folder(tmp_path / "site"), command="", told=change)
    assert not any("newcomer" in page for page in pages_of(tmp_path / "site").values())


def test_a_store_that_breaks_is_raised_and_what_is_there_is_known_as_a_bundle(
    held: Held, reader: Reader, tmp_path: Path
) -> None:
    reader.refresh()
    shown = reader.shelves()[:1]
    held.pictures = None  # type: ignore[assignment,method-assign]
    with pytest.raises(TypeError):
        write_pages(reader, shown, Folder(tmp_path / "site"), command="", told=lambda _done, _known: None)
    Folder(tmp_path / "site")


def test_published_numbers_stand_below_the_board(held: Held, reader: Reader, client: Any) -> None:
    one = Published(model="crate", task="digits", what="top-1", value=70.8, title="A <b>paper</b>", url="https://x.org")
    whole = held.ledger

    def ledger(*args: Any, **kwargs: Any) -> Any:
        return dataclasses.replace(whole(*args, **kwargs), published=(one,))

    held.ledger = ledger  # type: ignore[method-assign]
    page = client.get("/suite/tiny").text
    assert "Published elsewhere, under other budgets and unranked:" in page
    assert "crate: top-1: 70.8 (A &lt;b&gt;paper&lt;/b&gt;, https://x.org)" in page
