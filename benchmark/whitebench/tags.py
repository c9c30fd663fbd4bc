"""What the tags of a run in the store say, each name once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from whitebench.identity import CellName, Parts
from whitebench.specs import HEAD
from whitebench.suite import Contestant
from whitebench.tables import TrackedRun
from whitebench.verification import Verification, standing_of


class Tag:
    """The names of the tags that a run of ours carries."""

    KIND = "whitebench.kind"
    """`cell`, `study`, `trial` or `calibration`."""
    STATE = "whitebench.state"
    """`running`, `finished`, `failed`, `interrupted` or `superseded`; of a trial also `complete` or `pruned`."""
    RESULT = "whitebench.result_sha256"
    """Written last: the run is finished."""
    IDENTITY = "whitebench.identity"
    SUITE = "whitebench.suite"
    OVERRIDES = "whitebench.overrides"
    CONTESTANT = "whitebench.contestant"
    CONTESTANT_SPEC = "whitebench.contestant_spec"
    KEY = "whitebench.contestant_key"
    """Model with its options, objective, read-out and recipe, whatever the label."""
    TASK = "whitebench.task"
    SEED = "whitebench.seed"
    IS_GUEST = "whitebench.is_guest"
    CHOICE = "whitebench.choice_sha256"
    OPENINGS = "whitebench.test_openings"
    WEIGHTS = "whitebench.weights_sha256"
    """Of the weights that were on disk before the test split was opened."""
    CLAIM = "whitebench.claim"
    """The claim under which the run is open; ending in `/`, any claim that begins so."""
    NUMBER = "whitebench.trial"
    FAILURE = "whitebench.failure"
    MESSAGE = "whitebench.message"
    RECOMPUTED = "whitebench.recomputed"
    """The latest Verification of a finished cell's scores from its stored predictions and weights, as JSON."""
    REPRODUCED = "whitebench.reproduced"
    """The latest by a fit repeated, as JSON."""


VERIFICATIONS = (Tag.RECOMPUTED, Tag.REPRODUCED)
"""The tags of the two kinds of verification."""


@dataclass(frozen=True, kw_only=True)
class StoredCell:
    """One run of a cell, as the store has it."""

    cell: CellName
    run_id: str
    state: str
    identity: str
    key: str
    """The contestant whatever its label; see `contestant_key`."""
    contestant: Contestant
    is_guest: bool
    failure: str
    """Kind and message of a failed cell."""
    started: int
    """Milliseconds since 1970."""
    result_sha256: str
    claim: str
    verification: Verification | None = None
    """What it stands by since it was last verified."""
    overrides: str = ""
    """As they stand in the store, on one line."""
    openings: int = 0
    """How often the run opened the test split."""
    is_deleted: bool = False
    files: str = ""
    """The address under which its files are."""


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """A contestant's tuning on a task that has made its choice, as the store has it."""

    contestant: str
    task: str
    choice: str
    """sha256 of the hyperparameters that it chose."""
    validation: Mapping[int, float]
    """By the number of the trial, its primary metric on the validation split; of trials that ran to their end."""


@dataclass(frozen=True, kw_only=True)
class OpenStudy:
    """A contestant's tuning on a task that somebody is at, as the store has it."""

    suite: str
    overrides: str
    """As they stand in the store, on one line."""
    contestant: str
    task: str
    ended: int
    """Trials that are complete, pruned or failed."""


def read_cell(run: TrackedRun) -> StoredCell:
    """Return what the tags of a cell's run say."""
    tags = run.tags
    state = tags[Tag.STATE]
    is_half_stored = state == "finished" and Tag.RESULT not in tags
    return StoredCell(
        cell=CellName(
            suite=tags[Tag.SUITE], contestant=tags[Tag.CONTESTANT], task=tags[Tag.TASK], seed=int(tags[Tag.SEED])
        ),
        run_id=run.run_id,
        state="interrupted" if is_half_stored else state,
        identity=tags[Tag.IDENTITY],
        key=tags[Tag.KEY],
        contestant=_contestant(tags[Tag.CONTESTANT_SPEC]),
        is_guest=tags[Tag.IS_GUEST] == "true",
        failure=f"{tags.get(Tag.FAILURE, '')}: {tags.get(Tag.MESSAGE, '')}" if state == "failed" else "",
        started=run.started,
        result_sha256=tags.get(Tag.RESULT, ""),
        claim=tags.get(Tag.CLAIM, ""),
        overrides=tags.get(Tag.OVERRIDES, ""),
        openings=int(tags.get(Tag.OPENINGS, 0)),
        is_deleted=run.is_deleted,
        files=run.files,
        verification=standing_of(*(Verification.from_tag(tags.get(name, "")) for name in VERIFICATIONS)),
    )


@lru_cache(4096)
def _contestant(spec: str) -> Contestant:
    return Contestant(**json.loads(spec))


def queryable(text: str) -> str:
    """Return `text` as a tag that runs can be found by: MLflow's queries know no escape for a quote."""
    return text.replace("'", "’")


def contestant_key(parts: Parts, contestant: Contestant) -> str:
    """Return the contestant whatever its label: what openings of the test split are counted by."""
    built = parts["contestant"]
    if "objective" not in built:  # its task solves itself
        return queryable(_with_options(built["model"], built["options"]))
    read = [] if built["readout"] == HEAD else [_text(built["readout"])]
    items = [_with_options(built["model"], built["options"]), _text(built["objective"]), *read]
    weights = [f"weights-{built['weights'][:12]}"] if built.get("weights") else []
    untrained = ["untrained"] if contestant.epochs == 0 else []
    return queryable("+".join([*items, contestant.recipe, *weights, *untrained]))


def _text(item: Any) -> str:
    return item if isinstance(item, str) else _with_options(item["name"], item["options"])


def _with_options(name: str, options: Mapping[str, object]) -> str:
    listed = ",".join(f"{key}={value}" for key, value in sorted(options.items()))
    return f"{name}[{listed}]" if listed else name
