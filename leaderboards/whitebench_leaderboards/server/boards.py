"""The pages about suites: which there are, the board of each, as files too, and its charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import JSONResponse

from whitebench.ledger import Ledger
from whitebench_leaderboards.board import Board
from whitebench_leaderboards.notation import plain
from whitebench_leaderboards.overview import overview
from whitebench_leaderboards.render import Format, render
from whitebench_leaderboards.server.chart import plain_values, tradeoff_chart, tuning_chart
from whitebench_leaderboards.server.grid import Grid, grid_of, matrix_of, reasons_of, whole_grid
from whitebench_leaderboards.server.page import Name, Overrides, Press, Site
from whitebench_leaderboards.server.reader import NotHereError, Progress, Reader
from whitebench_leaderboards.server.whole import whole_charts
from whitebench_leaderboards.sheet import PUBLISHED
from whitebench_leaderboards.tradeoff import measures
from whitebench_leaderboards.tuning import curves_of, does_ranking_depend_on_budget

FILES: dict[str, tuple[Format, str]] = {
    "csv": ("csv", "text/csv"),
    "json": ("json", "application/json"),
    "md": ("markdown", "text/markdown"),
    "tex": ("latex", "text/plain"),
    "txt": ("table", "text/plain"),
}
"""What a board's file is called, how it is rendered, and its type."""

TABLE_WIDTH = 160
"""Columns of a board as plain text."""


def make_boards(reader: Reader, press: Press, site: Site) -> APIRouter:
    """Return the pages about the suites that `reader` reads."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def suites(request: Request) -> Response:
        reader.refresh()
        shelves = reader.shelves()
        shown = [(one.suite, one.overrides) for one in shelves if one.is_known and one.is_stored]

        def told() -> dict[str, Any]:
            boards = {key: (reader.board(*key), matrix_of(reader.ledger(*key))) for key in shown}
            return {"shelves": shelves, "boards": boards}

        state = (shelves, tuple(reader.generation(*key) for key in shown))
        return press.answer(request, "suites.html", told, state=state)

    @router.get("/suite/{name}")
    def board(request: Request, name: Name, overrides: Overrides = "", columns: str | None = None) -> Response:
        reader.refresh()
        tuning = reader.progress(name, overrides)

        def told() -> dict[str, Any]:
            ledger, made = reader.ledger(name, overrides), reader.board(name, overrides)
            if site.edition == "served":
                grid = grid_of(made, None if columns is None else columns.split(","))
                return told_of(ledger, made, overrides, grid, tuning)
            return told_of(ledger, made, overrides, whole_grid(made))

        return press.answer(request, "board.html", told, state=(reader.generation(name, overrides), tuning))

    @router.get("/suite/{name}/board.{ending}")
    def board_file(name: Name, ending: str, overrides: Overrides = "") -> Response:
        reader.refresh()
        made = reader.board(name, overrides)
        if ending not in FILES:
            raise NotHereError(f"a board has no file of the kind {plain(ending)[:20]} (kinds: {', '.join(FILES)})")
        wanted, kind = FILES[ending]
        text = render(made, wanted, width=TABLE_WIDTH)
        return Response(
            text,
            media_type=f"{kind}; charset=utf-8",
            headers={"Content-Disposition": f'inline; filename="{name}.{ending}"', "Cache-Control": "no-cache"},
        )

    @router.get("/suite/{name}/charts")
    def charts(request: Request, name: Name, overrides: Overrides = "") -> Response:
        reader.refresh()
        generation = reader.generation(name, overrides)

        def told() -> dict[str, Any]:
            made = reader.board(name, overrides)
            curves = curves_of(made, reader.studies(name, overrides))
            shown = {task: measures(made, task) for task in made.compared}
            tradeoffs = {}
            if site.edition != "served":  # nobody makes them when they are seen
                found = {task: [tradeoff_chart(made, task, x) for x in of_task] for task, of_task in shown.items()}
                tradeoffs = {task: plain_values([one for one in mine if one]) for task, mine in found.items()}
            return {
                "board": made,
                "tuned": {task: plain_values([tuning_chart(found, made)]) for task, found in curves.items() if found},
                "measures": shown,
                "tradeoffs": tradeoffs,
                "whole": overview(made),
                "whole_charts": plain_values(whole_charts(made)),
                "sentences": does_ranking_depend_on_budget(curves, is_lower_better=made.heading.direction == "lower"),
                "overrides": overrides,
                "generation": generation,
            }

        return press.answer(request, "charts.html", told, state=generation)

    @router.get("/suite/{name}/tradeoff/{task}")
    def one_tradeoff(name: Name, task: Name, x: str, overrides: Overrides = "") -> Response:
        reader.refresh()
        made = reader.board(name, overrides)
        chart = tradeoff_chart(made, task, x) if task in made.compared else None
        if chart is None:
            raise NotHereError(f"on {plain(task)[:80]} no two ranked entries have {plain(x)[:80]}")
        return JSONResponse(plain_values([chart])[0], headers={"Cache-Control": "private, max-age=3600"})

    return router


def told_of(
    ledger: Ledger, board: Board, overrides: str, grid: Grid, tuning: Sequence[Progress] = ()
) -> dict[str, Any]:
    """Return what the page of a board is told; `tuning` is what is under way."""
    return {
        "ledger": ledger,
        "board": board,
        "grid": grid,
        "matrix": matrix_of(ledger),
        "reasons": reasons_of(ledger),
        "whole": overview(board),
        "published": PUBLISHED,
        "overrides": overrides,
        "files": FILES,
        "tuning": tuning,
    }
