"""What a page must not say."""

from __future__ import annotations

import dataclasses

import pytest

from tests.leaderboards.conftest import World
from whitebench.ledger import Ledger
from whitebench.suite import Contestant, Suite
from whitebench_leaderboards.server.discretion import discreet, discreet_ledger


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no such file: '/home/me/data/digits.npz'", "no such file: '…/digits.npz'"),
        ("/usr/lib/python3/site.py:12: error", "…/site.py:12: error"),
        ("~/data/set.npz is gone", "…/set.npz is gone"),
        ("sqlite:////var/lib/whitebench.db is locked", "…/whitebench.db is locked"),
        ("file:///srv/runs/1/result.json", "…/result.json"),
        ("postgresql://me:secret@host/db does not answer", "postgresql://***@host/db does not answer"),
        ("read https://arxiv.org/abs/2306.01129", "read https://arxiv.org/abs/2306.01129"),
        ("samples/s and/or 1/2, coding-rate/share", "samples/s and/or 1/2, coding-rate/share"),
        ("smoke/vit/digits/0: oom", "smoke/vit/digits/0: oom"),
    ],
)
def test_folders_of_the_machine_and_passwords_are_left_out_and_nothing_else(said: str, shown: str) -> None:
    assert discreet(said) == shown


def test_a_ledger_that_is_shown_names_no_folder(world: World) -> None:
    path = "/home/me/secret/file.py"
    unscored = world.score("sparsity", None, unscored=f"the metric raised at {path}")
    record = world.record("vit", 0, 0.9, state="stale", reason=f"{path} changed", scores=[unscored])
    assert record.result is not None
    provenance = dataclasses.replace(record.result.provenance, distributions={path: "local file"})
    record = dataclasses.replace(record, result=dataclasses.replace(record.result, provenance=provenance))
    suite = Suite(
        name="tiny", version=1, summary="", primary="accuracy", tasks=("digits",), seeds=(0,), metrics=("accuracy",),
        contestants=(Contestant(model="vit", weights=path),),
    )  # fmt: skip
    ledger = Ledger(
        suite=suite, overrides=(), direction="higher", unit="", records=(record,), store_uri=f"sqlite:///{path}",
        source=path,
    )  # fmt: skip
    assert "secret" not in repr(discreet_ledger(ledger))
    assert "file.py" in repr(discreet_ledger(ledger))
