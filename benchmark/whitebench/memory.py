"""How much memory a process may take."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

GIB = 2**30


def limit_memory(gib: float) -> None:
    """Let an allocation fail that would take this process `gib` above what it holds now. Linux alone.

    RLIMIT_DATA counts private writable memory (getrlimit(2)): neither code, nor files mapped, nor the address
    space that is only reserved, for which RLIMIT_AS would end a fit on a GPU at its first step.
    """
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        held = int(re.findall(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)[0]) * 1024
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = held + int(gib * GIB)
        resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def lift_limit() -> None:
    """Undo `limit_memory`: to say what happened takes memory too."""
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
