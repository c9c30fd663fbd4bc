"""The board for programs: JSON with everything, CSV with a row per entry; shares stay shares, no digit is cut."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from whitebench_leaderboards.board import Board
from whitebench_leaderboards.entry import Entry, Summary
from whitebench_leaderboards.overall import overall
from whitebench_leaderboards.statistics import seeds_needed

FORMAT = 1
"""Raised when a key of the JSON or a column of the CSV changes its meaning or goes."""


def to_json(board: Board) -> str:
    """Return everything the board knows as JSON; a number that is not there is null beside its reason."""
    document = {
        "format": FORMAT,
        "suite": asdict(board.heading),
        "confidence": board.confidence,
        "ended": board.ended or None,
        "entries": [_entry(entry) for entry in board.entries],
        "comparisons": [
            {
                "task": one.task,
                "first": one.first,
                "second": one.second,
                **asdict(one.difference),
                "is_shown": one.difference.is_shown,
                "is_noise": one.difference.value is not None and board.heading.is_noise(one.difference.value),
                "seeds_needed": seeds_needed(one.difference, confidence=board.confidence),
            }
            for one in board.comparisons
        ],
        "overall": asdict(whole) if (whole := overall(board)) else None,
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


def to_csv(board: Board) -> str:
    """Return a row per entry; a score NAME has the columns `NAME`, `NAME.half_width`, `NAME.n`, `NAME.reason`.

    What it comes to where its claim cannot hold has the columns `NAME.null.WHICH`.
    """
    rows = [_row(entry, board) for entry in board.entries]
    header = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "contestant": entry.contestant,
        "task": entry.task,
        "rank": list(entry.rank) if entry.rank else None,
        "unranked": entry.unranked or None,
        "is_leader": entry.is_leader,
        "is_tied": entry.is_tied,
        "p_best": entry.p_best,
        "is_guest": entry.is_guest,
        "is_trained_elsewhere": entry.is_trained_elsewhere,
        "is_stale": entry.is_stale,
        "flags": list(entry.flags),
        "seeds_planned": entry.seeds_planned,
        "primary": _summary(entry.primary),
        "scores": [_summary(summary) for summary in entry.scores],
        "costs": [_summary(summary) for summary in entry.costs],
        "validation": _summary(entry.validation),
        "spent": asdict(entry.spent) if entry.spent else None,
        "edges": list(entry.edges),
        "verified": entry.verified,
        "test_samples": entry.test_samples,
        "test_openings": entry.test_openings,
        "cells": [asdict(cell) for cell in entry.cells],
    }


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "name": summary.name,
        "direction": summary.direction,
        "unit": summary.unit,
        "mean": summary.estimate.mean,
        "half_width": summary.estimate.half_width,
        "n": summary.estimate.n,
        "reason": summary.estimate.reason or None,
        "values": {str(seed): value for seed, value in summary.values.items()},
        "nulls": {name: asdict(null) for name, null in summary.nulls.items()},
        "unscored": {str(seed): reason for seed, reason in summary.unscored.items()},
    }


def _row(entry: Entry, board: Board) -> dict[str, Any]:
    low, high = entry.rank or ("", "")
    spent = entry.spent
    row: dict[str, Any] = {
        "suite": board.heading.suite,
        "version": board.heading.version,
        "overrides": ";".join(board.heading.overrides),
        "task": entry.task,
        "contestant": entry.contestant,
        "rank_low": low,
        "rank_high": high,
        "unranked": entry.unranked,
        "is_tied": entry.is_tied,
        "p_best": "" if entry.p_best is None else entry.p_best,
        "is_guest": entry.is_guest,
        "is_trained_elsewhere": entry.is_trained_elsewhere,
        "is_stale": entry.is_stale,
        "seeds": entry.primary.estimate.n,
        "seeds_planned": entry.seeds_planned,
        "primary": entry.primary.name,
        "trials": spent.trials if spent else "",
        "trials_allowed": spent.trials_allowed if spent else "",
        "epoch_first": spent.epochs[0] if spent else "",
        "epoch_last": spent.epochs[1] if spent else "",
        "epochs_allowed": spent.epochs_allowed if spent else "",
        "test_samples": entry.test_samples,
        "test_openings": entry.test_openings,
        "verified": entry.verified,
        "flags": ";".join(entry.flags),
        "runs": ";".join(f"{seed}={run_id}" for seed, run_id in entry.run_ids.items()),
        "absent": ";".join(
            f"{cell.seed}={cell.state}: {cell.reason}" for cell in entry.cells if cell.state != "finished"
        ),
    }
    values = {f"{entry.primary.name}.seed_{seed}": entry.primary.values.get(seed, "") for seed in board.heading.seeds}
    return row | values | dict(_columns([entry.primary, *entry.scores, *entry.costs, entry.validation]))


def _columns(summaries: Iterable[Summary]) -> Iterable[tuple[str, Any]]:
    for summary in summaries:
        yield summary.name, summary.estimate.mean
        yield f"{summary.name}.half_width", summary.estimate.half_width
        yield f"{summary.name}.n", summary.estimate.n
        for name, null in summary.nulls.items():
            yield f"{summary.name}.null.{name}", null.mean
        yield f"{summary.name}.reason", "; ".join(dict.fromkeys(summary.unscored.values())) or summary.estimate.reason
