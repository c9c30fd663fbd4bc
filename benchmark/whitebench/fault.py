"""What ended a fit, put into a kind and into words: an exception inside, or an exit code seen from outside."""

from __future__ import annotations

import contextlib
import errno
import signal
import site
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from whitebench.errors import DivergedError, MetricError, WhitebenchError
from whitebench.fit import FitPlan
from whitebench.memory import is_shortage
from whitebench.quotation import said, type_name
from whitebench.result import Failure, FailureKind
from whitebench.transcript import ends

MOST = 64_000
"""Characters kept of a traceback: an exception may say a megabyte."""

OURS = (WhitebenchError, DivergedError, MetricError)

CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
)
"""Signals that a process brings upon itself."""

LOADER = "DataLoader worker (pid"
"""How torch says, wherever the fit then is, that a process which reads samples has died."""

FULL = ("No space left on device", "Disk quota exceeded")
"""How libraries that raise no OSError say that the disk is full."""


def failure_of(error: BaseException, plan: FitPlan) -> Failure:
    """Return the failure that an exception in a fit is."""
    kind = kind_of(error)
    message = _message(error)
    if kind is FailureKind.OOM and plan.limits.memory_gib is not None:
        message += f"; limits.memory_gib allows {plan.limits.memory_gib:g} GiB"
    lines = "".join(traceback.format_exception(error))
    return Failure(kind=kind, message=message, traceback=ends(_plain(lines), MOST), log=str(plan.log))


def kind_of(error: BaseException) -> FailureKind:
    """Return the kind of failure that an exception is; what was raised `from` a full disk is one too."""
    causes = list(_with_causes(error))
    if any(is_shortage(one) and not isinstance(one, OURS) for one in causes):
        return FailureKind.OOM
    if any(_says(one, (errno.ENOSPC, errno.EDQUOT), FULL) for one in causes):
        return FailureKind.DISK
    if any(_says(one, (), (LOADER,)) for one in causes):
        return FailureKind.KILLED
    kinds: list[tuple[type[BaseException], FailureKind]] = [
        (DivergedError, FailureKind.NAN),
        (MetricError, FailureKind.METRIC),
        (ImportError, FailureKind.IMPORT),
        (WhitebenchError, FailureKind.CONFIG),
        (SystemExit, FailureKind.EXIT),
    ]
    return next((kind for raised, kind in kinds if isinstance(error, raised)), FailureKind.ERROR)


def kind_of_exit(code: int, last_words: str) -> tuple[FailureKind, str]:
    """Return the kind of failure that the end of a process is, and what it says; negative codes are signals."""
    if code >= 0:
        return FailureKind.EXIT, f"the fit's process exited with code {code} before it was done"
    name = f"signal {-code}"
    with contextlib.suppress(ValueError):  # a real-time signal has no name
        name = signal.Signals(-code).name
    if -code not in CRASHES:
        hint = " (the system ends processes this way when memory runs out)" if name == "SIGKILL" else ""
        return FailureKind.KILLED, f"the fit's process was ended by {name}{hint}"
    if "std::bad_alloc" in last_words:
        return FailureKind.OOM, f"the fit's process crashed with {name}, because memory ran out (std::bad_alloc)"
    return FailureKind.CRASHED, f"the fit's process crashed with {name}"


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _says(error: BaseException, numbers: Sequence[int], words: Sequence[str]) -> bool:
    if isinstance(error, OSError) and error.errno in numbers:
        return True
    # Ours only quote what others said; what they quote is among the causes.
    return not isinstance(error, OURS) and any(word in said(error) for word in words)


def _message(error: BaseException) -> str:
    text = said(error)
    if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):  # Lightning's doing
        return "the fit raised KeyboardInterrupt"
    if isinstance(error, SystemExit):
        return f"the fit called sys.exit({text})"
    if isinstance(error, OURS):
        return text
    if LOADER in text:
        said_why = text[text.index(LOADER) :].splitlines()[0].rstrip(". ")
        return (
            f"a loader process has died ({said_why}), perhaps for want of memory: fewer of them, limits.workers, or "
            "smaller batches need less"
        )
    return f"{type_name(error)}: {text}{_place(error)}"


def _place(error: BaseException) -> str:
    """Return the last line of a plugin's own code that an error passed through, ` (FILE:LINE in FUNCTION)`."""
    libraries = tuple({*site.getsitepackages(), sysconfig.get_path("stdlib"), str(Path(__file__).parent)})
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    return f" ({frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""


def _plain(text: str) -> str:
    """Return `text` without halves of characters, which no file takes."""
    return text.encode(errors="replace").decode()
