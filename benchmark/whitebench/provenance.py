"""Where a number comes from: code, libraries, machine and moment, recorded when they happen."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

CODE = Path(__file__).resolve()
"""A file of the code that runs, for asking which commit it is at."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The circumstances of one fit."""

    commit: str | None
    """Of the checkout whitebench runs from; None where it runs from an installed wheel."""
    is_dirty: bool | None
    """Whether that checkout had uncommitted changes."""
    distributions: Mapping[str, str]
    """Versions of whitebench, of the distributions its plugins come from, and of the libraries they stand on."""
    python: str
    torch: str
    cuda: str | None
    """The CUDA version torch was built for; None for a CPU build."""
    platform: str
    device: str
    """The name of the processor or accelerator the fit ran on."""
    threads: int
    precision: str
    seed: int
    started: str
    """UTC, ISO 8601."""
    parallel: int = 1
    """Fits at a time on this machine when it ran: times compare only where this is the same."""
    devices: int = 1
    """Processes that shared the fit, each with a device of its own: the same numbers up to rounding."""
    pieces: int = 1
    """In how many pieces each device took its share of a batch, so that it fitted into memory."""
    ended: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """sha256 of the bytes each split served."""
    resumed_from_epoch: int | None = None
    is_deterministic: bool = True
    """Whether the same seed on this hardware gives the same digits."""


def changes(before: Provenance, after: Provenance) -> list[str]:
    """Return in what machine, threads, precision and versions differ between two fits, `device: A -> B` each."""
    then, since = _circumstances(before), _circumstances(after)
    return [
        f"{what}: {then.get(what, 'none')} -> {since.get(what, 'none')}"
        for what in dict.fromkeys((*then, *since))
        if then.get(what) != since.get(what)
    ]


def _circumstances(source: Provenance) -> dict[str, str]:
    ours = {
        "device": source.device,
        "devices": str(source.devices),
        "threads": str(source.threads),
        "precision": source.precision,
    }
    return {**ours, "python": source.python, **source.distributions, "torch": source.torch, "CUDA": str(source.cuda)}


def now() -> str:
    """Return the moment as UTC in ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def processor_name() -> str:
    """Return the processor's name as its maker sells it, or the machine type where that is hidden."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit_of(file: Path) -> tuple[str | None, bool | None]:
    """Return the commit that `file` is at and whether its repository has uncommitted changes.

    None where git cannot say, and where the file belongs to no repository: an installed wheel may lie
    inside the checkout of something else.
    """
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None, None
    head = _git(file.parent, "rev-parse", "HEAD")
    changes = _git(file.parent, "status", "--porcelain")
    return head.strip() if head else None, bool(changes.strip()) if changes is not None else None


def usable_cores() -> int:
    """Return how many cores this process may use, at least one: those it may run on, within its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cores, _quota(Path("/sys/fs/cgroup/cpu.max")))))


def _quota(cpu_max: Path) -> float:
    """Return the cores that control groups allow: `QUOTA PERIOD` in microseconds, or `max PERIOD`."""
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota == "max" else int(quota) / int(period)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            # A fit may be killed at any moment: it must not be holding the lock of the user's repository then.
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
