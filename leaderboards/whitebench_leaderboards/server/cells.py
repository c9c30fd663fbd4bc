"""The pages about contestants: one of them, one of its cells with its figures, and several side by side."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from typing import Annotated, Any

import matplotlib as mpl
from fastapi import APIRouter, Query, Request, Response

from whitebench.identity import CellName
from whitebench.origin import origin_of
from whitebench.result import CellRecord
from whitebench_leaderboards.figures import STYLE, draw_picture
from whitebench_leaderboards.notation import plain
from whitebench_leaderboards.server.chart import (
    curve_charts,
    overlaid_curves,
    overlaid_profiles,
    plain_values,
    profile_charts,
)
from whitebench_leaderboards.server.facts import model_of, repeat
from whitebench_leaderboards.server.page import MOST_COMPARED, Name, Overrides, Press, Site
from whitebench_leaderboards.server.pairing import pair_up, rivals_of
from whitebench_leaderboards.server.reader import NotHereError, Reader

_DRAWING = threading.Lock()


def make_cells(reader: Reader, press: Press, site: Site) -> APIRouter:
    """Return the pages about the contestants that `reader` reads."""
    router = APIRouter(include_in_schema=False)

    @router.get("/suite/{name}/contestant/{label}")
    def contestant(request: Request, name: Name, label: Name, overrides: Overrides = "") -> Response:
        reader.refresh()
        records = reader.records(name, overrides, label)

        def told() -> dict[str, Any]:
            ledger, made = reader.ledger(name, overrides), reader.board(name, overrides)
            past = reader.past(name, overrides, label)
            planned = ledger.suite.contestant(label) or next((one.contestant for one in past), None)
            spec, options = model_of(planned, reader.catalog) if planned else (None, {})
            has_recipe = planned is not None and planned.recipe in ledger.suite.recipes
            return {
                "ledger": ledger,
                "board": made,
                "label": label,
                "planned": planned,
                "spec": spec,
                "options": options,
                "recipe": ledger.suite.recipe_of(planned) if planned and has_recipe else None,
                "pairings": pair_up(made, [label], reader.sheets(name, overrides)),
                "rivals": rivals_of(made, label),
                "records": records,
                "past": past,
                "overrides": overrides,
            }

        return press.answer(request, "contestant.html", told, state=reader.generation(name, overrides))

    @router.get("/suite/{name}/cell/{label}/{task}/{seed}")
    def cell(
        request: Request, name: Name, label: Name, task: Name, seed: int, *, overrides: Overrides = ""
    ) -> Response:
        reader.refresh()
        record = reader.record(name, overrides, label, task, seed)

        def told() -> dict[str, Any]:
            ledger, result = reader.ledger(name, overrides), record.result
            return {
                "ledger": ledger,
                "record": record,
                "profiles": plain_values(profile_charts(result)) if result else [],
                "curves": plain_values(curve_charts(reader.curves(record, ledger.suite.primary))),
                "pictures": {key: one.title for key, one in reader.pictures(record).items()},
                "facts": origin_of(result) if result else [],
                "command": repeat(record.cell, suite=ledger.source, overrides=ledger.overrides, plugins=site.plugins),
                "overrides": overrides,
            }

        return press.answer(request, "cell.html", told, state=_state(reader, name, overrides, [record]))

    @router.get("/suite/{name}/figure/{label}/{task}/{seed}/{picture}")
    def figure(name: Name, label: Name, task: Name, seed: int, *, picture: Name, overrides: Overrides = "") -> Response:
        record = reader.record(name, overrides, label, task, seed)
        pictures = reader.pictures(record)
        if picture not in pictures:
            raise NotHereError(f"cell {record.cell} has no picture {plain(picture)[:80]}")
        file = io.BytesIO()
        with _DRAWING, mpl.rc_context(fname=STYLE):  # a setting of the whole process
            draw_picture(pictures[picture], _where(record.cell)).savefig(file, format="svg", metadata={"Date": None})
        return Response(file.getvalue(), media_type="image/svg+xml", headers={"Cache-Control": "private, max-age=60"})

    @router.get("/suite/{name}/compare")
    def side_by_side(
        request: Request,
        name: Name,
        chosen: Annotated[list[str], Query(alias="with")] = [],  # noqa: B006  # FastAPI copies it
        overrides: Overrides = "",
    ) -> Response:
        reader.refresh()
        labels = list(dict.fromkeys(chosen))[:MOST_COMPARED]
        records = {label: reader.records(name, overrides, label) for label in labels}

        def told() -> dict[str, Any]:
            ledger, made = reader.ledger(name, overrides), reader.board(name, overrides)
            charts = {}
            for task in made.heading.tasks:
                on_task = {label: [one for one in records[label] if one.cell.task == task] for label in labels}
                results = {label: [one.result for one in mine if one.result] for label, mine in on_task.items()}
                curves = {
                    label: [reader.curves(one, ledger.suite.primary) for one in mine] for label, mine in on_task.items()
                }
                charts[plain(task)] = plain_values([*overlaid_profiles(results), *overlaid_curves(curves)])
            return {
                "ledger": ledger,
                "board": made,
                "labels": labels,
                "everyone": list(dict.fromkeys(entry.contestant for entry in made.entries)),
                "pairings": pair_up(made, labels, reader.sheets(name, overrides)) if labels else [],
                "charts": charts,
                "overrides": overrides,
            }

        shown = [record for mine in records.values() for record in mine]
        return press.answer(request, "compare.html", told, state=_state(reader, name, overrides, shown))

    return router


def _state(reader: Reader, name: str, overrides: str, records: Sequence[CellRecord]) -> int | None:
    """Return what changes when a page about these cells does; None where one is running, whose curves grow."""
    return None if any(one.state == "running" for one in records) else reader.generation(name, overrides)


def _where(one: CellName) -> str:
    return f"{plain(one.contestant)} on {plain(one.task)}, seed {one.seed}"
