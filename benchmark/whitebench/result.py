"""The outcome of a cell: a Result with its scores, or a Failure of a known kind."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from whitebench.identity import CellName
from whitebench.provenance import Provenance
from whitebench.reading import Direction, Reading
from whitebench.specs import MetricSpec
from whitebench.verification import Verification

if TYPE_CHECKING:
    from pydantic import TypeAdapter


RAISED = "the metric raised "
"""How the reason begins where a metric is unscored through a fault of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)  # of 10,000 cells there are half a million
class Score:
    """A metric's value with what is needed to read it, or *unscored* with a reason."""

    name: str
    """The metric's name, or `metric/part` where it yields several."""
    metric: str
    version: int
    direction: Direction
    unit: str
    value: float | None
    unscored: str | None = None
    """Why there is no value; None where there is one."""
    profile: tuple[float, ...] = ()
    """One number per layer, first layer first."""
    spread: tuple[float, ...] = ()
    """Per layer, the unbiased standard deviation over samples."""
    nulls: Mapping[str, float] = field(default_factory=dict)
    """The value where the claim cannot hold, by the null's name."""
    null_profiles: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The same per layer."""

    @classmethod
    def from_reading(cls, spec: MetricSpec, part: str, reading: Reading) -> Self:
        """Return the score that `reading` of the metric's `part` (empty for the metric itself) makes.

        What is not a finite number is left out: a value with one, or with a layer that has one, is unscored.
        """
        value, unscored = (None if reading.value is None else float(reading.value)), reading.unscored
        profile = [float(layer) for layer in reading.profile]
        faulty = [f"layer {place + 1} is {layer}" for place, layer in enumerate(profile) if not math.isfinite(layer)]
        if value is not None and (faulty or not math.isfinite(value)):
            value, unscored = None, f"the value is {value}" + (f" ({', '.join(faulty)})" if faulty else "")
        elif value is None and not unscored:
            unscored = "the metric gave no value and no reason"
        spread = [float(layer) for layer in reading.spread]
        nulls = {name: float(null) for name, null in reading.nulls.items()}
        null_profiles = {name: tuple(map(float, null)) for name, null in reading.null_profiles.items()}
        return cls(
            name=f"{spec.name}/{part}" if part else spec.name,
            metric=spec.name,
            version=spec.version,
            direction=reading.direction or spec.direction,
            unit=spec.unit if reading.unit is None else reading.unit,
            value=value,
            unscored=None if value is not None else unscored,
            profile=() if faulty else tuple(profile),
            spread=tuple(spread) if not faulty and all(map(math.isfinite, spread)) else (),
            nulls={name: null for name, null in nulls.items() if math.isfinite(null)},
            null_profiles={name: null for name, null in null_profiles.items() if all(map(math.isfinite, null))},
        )

    @property
    def is_raised(self) -> bool:
        """Whether it is unscored because its metric raised."""
        return (self.unscored or "").startswith(RAISED)

    @classmethod
    def missing(cls, spec: MetricSpec, reason: str) -> Self:
        """Return the unscored score of a metric, with its reason."""
        return cls.from_reading(spec, "", Reading(value=None, unscored=reason))


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The hyperparameters a cell was fitted with, and how they were found."""

    hyperparameters: Mapping[str, float | int | str]
    trial: int | None
    """The number of the trial that won; None where the recipe's stated values were used."""
    validation: float | None
    """The winner's primary metric on the validation split."""
    edges: Sequence[str] = ()
    """Hyperparameters whose choice lies on the edge of its space: the optimum may be outside."""
    trials_allowed: int = 0
    trials_complete: int = 0
    trials_pruned: int = 0
    trials_failed: int = 0
    tuning_seconds: float = 0.0
    """Wall time of all the study's trials added up."""
    digest: str = ""
    """sha256 of the hyperparameters, stored before the test split was opened."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished cell yields."""

    cell: CellName
    identity: str
    """Digest of everything that can change the numbers; see `whitebench.identity`."""
    primary: str
    """The name of the score that the suite ranks by."""
    scores: Sequence[Score]
    costs: Sequence[Score]
    chosen: Chosen
    epochs_allowed: int
    reported_epoch: int
    """The epoch whose weights were tested, counted from 1; 0 where nothing was trained."""
    validation: float | None
    """The primary metric on the validation split at that epoch."""
    test_samples: int
    test_openings: int
    """How often this contestant's test split of this task had been opened in the store by then, this time included."""
    predictions_sha256: str
    weights_sha256: str
    provenance: Provenance
    facts: Mapping[str, float] = field(default_factory=dict)
    """What the task says of its training split in numbers, e.g. `{"label noise, flipped": 0.27}`."""

    @property
    def is_solved(self) -> bool:
        """Whether its task solved itself: its samples are draws, and there was no test split to open."""
        return self.test_openings == 0

    def score(self, name: str) -> Score | None:
        """Return the score or cost called `name`, if the result has it."""
        return self._scores.get(name)

    @cached_property
    def _scores(self) -> dict[str, Score]:
        return {score.name: score for score in reversed((*self.scores, *self.costs))}


class FailureKind(StrEnum):
    """Why a fit yielded nothing."""

    IMPORT = "import"
    """A plugin or a library could not be loaded in the fit's process."""
    CONFIG = "config"
    """The model or task cannot be built as asked for, or changes what others compute with."""
    OOM = "oom"
    """Memory ran out, or `limits.memory_gib` was reached."""
    DISK = "disk"
    """The disk is full, or its quota used up."""
    NAN = "nan"
    """The loss or a gradient became something other than a finite number."""
    TIMEOUT = "timeout"
    """The fit took longer than `limits.fit_minutes`."""
    STALLED = "stalled"
    """The fit gave no sign of life for `limits.stall_minutes`."""
    OUTPUT = "output"
    """The fit printed more than `limits.log_mib`."""
    KILLED = "killed"
    """The process was ended by a signal from outside (SIGKILL, SIGTERM)."""
    CRASHED = "crashed"
    """The process broke down: a segmentation fault, a bus error, an abort."""
    EXIT = "exit"
    """The process left before it was done: `sys.exit`, `os._exit`."""
    METRIC = "metric"
    """The metric that ranks the board could not be computed."""
    ERROR = "error"
    """Anything else that raised."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a cell or a trial yielded nothing."""

    kind: FailureKind
    message: str
    """One line for people."""
    traceback: str = ""
    log: str = ""
    """The path of the fit's log file."""


CellState = Literal["finished", "stale", "failed", "running", "interrupted", "missing"]


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """One square of a suite's grid as the store has it, judged by the suite as it stands now."""

    cell: CellName
    state: CellState
    """`stale`: finished, but something that can change the number has changed since."""
    reason: str = ""
    """Why it is missing or failed, or what changed."""
    result: Result | None = None
    """Of a finished or stale cell."""
    per_sample: Sequence[float] | None = None
    """The primary metric on each test sample in the task's order, where the metric is a mean over samples."""
    test_openings: int = 0
    """How often the contestant's test split of the task has been opened in the store up to now."""
    run_id: str | None = None
    """The cell's MLflow run."""
    is_guest: bool = False
    """Whether the contestant was added on the command line and does not stand in the suite's file."""
    is_trained_elsewhere: bool = False
    """Whether it was scored with weights from a file, as they are."""
    verification: Verification | None = None
    """What its scores were found to be when they were last computed again; None where they are as reported."""


def to_json(record: Result | Failure) -> bytes:
    """Return `record` as canonical JSON: the same record always gives the same bytes."""
    kind: type = type(record)
    return _adapter(kind).dump_json(record, indent=1)


def result_from_json(text: bytes) -> Result:
    """Read a Result back; raises pydantic's ValidationError, a ValueError, when it is none."""
    result: Result = _adapter(Result).validate_json(text)
    return result


def digest(content: bytes) -> str:
    """Return the sha256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # 0.1 s that `--help` does not pay

    return TypeAdapter(kind)
