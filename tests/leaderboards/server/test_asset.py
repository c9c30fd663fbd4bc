"""What pages carry or have beside them."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from whitebench_leaderboards.server.asset import STATIC, STILL, content, inside


@pytest.fixture
def script() -> str:
    return content(STILL).decode()


def test_scripts_that_are_joined_import_nothing_and_do_not_ask_a_server_whether_they_are_the_latest(
    script: str,
) -> None:
    assert not re.search(r"^\s*(import|export)\b", script, re.MULTILINE)
    assert "startTable();" in script
    assert "startLive" not in script


def test_scripts_that_are_joined_share_no_name(script: str) -> None:
    named = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", script, re.MULTILINE)
    assert len(named) > 20
    assert len(named) == len(set(named))


def test_nothing_that_is_inside_a_page_ends_its_own_element() -> None:
    ends = re.compile("</(script|style)|<!--|<script", re.IGNORECASE)
    assert not ends.search(inside().script)
    assert not ends.search(inside().style)


def test_a_page_runs_by_its_policy_what_is_inside_of_it_and_nothing_else() -> None:
    for text in (inside().script, inside().style):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in inside().policy
    assert inside().policy.startswith("default-src 'none'; ")
    assert "unsafe" not in inside().policy


def test_other_assets_are_the_files_that_a_server_sends() -> None:
    assert content("whitebench.css") == (STATIC / "whitebench.css").read_bytes()
    assert b"plotly.js" in content("plotly.min.js")[:200]
