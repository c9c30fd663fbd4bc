"""What every contestant may spend, where a fit has to end, and how hyperparameters are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from whitebench.settings import STRICT, need

Precision: TypeAlias = Literal["32", "bf16-mixed"]

MOST = 2**31 - 1
"""The largest whole number that every library downstream takes."""
MOST_WORKERS = 256


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every contestant may spend."""

    __pydantic_config__ = STRICT

    epochs: int
    """0 scores every contestant as it stands; a contestant of its own may say so too."""
    batch_size: int
    """Global: the same whatever the number of devices."""
    trials: int
    """Tuning trials per contestant and task, pruned and failed ones included; 0 runs the stated values."""
    precision: Precision = "32"
    threads: int = 1
    """Per fit. Part of a cell's identity: one and two threads give different last digits."""
    compile: bool = False
    """Whether training steps run through torch.compile: faster, and other last digits."""
    report: Literal["last", "chosen"] = "last"
    """Which epoch's weights are tested: the last, or the first of those that validation likes best."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("batch_size", 1), ("trials", 0), ("threads", 1)):
            need(least <= getattr(self, name) <= MOST, name, f"must be at least {least} and below 2^31")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a fit may take, and where one that goes wrong is ended: no number, and so no identity, depends on it."""

    __pydantic_config__ = STRICT

    fit_minutes: float = 24 * 60.0
    """A fit that takes longer fails as `timeout`."""
    stall_minutes: float = 30.0
    """A fit that makes no step and scores no batch for so long fails as `stalled`."""
    memory_gib: float | None = None
    """What each process of a fit may take above what it starts with; beyond, an allocation fails as `oom`. Linux."""
    log_mib: float = 64.0
    """A fit that prints more fails as `output`."""
    data_gib: float = 4.0
    """A split's images are held in memory, on a GPU in its own, if they take no more; else they are streamed."""
    workers: int = 2
    """Processes that read what is streamed, for each fit; 0 for the fit's own."""

    def __post_init__(self) -> None:
        for name in ("fit_minutes", "stall_minutes", "memory_gib", "log_mib"):
            limit = getattr(self, name)
            need(limit is None or limit > 0, name, "must be above zero")
        need(self.data_gib >= 0, "data_gib", "must not be negative")
        need(0 <= self.workers <= MOST_WORKERS, "workers", f"must be 0 to {MOST_WORKERS}")


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How hyperparameters are chosen."""

    __pydantic_config__ = STRICT

    sampler: Literal["quasi-random", "tpe"] = "quasi-random"
    seed: int = 0
    """Of the sequence of trials, and of the weights and batches that every trial is trained with."""
    pruning: Literal["off", "median"] = "off"
    """`median`: end a trial whose best epoch is worse than the median of lower-numbered trials so far."""
    pruning_from_trial: int = 3
    """Trials below this number are never pruned."""
    pruning_from_epoch: int = 3

    def __post_init__(self) -> None:
        need(0 <= self.seed <= MOST, "seed", "must be in [0, 2^31)")
        need(self.pruning_from_trial >= 1, "pruning_from_trial", "must be at least 1")
        need(self.pruning_from_epoch >= 1, "pruning_from_epoch", "must be at least 1")
