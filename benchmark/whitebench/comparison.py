"""Scores and predictions beside the same computed again: which are equal, and by how much the others differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from whitebench.result import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One score, as it was stored and as it came out again."""

    name: str
    stored: float | None
    again: float | None
    relative: float
    """The largest difference of the value, of a layer or of a null, each relative to the larger of the two; of layers
    to the largest layer."""
    tolerance: float
    """What `relative` may be at most: 0 where the two shall be equal to the last digit."""
    fault: str = ""
    """Why the two cannot be compared, or in what part they differ."""
    is_within_noise: bool = False
    """Whether they differ by no more than one cell differs from itself."""

    @property
    def agrees(self) -> bool:
        """Whether the two are the same, or near enough."""
        return not self.fault

    def __str__(self) -> str:
        """Return what is to be said of the two."""
        if self.fault:
            return self.fault
        if self.stored is None:
            return "unscored both times"
        if self.relative == 0:
            return "equal"
        within = "the noise floor" if self.is_within_noise else f"{self.tolerance:g}"
        return f"within {within}: {self.relative:.1e}"


def compare(
    stored: Sequence[Score],
    again: Sequence[Score],
    *,
    tolerance_of: Callable[[Score], float],
    noise_floor: Mapping[str, float],
) -> list[Comparison]:
    """Return how each score of either side compares, in the order of the stored.

    Args:
        stored: as the store has them.
        again: as they came out again.
        tolerance_of: takes a score and returns the relative difference that passes; 0 where it must be equal.
        noise_floor: by score, the absolute difference of values that passes besides.
    """
    there, here = {one.name: one for one in stored}, {one.name: one for one in again}
    return [
        _compare(name, there.get(name), here.get(name), tolerance_of, noise_floor.get(name))
        for name in dict.fromkeys((*there, *here))
    ]


def differences_in_predictions(
    stored: Mapping[str, NDArray[Any]], again: Mapping[str, NDArray[Any]], *, tolerance: float
) -> list[str]:
    """Return in which of its arrays a model with the stored weights predicts otherwise than is stored, a line each.

    Args:
        stored: arrays by name, as in PREDICTIONS.
        again: those of them that were computed again.
        tolerance: what their largest difference may be at most, relative to the largest number; whole numbers must be
            equal.
    """
    found = []
    for name, now in again.items():
        before = stored.get(name)
        if before is None or before.shape != now.shape:
            found.append(f"predictions: {name} are {now.shape}, stored are {before.shape if before is not None else 0}")
            continue
        largest = float(max(np.abs(before).max(), np.abs(now).max()))
        relative = float(np.abs(before - now).max()) / largest if largest else 0.0
        # Written so that what is no number counts as a difference.
        if not relative <= (tolerance if now.dtype.kind == "f" else 0.0):
            found.append(f"predictions: {name} of the stored weights differ from the stored by {relative:.1e}")
    return found


def _compare(
    name: str,
    stored: Score | None,
    again: Score | None,
    tolerance_of: Callable[[Score], float],
    noise: float | None,
) -> Comparison:
    known = stored or again
    assert known is not None
    tolerance = tolerance_of(known)
    then, now = stored.value if stored else None, again.value if again else None
    if stored is None or again is None or (stored.value is None) != (again.value is None):
        fault = _one_sided(stored, again)
        return Comparison(name=name, stored=then, again=now, relative=1.0, tolerance=tolerance, fault=fault)
    parts = dict(_differences(stored, again))
    where = max(parts, key=lambda part: parts[part], default="")
    relative = parts.get(where, 0.0)
    is_near = relative <= tolerance
    is_within_noise = not is_near and noise is not None and _distance(stored, again) <= noise
    return Comparison(
        name=name,
        stored=then,
        again=now,
        relative=relative,
        tolerance=tolerance,
        fault="" if is_near or is_within_noise else f"differs in {where} by {relative:.1e}",
        is_within_noise=is_within_noise,
    )


def _one_sided(stored: Score | None, again: Score | None) -> str:
    if stored is None:
        return "was not stored"
    if again is None:
        return "does not come out again"
    return f"unscored again: {again.unscored}" if again.value is None else f"was unscored: {stored.unscored}"


def _distance(stored: Score, again: Score) -> float:
    return abs((stored.value or 0.0) - (again.value or 0.0))


def _differences(stored: Score, again: Score) -> Iterator[tuple[str, float]]:
    """Yield each part of a score with its largest relative difference."""
    if stored.value is not None and again.value is not None:
        yield "its value", _relative([stored.value], [again.value])
    yield "its layers", _relative(stored.profile, again.profile)
    yield "the spread of its layers", _relative(stored.spread, again.spread)
    for name in dict.fromkeys((*stored.nulls, *again.nulls)):
        sides = [[one.nulls[name]] if name in one.nulls else [] for one in (stored, again)]
        yield f"its null {name}", _relative(*sides)
    for name in dict.fromkeys((*stored.null_profiles, *again.null_profiles)):
        yield f"the layers of its null {name}", _relative(*(one.null_profiles.get(name, ()) for one in (stored, again)))


def _relative(stored: Sequence[float], again: Sequence[float]) -> float:
    """Return the largest difference of two rows relative to the largest number in them; 1 for rows of two lengths."""
    if len(stored) != len(again):
        return 1.0
    largest = max((abs(one) for one in (*stored, *again)), default=0.0)
    return max((abs(a - b) for a, b in zip(stored, again, strict=True)), default=0.0) / largest if largest else 0.0
