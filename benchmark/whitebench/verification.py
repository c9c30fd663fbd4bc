"""What became of a cell's scores when they were computed once more: when, on what, and what came out otherwise."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Self, TypeAlias

from whitebench.wording import plain

Standing: TypeAlias = Literal["recomputed", "reproduced", "differs"]
"""Scores agree, from stored predictions and weights; they agree, from a fit repeated; they do not agree."""

MOST_DIFFERENCES = 10
"""Kept of one verification: a tag holds some 5,000 characters."""
LONGEST = 200
"""Characters kept of one difference."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """One time that a finished cell's scores were computed again and compared with those stored."""

    is_repeated: bool
    """Whether the fit itself was repeated, or the task solved again, and not only the scores counted again."""
    when: str
    """UTC, ISO 8601."""
    device: str
    threads: int
    versions: Mapping[str, str]
    """Of Python, torch and the distributions that were used."""
    num_scores: int
    """That were compared, costs that are counted included."""
    differences: Sequence[str] = ()
    """What came out otherwise, a line each; empty where all agrees."""
    changes: Sequence[str] = ()
    """In what the circumstances were others than the fit's, `device: A -> B`; none of it is a difference in scores."""
    tolerance: float = 0.0
    """The largest relative difference that passed for none."""

    @property
    def standing(self) -> Standing:
        """What the cell may be called since."""
        if self.differences:
            return "differs"
        return "reproduced" if self.is_repeated else "recomputed"

    def to_tag(self) -> str:
        """Return it as one line of JSON, what is too long cut."""
        short = {"differences": _most(self.differences), "changes": _most(self.changes)}
        return json.dumps({**asdict(self), **short}, ensure_ascii=False)

    @classmethod
    def from_tag(cls, text: str) -> Self | None:
        """Read it back; None where the text is none, or that of another version of whitebench."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError):
            return None


def standing_of(recomputed: Verification | None, repeated: Verification | None) -> Verification | None:
    """Return which of the latest of either kind a cell stands by: one that differs, else the more that was repeated."""
    found = [one for one in (repeated, recomputed) if one is not None]
    return next((one for one in found if one.differences), found[0] if found else None)


def _most(lines: Sequence[str]) -> list[str]:
    kept = [plain(line, LONGEST) for line in lines[:MOST_DIFFERENCES]]
    return [*kept, *([f"and {len(lines) - MOST_DIFFERENCES} more"] if len(lines) > MOST_DIFFERENCES else [])]
