"""Where a page is: every address that the server answers to, with names from strangers made safe in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from whitebench.identity import CellName

PREFIX = "/api/v1"
"""Of what is for programs."""


def suite(name: str, overrides: str = "") -> str:
    """Return the address of a suite's board."""
    return f"/suite/{_part(name)}{_query(overrides)}"


def contestant(name: str, label: str, overrides: str = "") -> str:
    """Return the address of a contestant's page."""
    return f"/suite/{_part(name)}/contestant/{_part(label)}{_query(overrides)}"


def cell(one: CellName, overrides: str = "") -> str:
    """Return the address of a cell's page."""
    return f"/suite/{_part(one.suite)}/cell/{_cell(one)}{_query(overrides)}"


def figure(one: CellName, picture: str, overrides: str = "") -> str:
    """Return the address of a picture that a cell's metric hands over."""
    return f"/suite/{_part(one.suite)}/figure/{_cell(one)}/{_part(picture)}{_query(overrides)}"


def compare(name: str, overrides: str = "", labels: Sequence[str] = ()) -> str:
    """Return the address that compares contestants: `labels`, or those to be given as `with`."""
    return f"/suite/{_part(name)}/compare{_query(overrides, labels)}"


def charts(name: str, overrides: str = "") -> str:
    """Return the address of a suite's charts."""
    return f"/suite/{_part(name)}/charts{_query(overrides)}"


def tradeoff(name: str, task: str, x: str, generation: int, overrides: str = "") -> str:
    """Return the address of one chart of quality against `x`; another one once the board is."""
    asked = urlencode({"x": x, "of": generation} | ({"overrides": overrides} if overrides else {}))
    return f"/suite/{_part(name)}/tradeoff/{_part(task)}?{asked}"


def file(name: str, ending: str, overrides: str = "") -> str:
    """Return the address of a board as a file: csv, json, md, tex or txt."""
    return f"/suite/{_part(name)}/board.{ending}{_query(overrides)}"


def board_data(name: str, overrides: str = "") -> str:
    """Return the address of a board for programs."""
    return f"{PREFIX}/boards/{_part(name)}{_query(overrides)}"


def cell_data(one: CellName, overrides: str = "") -> str:
    """Return the address of a cell for programs."""
    return f"{PREFIX}/cells/{_part(one.suite)}/{_cell(one)}{_query(overrides)}"


def mlflow_run(run_id: str) -> str:
    """Return the address of a run in MLflow's own pages beside ours."""
    return f"/mlflow/#/runs/{_part(run_id)}"


def name_in(part: str) -> str:
    """Return the name that stands in a part of an address, once that is decoded."""
    return re.sub("~(2e|2f|7e)", lambda found: chr(int(found[1], 16)), part)


def _cell(one: CellName) -> str:
    return f"{_part(one.contestant)}/{_part(one.task)}/{one.seed}"


def _part(text: str) -> str:
    """Return a name as a part of an address; a stroke, and what a browser takes for the folder above, is hidden."""
    divider = "[~/.]" if text in (".", "..") else "[~/]"
    return quote(re.sub(divider, lambda found: f"~{ord(found[0]):02x}", text), safe="~")


def _query(overrides: str, labels: Sequence[str] = ()) -> str:
    asked = [*(("with", label) for label in labels), *([("overrides", overrides)] if overrides else [])]
    return f"?{urlencode(asked)}" if asked else ""
