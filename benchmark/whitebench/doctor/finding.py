"""What one look at the installation, the machine or the store came to, and how a look is kept from doing harm."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["ok", "hint", "warning", "broken"]
"""As it should be; something optional is not here; works, but not well; something needed does not work."""

PATIENCE = 60.0
"""Seconds after which a look that waits for others (a server, a file system, a process) is given up."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    detail: str
    """What was found; where it is not as it should be, what that means."""
    mend: str = ""
    """The command that mends it, where there is one. Words in capitals stand for what only the reader knows."""


def guarded(
    what: str, look: Callable[[], Iterable[Finding]], *, seconds: float | None = None, mend: str = ""
) -> list[Finding]:
    """Return what `look` finds; where it raises, or takes longer than `seconds`, that is itself a finding.

    With `seconds` it looks from a thread of its own, which is left behind when its time is up.
    """
    found: list[Finding] = []

    def collect() -> None:
        try:
            for one in look():
                found.append(one)  # noqa: PERF402  # one by one: what was found before it raised counts
        except (Exception, SystemExit) as error:  # whatever is wrong here is what we came to see
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
            found.append(Finding(what=what, state="broken", detail=f"could not be looked at: {text}", mend=mend))

    if seconds is None:
        collect()
        return found
    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(seconds)
    if not thread.is_alive():
        return found
    return [*found, Finding(what=what, state="broken", detail=f"gave no answer in {seconds:g} s", mend=mend)]
