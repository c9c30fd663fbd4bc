"""The server's page: every address, every choice and every operation of the API is explained."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT
from whitebench_leaderboards.server.boards import FILES

PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
SERVER = Path(ROOT / "leaderboards" / "whitebench_leaderboards" / "server")


def test_every_page_is_explained() -> None:
    routes = re.findall(r'@router\.get\("([^"]+)"\)', "".join(file.read_text() for file in SERVER.glob("*.py")))
    pages = [
        route for route in routes if route.startswith("/suite/") and "figure" not in route and "tradeoff" not in route
    ]
    assert len(pages) == 6
    for route in pages:
        begin = route.replace("{name}", "NAME").partition("{")[0].rstrip(".")
        assert f"`{begin}" in PAGE, route


def test_every_choice_in_the_address_is_explained() -> None:
    script = (SERVER / "static" / "table.js").read_text()
    [names] = re.findall(r"const CHOICES = \[(.*?)\]", script)
    for name in re.findall(r'"(\w+)"', names):
        assert f"`{name}=" in PAGE


def test_every_kind_of_file_and_every_operation_is_explained() -> None:
    for ending in FILES:
        assert f"`{ending}`" in PAGE or f"board.{ending}`" in PAGE
    for operation in ("suites", "boards", "cells"):
        assert f"/api/v1/{operation}" in PAGE
