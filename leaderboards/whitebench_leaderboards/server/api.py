"""The same boards and cells for programs, under /api/v1."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter

from whitebench.result import to_json as result_to_json
from whitebench_leaderboards.export import to_json
from whitebench_leaderboards.server.link import PREFIX
from whitebench_leaderboards.server.page import Name, Overrides
from whitebench_leaderboards.server.reader import Reader
from whitebench_leaderboards.server.replies import BoardReply, CellReply, ErrorReply, SuiteReply

_NOT_HERE: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorReply, "description": "There is none."},
    503: {"model": ErrorReply, "description": "The store cannot be read at the moment."},
}


def make_api(reader: Reader) -> APIRouter:
    """Return the API over what `reader` reads."""
    router = APIRouter(prefix=PREFIX, tags=["boards"])

    @router.get("/suites", responses={503: _NOT_HERE[503]})
    def suites() -> list[SuiteReply]:
        """Every board that can be asked for, those that the store has cells of first."""
        reader.refresh()
        return [SuiteReply.model_validate(shelf) for shelf in reader.shelves()]

    @router.get("/boards/{suite}", responses=_NOT_HERE)
    def board(suite: Name, overrides: Overrides = "") -> BoardReply:
        """A suite's ranked rows, unranked ones included, with every pair compared."""
        reader.refresh()
        return BoardReply.model_validate(json.loads(to_json(reader.board(suite, overrides))))

    @router.get("/cells/{suite}/{contestant}/{task}/{seed}", responses=_NOT_HERE)
    def cell(suite: Name, contestant: Name, task: Name, seed: int, overrides: Overrides = "") -> CellReply:
        """One cell: its scores with layer profiles and nulls, its choice, its curves, where it comes from."""
        reader.refresh()
        record = reader.record(suite, overrides, contestant, task, seed)
        primary = reader.board(suite, overrides).heading.primary
        return CellReply(
            cell=str(record.cell),
            state=record.state,
            reason=record.reason,
            run_id=record.run_id,
            is_guest=record.is_guest,
            result=json.loads(result_to_json(record.result)) if record.result else None,
            curves={name: list(points) for name, points in reader.curves(record, primary).items()},
        )

    return router
