"""Why no separator is returned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whitebench import WhitebenchError

if TYPE_CHECKING:
    from collections.abc import Sequence


class SeparationError(WhitebenchError):
    """Some problems of a batch that have no answer."""

    def __init__(self, text: str, items: Sequence[tuple[int, ...]]) -> None:
        super().__init__(text)
        self.items = tuple(items)
        """Their places in the batch."""


class InfeasibleError(SeparationError):
    """No W meets the constraints: a nonnegative combination of them that cancels has been found."""


class UnconvergedError(SeparationError):
    """The gap between the bounds stayed above the tolerance."""
