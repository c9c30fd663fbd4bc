"""What may be spent, and what is no amount."""

from __future__ import annotations

from typing import Any, cast

import pytest

from whitebench.budget import Budget, Limits, Tuning


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": -1}, "epochs: must be at least 0"),
        ({"batch_size": 0}, "batch_size: must be at least 1"),
        ({"trials": -1}, "trials: must be at least 0"),
        ({"threads": 0}, "threads: must be at least 1"),
        ({"epochs": 2**31}, r"epochs: must be at least 0 and below 2\^31"),
    ],
)
def test_a_budget_that_buys_nothing_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Budget(**{"epochs": 1, "batch_size": 1, "trials": 0, **change})


@pytest.mark.parametrize("name", ["fit_minutes", "stall_minutes", "memory_gib", "log_mib"])
def test_a_limit_that_no_fit_could_keep_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: must be above zero"):
        Limits(**cast("Any", {name: 0.0}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, r"seed: must be in \[0, 2\^31\)"),
        ({"seed": 2**31}, r"seed: must be in \[0, 2\^31\)"),
        ({"pruning_from_trial": 0}, "pruning_from_trial: must be at least 1"),
        ({"pruning_from_epoch": 0}, "pruning_from_epoch: must be at least 1"),
    ],
)
def test_tuning_that_cannot_be_done_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tuning(**change)
