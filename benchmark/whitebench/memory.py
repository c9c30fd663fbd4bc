"""How much memory a process may take, and how one tells that it ran out."""

from __future__ import annotations

import errno
import re
import resource
import sys
from pathlib import Path

from whitebench.quotation import said, type_name

GIB = 2**30

SHORT = ("out of memory", "allocate memory", "DefaultCPUAllocator", "std::bad_alloc")
"""How torch, C++ and the system say that memory ran out."""


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


def is_shortage(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out."""
    is_errno = isinstance(error, OSError) and error.errno == errno.ENOMEM
    is_named = isinstance(error, MemoryError) or type_name(error) == "OutOfMemoryError"  # torch's own
    return is_errno or is_named or any(word in said(error) for word in SHORT)


def lift_limit() -> None:
    """Undo `limit_memory`: to say what happened takes memory too."""
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
