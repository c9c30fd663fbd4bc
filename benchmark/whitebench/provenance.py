"""Where a number comes from: code, libraries, machine and moment, recorded when they happen."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse


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
    ended: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """sha256 of the bytes each split served."""
    resumed_from_epoch: int | None = None
    is_deterministic: bool = True
    """Whether the same seed on this hardware gives the same digits."""


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


def checkout_of(package: str = "whitebench") -> Path | None:
    """Return the folder an editable install of `package` points at, or None for a wheel."""
    try:
        found = distribution(package)
    except PackageNotFoundError:
        return None
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(origin["url"]).path))


def commit_of(folder: Path | None) -> tuple[str | None, bool | None]:
    """Return the commit that `folder` is at and whether it has uncommitted changes; None where git cannot say."""
    if folder is None:
        return None, None
    head = _git(folder, "rev-parse", "HEAD")
    if head is None:
        return None, None
    changes = _git(folder, "status", "--porcelain")
    return head.strip(), bool(changes.strip()) if changes is not None else None


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
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
