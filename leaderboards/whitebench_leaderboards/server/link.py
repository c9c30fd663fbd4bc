"""Where a page is: every address that the server answers to, with names from strangers made safe in it."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from whitebench.identity import CellName


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


def compare(name: str, overrides: str = "") -> str:
    """Return the address that compares contestants, to be given as `with`."""
    return f"/suite/{_part(name)}/compare{_query(overrides)}"


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


def mlflow_run(run_id: str) -> str:
    """Return the address of a run in MLflow's own pages beside ours."""
    return f"/mlflow/#/runs/{_part(run_id)}"


def _cell(one: CellName) -> str:
    return f"{_part(one.contestant)}/{_part(one.task)}/{one.seed}"


def _part(text: str) -> str:
    return quote(text, safe="")


def _query(overrides: str) -> str:
    return f"?{urlencode({'overrides': overrides})}" if overrides else ""
