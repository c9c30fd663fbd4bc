"""A board as one file: all that is on it is in the file, and nothing else is needed to read it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import unescape

from tests.leaderboards.conftest import World
from tests.leaderboards.server.conftest import Held
from tests.leaderboards.server.test_pages import HOSTILE, text_of
from whitebench_leaderboards.column import columns_of
from whitebench_leaderboards.server.handout import to_html
from whitebench_leaderboards.server.reader import Reader
from whitebench_leaderboards.sheet import sheets_of

COMMAND = "whitebench board tiny --format html"


def page_of(reader: Reader) -> str:
    return to_html(reader.ledger("tiny"), command=COMMAND, now=datetime(2026, 3, 4, 5, 6, tzinfo=UTC))


def test_it_holds_every_field_of_the_printed_board_with_notes_nulls_and_reasons(
    world: World, held: Held, reader: Reader
) -> None:
    nulls = [world.score("coding-rate/share", 0.5, nulls={"untrained": 7.25})]
    held.records += [world.record("null", seed, 0.5, scores=nulls) for seed in range(3)]
    text = text_of(page_of(reader)).replace(" ", "")
    for sheet in sheets_of(reader.board("tiny")):
        for row in sheet.rows:
            for field in row.fields:
                assert re.sub(r"\s+", "", str(field.cell)) in text
        for sentence in (*sheet.notes, sheet.ranking):
            assert sentence.replace(" ", "") in text
    assert any(column.is_null for column in columns_of(reader.board("tiny")))  # among the fields
    for reason in ("oom: needs 3 GiB more", "the model's source has changed", "not run yet"):
        assert reason.replace(" ", "") in text


def test_columns_that_are_not_usual_are_there_and_hidden(reader: Reader) -> None:
    page = page_of(reader)
    assert re.search(r'<th scope="col" data-key="values"[^>]* hidden>', page)
    assert re.search(r'<th scope="col" data-key="gap"[^>]*(?<! hidden)>', page)


def test_it_leads_nowhere_and_needs_nothing(reader: Reader) -> None:
    page = page_of(reader)
    body = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)
    leads = [unescape(one) for one in re.findall(r' (?:href|src|action|data-source)="([^"]*)"', body)]
    assert all(one.startswith(("#", "data:image/svg+xml,")) for one in leads)
    assert "<form action" not in page
    assert 'http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;;' in page


def test_it_says_of_what_it_is_when_it_was_made_and_by_which_command(reader: Reader) -> None:
    text = text_of(page_of(reader))
    assert "tiny, version 1" in text
    assert "Made 2026-03-04 05:06 UTC by whitebench" in text
    assert f"({COMMAND}). Its last cell ended 2026-01-01 00:00 UTC." in text


def test_names_reasons_and_folders_from_strangers_are_escaped_or_left_out(
    world: World, held: Held, reader: Reader
) -> None:
    held.records = [
        *(world.record(HOSTILE, seed, 0.9 + seed / 100, edges=[HOSTILE]) for seed in range(3)),
        world.absent("vit", 0, "failed", f"{HOSTILE} /home/mallory/hidden/data.npz is gone"),
    ]
    page = page_of(reader)
    assert "<script>alert" not in page
    assert "mallory" not in page
    assert "\x1b" not in text_of(page)
    assert page.count("<script>") == page.count("</script>") == 1
