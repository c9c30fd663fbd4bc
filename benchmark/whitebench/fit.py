"""What a fit is asked to do, what it says while it runs, and what it answers: the words of the pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from whitebench.budget import Budget, Limits
from whitebench.events import EpochEnded, FitPurpose
from whitebench.provenance import Provenance
from whitebench.recipe import Recipe
from whitebench.result import Failure, Score
from whitebench.specs import Hyperparameters
from whitebench.suite import Contestant

PREDICTIONS = "predictions.safetensors"
"""`index`, `labels`, `logits` and, where the primary metric is a mean over samples, `primary`. Of a task that solves
itself, `index`, `primary`, and under `draws/…` what else it found for each draw."""
WEIGHTS = "weights.safetensors"
TRACES = "traces.safetensors"
"""`KIND/LAYER` on a fixed sample of the test split; `index` says which."""
PICTURES = "pictures.safetensors"
"""What the metrics' readings are drawn from; see `whitebench.gallery`."""
RECOUNTED = "recounted.safetensors"
"""What a recount found beside the scores, by the same names as in PREDICTIONS: `labels`, `logits`, `primary`."""
LOG = "fit.log"
DELIVERY = "delivery.json"
"""What is to be stored of a fit that is done, until it has arrived."""


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A process's place among several that others started, each of which has its part of one fit."""

    member: int
    members: int
    local_member: int
    """Its number among those on its machine."""
    address: str
    port: int
    """Where they meet."""
    fit: int
    """Which of the fits that they do together, so that none meets the others of the last one."""


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """One training run from first step to last score, in values only: a process of its own can be handed it."""

    name: str
    """`SUITE/CONTESTANT/TASK/trial-2`, or the cell's name."""
    purpose: FitPurpose
    contestant: Contestant
    task: str
    """A name with options, `digits[shift=1]`."""
    path: str = ""
    """Where the task's data lie, where it takes a `path`."""
    manifest: Mapping[str, str] = field(default_factory=dict)
    """Per split, the sha256 of the bytes that the fit was planned with, as far as it is known."""
    primary: str
    metrics: Sequence[str]
    """Names of the metrics scored on the test split; not read by a trial."""
    readouts: Sequence[str] = ()
    """Names of the read-outs that the primary metric is scored with besides; not read by a trial."""
    budget: Budget
    recipe: Recipe | None
    """None where the task solves itself."""
    hyperparameters: Hyperparameters
    seed: int
    plugins: Sequence[Path]
    """Local plugin files, absolute."""
    folder: Path
    """Where checkpoints, the log and what the fit leaves behind are written, absolute."""
    limits: Limits = field(default_factory=Limits)
    owners: Sequence[str] | None = None
    """The plugins that bring what is named here, by `Owner.plugin`, so that no other is loaded; None for all."""
    parallel: int = 1
    """Fits at a time: they share the machine, so times depend on it."""
    devices: int = 1
    """Processes that share this fit, each with a device of its own; its numbers are those of one, up to rounding."""
    is_on_cpu: bool = False
    """Whether a GPU is left alone where there is one."""
    gpus: tuple[str, ...] | None = None
    """The GPUs that it sees, as CUDA_VISIBLE_DEVICES names them; None for all that its launcher sees."""
    seat: Seat | None = None
    """Where this is but one part of the fit: each part has `devices` of its own."""

    @property
    def is_first(self) -> bool:
        """Whether this is the whole of the fit, or the part that writes files and is heard."""
        return self.seat is None or self.seat.member == 0

    @property
    def log(self) -> Path:
        """The file that everything the fit prints goes to."""
        return self.folder / (LOG if self.is_first or self.seat is None else f"fit-{self.seat.member}.log")

    @property
    def epochs(self) -> int:
        """How many there are to train; 0 where the model is scored as it stands."""
        return self.contestant.epochs_of(self.budget)


@dataclass(frozen=True, kw_only=True)
class AskTest:
    """The weights to be reported are chosen and on disk: may the test split be opened?"""

    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fit ran to its end."""

    reported_epoch: int
    validation: float | None
    """The primary metric on the validation split at that epoch; None where the task solved itself."""
    validation_loss: float | None
    """None where nothing was trained."""
    training_seconds: float
    scores: Sequence[Score] = ()
    costs: Sequence[Score] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    """What the task says of its training split in numbers."""
    test_samples: int = 0
    predictions_sha256: str = ""
    weights_sha256: str = ""
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A trial was told to stop early."""

    epoch: int


STEPS = 10
"""Training steps of an epoch of a fit in small at most, and batches of its validation."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What a fit would take, told from a few of its steps. Seconds, and bytes."""

    start: float
    """Before the first step: data and model, and what the first epoch takes longer than the others."""
    epoch: float
    """An epoch: its steps, its validation, its checkpoint."""
    exam: float
    """What a cell's fit does after its last epoch, if the test split is as large as the validation split: read-outs,
    predictions, metrics. Where the task solves itself, all that it does."""
    memory: int
    """At the peak, above what the process holds when it starts, as in the cost `peak-memory`."""


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What a fit ran on is gone, a machine most likely: it says nothing about the fit, which may be started again."""

    reason: str


Message: TypeAlias = EpochEnded | AskTest
"""What a fit says and waits to be answered on."""

Answer: TypeAlias = Literal["go", "prune"]

Outcome: TypeAlias = Fitted | Pruned | Failure
"""How a fit ended."""


def model_options(hyperparameters: Hyperparameters) -> Mapping[str, float | int | str]:
    """Return the model's own hyperparameters, those named `model.NAME`, by their option's name."""
    return {name.removeprefix("model."): value for name, value in hyperparameters.items() if name.startswith("model.")}
