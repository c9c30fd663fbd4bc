"""What tests of models share."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def forget_compiled_code() -> None:
    """Let no test's compiled code reach another: torch gives up on a function that was compiled in many ways."""
    if dynamo := sys.modules.get("torch._dynamo"):
        dynamo.reset()
