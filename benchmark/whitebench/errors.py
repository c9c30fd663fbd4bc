"""What goes wrong, said to a person: what happened, to whom, and what to do next."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from whitebench.wording import listed, plain, shown

if TYPE_CHECKING:
    from collections.abc import Iterable


LONGEST_NAME = 200
"""Characters: what is longer is no misspelt name."""


class WhitebenchError(ValueError):
    """A mistake that its maker can mend; the command line prints its text and exits with 2.

    Its text may quote what a stranger wrote, so it is always one line of bounded length without control characters.
    """

    def __str__(self) -> str:
        return plain(super().__str__())


class UnknownNameError(WhitebenchError):
    """A name that nobody registered."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(set(known))
        super().__init__(f"unknown {kind} {shown(name)}{near_misses(name, known)} (known: {listed(known)})")


class DuplicateNameError(WhitebenchError):
    """One name with two owners."""


class OptionError(WhitebenchError):
    """An option in a name that its Spec does not take."""


class SuiteError(WhitebenchError):
    """A suite file, or an override of it, that does not say a benchmark."""


class PluginError(WhitebenchError):
    """A plugin that could not be loaded or hands over something that is no Spec."""


class TaskDataError(WhitebenchError):
    """Data that is not what its task's Spec says it is."""


class TraceError(WhitebenchError):
    """A trace that names modules the model does not have, or that no forward pass reached."""


class StoreError(WhitebenchError):
    """A store that cannot be opened, read or written."""


class BusyStoreError(StoreError):
    """A store that cannot be used at this moment, and perhaps in the next."""


class LostClaimError(StoreError):
    """Work that another conductor has taken over: this one was taken for dead."""


class LostResultError(StoreError):
    """A finished cell whose result is no longer in the store as it was written."""


class DivergedError(RuntimeError):
    """A loss that is not a finite number."""


class PeerError(RuntimeError):
    """What another process of a fit's group could not do, and so none can."""


class MetricError(RuntimeError):
    """A metric that ranks a suite and gives no number."""


def near_misses(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x' or 'y'?` for the known names closest to `name`, case aside, or nothing."""
    if len(name) > LONGEST_NAME:
        return ""
    by_folded = {one.casefold(): one for one in known}
    close = [by_folded[one] for one in difflib.get_close_matches(name.casefold(), by_folded, n=3, cutoff=0.6)]
    return f", did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
