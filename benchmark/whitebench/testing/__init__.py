"""The rules for everything that is registered, as checks that a plugin's author can run.

Each check takes a Spec and raises an AssertionError that says which rule is broken, by what, and what to do.
They need no test framework:

    from whitebench.testing import check_model

    def test_my_model_keeps_the_rules():
        check_model(MY_MODEL, shape=(1, 8, 8), classes=10)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from whitebench.catalog import load_catalog
from whitebench.plugin import Kind
from whitebench.testing.metric import check_metric
from whitebench.testing.model import check_model
from whitebench.testing.objective import check_objective
from whitebench.testing.readout import check_readout
from whitebench.testing.task import check_task

__all__ = ["check_metric", "check_model", "check_objective", "check_readout", "check_task", "items"]


def items(kind: Kind, files: Sequence[Path] = ()) -> list[Any]:
    """Return the Spec of every registered item of a kind, whoever registered it, in the order of their names."""
    return [entry.spec for entry in load_catalog(files).entries[kind].values()]
