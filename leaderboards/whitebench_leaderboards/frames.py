"""The board for a notebook: pandas frames, shares as shares, no digit cut."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from whitebench.frames import Frames
from whitebench.result import CellRecord
from whitebench_leaderboards.board import Board
from whitebench_leaderboards.commands import board_of
from whitebench_leaderboards.entry import Entry
from whitebench_leaderboards.index import read_ledger

ENTRIES = ("task", "contestant", "rank_low", "rank_high", "mean", "half_width", "n", "reason", "unranked")
SCORES = ("task", "contestant", "seed", "state", "score", "value", "unit", "direction", "unscored")
LAYERS = ("task", "contestant", "seed", "state", "score", "layer", "value", "spread")
COMPARISONS = ("task", "first", "second", "value", "smallest", "is_shown")
"""The columns that are always there, in front."""


def load(suite: str, *, store: str | None, plugins: Sequence[Path], overrides: Sequence[str]) -> Frames:
    """Return the frames of a suite; see `whitebench.frames.load_frames`."""
    stated = os.environ.get("WHITEBENCH_PLUGINS", "").split(os.pathsep)
    ledger = read_ledger(
        suite,
        store=store if store is not None else os.environ.get("MLFLOW_TRACKING_URI"),
        plugins=plugins or [Path(one) for one in stated if one.strip()],
        overrides=overrides,
    )
    return frames_of(board_of(ledger), ledger.records)


def frames_of(board: Board, records: Sequence[CellRecord]) -> Frames:
    """Return a board, and the cells it was made of, as frames."""
    comparisons = [
        {"task": one.task, "first": one.first, "second": one.second, "is_shown": one.difference.is_shown,
         **asdict(one.difference)}
        for one in board.comparisons
    ]  # fmt: skip
    whole = {"rank_low": "Int64", "rank_high": "Int64"}
    return Frames(
        entries=_frame(ENTRIES, [_entry(entry) for entry in board.entries]).astype(whole),
        scores=_frame(SCORES, [row for record in records for row in _scores(record)]),
        layers=_frame(LAYERS, [row for record in records for row in _layers(record)]),
        comparisons=_frame(COMPARISONS, comparisons),
    )


def _frame(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    more = dict.fromkeys(key for row in rows for key in row if key not in columns)
    return pd.DataFrame(rows, columns=[*columns, *more])


def _entry(entry: Entry) -> dict[str, Any]:
    low, high = entry.rank or (None, None)
    primary = entry.primary.estimate
    return {
        "task": entry.task,
        "contestant": entry.contestant,
        "rank_low": low,
        "rank_high": high,
        "mean": primary.mean,
        "half_width": primary.half_width,
        "n": primary.n,
        "reason": primary.reason,
        "unranked": entry.unranked,
        "is_leader": entry.is_leader,
        "is_guest": entry.is_guest,
        "is_stale": entry.is_stale,
        "seeds_planned": entry.seeds_planned,
        "test_samples": entry.test_samples,
        "test_openings": entry.test_openings,
        "flags": "; ".join(entry.flags),
    }


def _cell(record: CellRecord) -> dict[str, Any]:
    cell = record.cell
    return {"task": cell.task, "contestant": cell.contestant, "seed": cell.seed, "state": record.state}


def _scores(record: CellRecord) -> Iterator[dict[str, Any]]:
    for one in (*record.result.scores, *record.result.costs) if record.result else ():
        read = {"score": one.name, "value": one.value, "unit": one.unit, "direction": one.direction}
        yield {**_cell(record), **read, "unscored": one.unscored or ""}


def _layers(record: CellRecord) -> Iterator[dict[str, Any]]:
    for one in record.result.scores if record.result else ():
        for place, value in enumerate(one.profile):
            nulls = {f"null/{name}": null[place] for name, null in one.null_profiles.items() if place < len(null)}
            spread = one.spread[place] if place < len(one.spread) else None
            yield {**_cell(record), "score": one.name, "layer": place + 1, "value": value, "spread": spread, **nulls}
