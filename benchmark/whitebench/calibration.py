"""A suite's noise floor: how much one cell, fitted again and again with the same seed, differs from itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """One fit of the cell."""

    setting: str
    """In what it was computed otherwise than the suite says, `threads=2`; empty where in nothing."""
    device: str
    threads: int
    values: Mapping[str, float]
    """Of every score that has a value, by its name."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The repetitions of one cell, and the largest differences between them."""

    cell: str
    """`SUITE/CONTESTANT/TASK/SEED`."""
    identity: str
    """Of the cell when it was repeated."""
    when: str
    """UTC, ISO 8601."""
    repetitions: Sequence[Repetition]

    @property
    def at_equal_settings(self) -> dict[str, float]:
        """The largest absolute difference of each score between two fits as the suite says."""
        return _largest([one for one in self.repetitions if not one.setting])

    @property
    def across_settings(self) -> dict[str, float]:
        """The largest absolute difference of each score between any two fits."""
        return _largest(self.repetitions)

    def farthest(self, name: str) -> str:
        """Return the setting in which a score lies farthest from its first value; empty where in none."""
        having = [one for one in self.repetitions if name in one.values]
        far = max(having, key=lambda one: abs(one.values[name] - having[0].values[name]))
        return far.setting

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Read it back.

        Raises:
            ValueError: it is none, or that of another version of whitebench.
        """
        try:
            content = json.loads(text)
            repetitions = [Repetition(**one) for one in content.pop("repetitions")]
            return cls(**content, repetitions=repetitions)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no calibration: {error}") from error


def _largest(repetitions: Sequence[Repetition]) -> dict[str, float]:
    """Return how far the values of each score lie apart that two or more of the repetitions have."""
    names = dict.fromkeys(name for one in repetitions for name in one.values)
    values = {name: [one.values[name] for one in repetitions if name in one.values] for name in names}
    return {name: max(found) - min(found) for name, found in values.items() if len(found) > 1}


def noise_floor(calibrations: Iterable[Calibration]) -> dict[str, float]:
    """Return the difference below which each score says nothing: the largest across settings, of all calibrations."""
    floors: dict[str, float] = {}
    for one in calibrations:
        for name, floor in one.across_settings.items():
            floors[name] = max(floors.get(name, 0.0), floor)
    return floors
