"""The pages: every number is the printed board's, every name is harmless, and what is not there is said."""

from __future__ import annotations

import dataclasses
import re
from html import unescape

import pytest
from starlette.testclient import TestClient

from tests.leaderboards.conftest import World
from tests.leaderboards.server.conftest import Held
from whitebench.errors import StoreError
from whitebench.tags import OpenStudy
from whitebench_leaderboards.column import columns_of
from whitebench_leaderboards.render import render
from whitebench_leaderboards.server.app import make_app
from whitebench_leaderboards.server.reader import Reader
from whitebench_leaderboards.sheet import sheets_of

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}\x1b[31m"


def text_of(page: str) -> str:
    """Return what a reader reads: without tags, scripts and runs of spaces."""
    without = re.sub(r"<script.*?</script>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", without)))


def test_the_first_page_lists_what_is_stored_and_what_is_not_run_yet(client: TestClient) -> None:
    text = text_of(client.get("/").text)
    assert "tiny Two small models on small images. 11 of 18 cells · 3 stale · 3 missing · 1 failed" in text
    assert "Not run yet" in text
    assert "smoke" in text


def open_study(contestant: str, ended: int) -> OpenStudy:
    return OpenStudy(suite="tiny", overrides="", contestant=contestant, task="digits", ended=ended)


@pytest.mark.parametrize("path", ["/", "/suite/tiny"])
def test_how_far_tuning_is_stands_there_before_the_first_cell_is_finished(
    held: Held, world: World, client: TestClient, path: str
) -> None:
    held.change([world.absent("vit", 0, "missing", "not run yet")])
    assert "A suite is running" not in text_of(client.get(path).text)
    for ended in (0, 2):
        held.under_way = [open_study("vit", ended), open_study("a <b>guest</b>", 1)]
        text = text_of(client.get(path).text)
        assert f"A suite is running {ended} of 3 trials of vit on digits 1 of 3 trials of a <b>guest</b> on" in text
    held.under_way = []
    held.change([world.absent("vit", 0, "running", "running")])
    assert "A suite is running 1 cell in training" in text_of(client.get(path).text)


def test_a_suite_whose_plan_is_not_known_is_listed_with_what_to_do(held: Held, client: TestClient) -> None:
    held.keys.append(("mine", ""))
    assert "mine: whitebench serve mine.toml" in text_of(client.get("/").text)
    answer = client.get("/suite/mine")
    assert answer.status_code == 404
    assert "whitebench serve mine.toml" in answer.text


def test_with_nothing_stored_the_first_page_says_what_to_run(held: Held, client: TestClient) -> None:
    held.keys.clear()
    assert "whitebench run smoke" in client.get("/").text


def test_the_board_shows_every_field_of_the_printed_one(reader: Reader, client: TestClient) -> None:
    keys = ",".join(column.key for column in columns_of(reader.board("tiny")))
    text = text_of(client.get("/suite/tiny", params={"columns": keys}).text)
    for sheet in sheets_of(reader.board("tiny")):
        for row in sheet.rows:
            for field in row.fields:
                assert re.sub(r"\s+", " ", str(field.cell)).replace(" ", "") in text.replace(" ", "")
        for sentence in (*sheet.notes, sheet.ranking):
            assert sentence in text


def test_only_the_columns_asked_for_are_in_the_page(client: TestClient) -> None:
    def keys(page: str) -> list[str]:
        return re.findall(r'<th scope="col" data-key="([^"]+)"', page)

    assert "score/cross-entropy" in keys(client.get("/suite/tiny").text)
    page = client.get("/suite/tiny", params={"columns": "seeds,cost/parameters,nonsense"}).text
    assert keys(page) == ["rank", "contestant", "seeds", "cost/parameters"]
    assert 'value="score/cross-entropy">' in page  # still offered
    assert "strip-cell" not in page


@pytest.mark.parametrize(
    ("ending", "wanted"), [("csv", "csv"), ("json", "json"), ("md", "markdown"), ("tex", "latex"), ("txt", "table")]
)
def test_a_board_as_a_file_is_what_the_command_prints(
    reader: Reader, client: TestClient, ending: str, wanted: str
) -> None:
    answer = client.get(f"/suite/tiny/board.{ending}")
    assert answer.text == render(reader.board("tiny"), wanted, width=160)  # type: ignore[arg-type]
    assert "attachment" not in answer.headers["content-disposition"]


def test_a_file_of_another_kind_is_not_there(client: TestClient) -> None:
    assert client.get("/suite/tiny/board.exe").status_code == 404


def test_every_cell_without_a_current_result_stands_with_its_reason(client: TestClient) -> None:
    text = text_of(client.get("/suite/tiny").text)
    assert "failed oom: needs 3 GiB more partial/digits/2" in text
    assert "stale the model's source has changed old/digits/0 old/digits/1 old/digits/2" in text


def test_a_contestants_page_says_what_it_is_where_from_and_what_became_of_it(client: TestClient) -> None:
    text = text_of(client.get("/suite/tiny/contestant/crate%5Bdim=64,depth=4%5D").text)
    assert "White-Box Transformers via Sparse Rate Reduction" in text
    assert "depth 4" in text
    assert "learning_rate 0.001" in text
    assert "Published, not measured here" in text
    assert text.count("finished") == 6  # its cells, and their runs


def test_a_contestant_whose_plugin_is_not_loaded_has_a_page_all_the_same(held: Held, client: TestClient) -> None:
    assert "its plugin is not loaded here" in client.get("/suite/tiny/contestant/slow").text


def test_a_cells_page_has_its_scores_curves_and_origin_and_the_command_that_repeats_it(client: TestClient) -> None:
    page = client.get("/suite/tiny/cell/vit/digits/0").text
    text = text_of(page)
    assert "cross-entropy ↓ 0.142 nats" in text
    assert "sparsity/nonzero ↓ unscored: the model offers no trace 'codes'".replace(" ↓", "") in text.replace(" ↓", "")
    assert "peak-memory 84 MiB" in text
    assert "validation" in text
    assert "run-vit-digits-0" in text
    assert "whitebench run tiny.toml -m vit -t digits --seeds 0-0 --store sqlite:///again.db" in text
    assert '"title": "loss"' in page
    assert "a &lt;b&gt;spectrum&lt;/b&gt;" in page


def test_the_picture_of_a_cell_is_drawn_when_asked_for(client: TestClient) -> None:
    answer = client.get("/suite/tiny/figure/vit/digits/0/spectrum")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert b"<svg" in answer.content
    assert client.get("/suite/tiny/figure/vit/digits/0/other").status_code == 404


def test_an_unfinished_cell_says_why(client: TestClient) -> None:
    assert "oom: needs 3 GiB more" in client.get("/suite/tiny/cell/partial/digits/2").text
    assert "not run yet" in client.get("/suite/tiny/cell/never/digits/0").text


def test_side_by_side_stand_paired_differences_and_overlaid_curves(client: TestClient) -> None:
    page = client.get("/suite/tiny/compare", params={"with": ["slow", "vit", "never"]}).text
    text = text_of(page)
    assert "vit − slow" in text
    assert "not compared: one of the two is not ranked" in text
    assert '"title": "train: loss"' in page
    assert '"vit"' in page


def test_differences_within_the_noise_are_greyed_on_the_board_and_side_by_side(held: Held, client: TestClient) -> None:
    held.noise_floor = {"accuracy": 0.004}
    board = client.get("/suite/tiny").text
    assert text_of("".join(re.findall(r'<td class="number noise".*?</td>', board))).strip() == "−0.3 ± 1.9"
    together = client.get("/suite/tiny/compare?with=vit&with=crate[dim=64,depth=4]").text
    assert "+0.3 ± 1.9" in text_of("".join(re.findall(r'<td class="number noise".*?</td>', together)))
    assert "Greyed where it is within the noise floor, 0.4 points" in together


def test_whoever_compares_nobody_is_asked_whom(client: TestClient) -> None:
    page = client.get("/suite/tiny/compare").text
    assert '<details id="who" open>' in page
    assert 'value="crate[dim=64,depth=4]"' in page


def test_a_chart_of_the_board_is_made_when_it_is_seen(client: TestClient) -> None:
    page = client.get("/suite/tiny/charts").text
    [source] = [unescape(one) for one in re.findall(r'data-source="([^"]+)"', page) if "cross-entropy" in one]
    assert client.get(source).json()["title"] == "accuracy against cross-entropy"
    assert client.get("/suite/tiny/tradeoff/digits?x=nothing").status_code == 404
    assert client.get("/suite/tiny/tradeoff/nowhere?x=parameters").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/suite/nothing",
        "/suite/tiny?overrides=budget.epochs%3D3",
        "/suite/tiny/contestant/vot",
        "/suite/tiny/cell/vit/digits/9",
        "/suite/tiny/compare?with=vot",
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")


def test_a_misspelt_contestant_is_told_the_near_ones(client: TestClient) -> None:
    assert "did you mean &#39;vit&#39;?" in client.get("/suite/tiny/contestant/vot").text


def test_names_and_reasons_from_strangers_are_read_and_never_obeyed(
    world: World, held: Held, client: TestClient
) -> None:
    evil = World(suite="tiny")
    held.records = [
        *(evil.record(HOSTILE, seed, 0.9 + seed / 100, edges=[HOSTILE]) for seed in range(3)),
        *evil.entry("vit", [0.8, 0.8, 0.9]),
        evil.absent("crate", 0, "failed", HOSTILE),
    ]
    label = "%3Cscript%3Ealert(1)%3C%2Fscript%3E"
    pages = [
        client.get("/suite/tiny").text,
        client.get("/suite/tiny/charts").text,
        client.get("/suite/tiny/compare", params={"with": [HOSTILE, "vit"]}).text,
        client.get(f"/suite/{label}").text,
        client.get("/suite/tiny", params={"columns": HOSTILE}).text,
    ]
    for page in pages:
        assert "<script>alert" not in page
        assert "\x1b" not in text_of(page)
        assert "49" not in re.sub(r"[0-9a-f]{24}|0\.\d+|\d+\.\d+", "", page)  # nothing was computed from {{7*7}}


def test_no_page_names_a_folder_of_the_machine_or_a_secret(world: World, held: Held, client: TestClient) -> None:
    path = "/home/mallory/hidden/data.npz"
    why = world.score("sparsity", None, unscored=f"the metric raised: {path} is gone")
    held.records = [
        *(world.record("vit", seed, 0.9, scores=[why]) for seed in range(3)),
        world.absent("crate[dim=64,depth=4]", 0, "failed", f"error: {path}: Permission denied"),
    ]
    for address in ("/", "/suite/tiny", "/suite/tiny/cell/vit/digits/0", "/suite/tiny/contestant/vit",
                    "/suite/tiny/compare?with=vit", "/suite/tiny/charts", "/suite/tiny/board.json",
                    "/api/v1/boards/tiny", "/api/v1/cells/tiny/vit/digits/0"):  # fmt: skip
        answer = client.get(address)
        assert answer.status_code == 200
        assert "mallory" not in answer.text
        assert "hidden/" not in answer.text


def test_a_store_that_cannot_be_read_is_said_without_its_place(held: Held, client: TestClient) -> None:
    held.broken = StoreError("the store sqlite:////home/somebody/whitebench.db is locked by another process")
    for path in ("/suite/tiny", "/api/v1/boards/tiny"):
        answer = client.get(path)
        assert answer.status_code == 503
        assert "somebody" not in answer.text
    assert "data-retry" in client.get("/suite/tiny").text


def test_a_bug_is_said_without_its_traceback(held: Held, reader: Reader) -> None:
    held.broken = RuntimeError("at /home/somebody/code.py")
    client = TestClient(make_app(reader), base_url="http://localhost", raise_server_exceptions=False)
    answer = client.get("/suite/tiny")
    assert answer.status_code == 500
    assert "somebody" not in answer.text
    assert "content-security-policy" in answer.headers


def test_a_page_that_a_browser_has_is_not_sent_again_until_something_changed(
    world: World, held: Held, client: TestClient
) -> None:
    first = client.get("/suite/tiny")
    known = {"If-None-Match": first.headers["etag"]}
    assert f'data-tag="{first.headers["etag"][1:-1]}"' in first.text
    assert client.get("/suite/tiny", headers=known).status_code == 304
    held.change([*world.full(), *world.entry("newcomer", [0.99, 0.98, 0.97])])
    again = client.get("/suite/tiny", headers=known)
    assert again.status_code == 200
    assert "newcomer" in again.text


def test_plotly_and_our_own_files_come_from_this_server(client: TestClient) -> None:
    page = client.get("/suite/tiny/cell/vit/digits/0").text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert all(address.startswith(("/", "#")) for address in addresses)
    for address in addresses:
        if address.startswith("/static/"):
            assert client.get(address).status_code == 200


def test_a_run_is_linked_where_mlflows_pages_are_beside_ours(reader: Reader, client: TestClient) -> None:
    async def pages(scope: object, receive: object, send: object) -> None:
        raise AssertionError("nobody asks")

    beside = TestClient(make_app(reader, mlflow=pages), base_url="http://localhost")
    assert 'href="/mlflow/#/runs/run-vit-digits-0"' in beside.get("/suite/tiny/cell/vit/digits/0").text
    assert "/mlflow/" not in client.get("/suite/tiny/cell/vit/digits/0").text


def test_the_history_of_a_contestant_keeps_runs_that_were_superseded(
    world: World, held: Held, client: TestClient
) -> None:
    held.records = [dataclasses.replace(one, run_id=f"run-{place}") for place, one in enumerate(held.records)]
    text = text_of(client.get("/suite/tiny/contestant/vit").text)
    assert "Every run of it in this store" in text
    assert "1970-01-01 00:00 UTC digits 2 finished" in text
