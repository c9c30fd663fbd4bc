"""Every entry of a task against every other: differences, how sure they are, and the ranks that follow.

Each entry has a family of comparisons, one with every other entry. Within it the p values are corrected by Holm (1979,
Scandinavian Journal of Statistics 6:65), so that all that the family shows is right with the stated confidence. Of k
entries the rank of i lies in

    1 + #{j shown to be better than i}  ..  k - #{j shown to be worse than i},

which covers its true rank with that confidence (Mogstad, Romano, Shaikh and Wilhelm 2024, Review of Economic Studies
91:476). Where the range begins at 1, the entry is *not distinguishable from the best*: the truly best one is among
these with the same confidence, although the best mean was picked from the same data (multiple comparisons with the
best: Hsu 1984, Annals of Statistics 12:1136).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whitebench_leaderboards.statistics import (
    CONFIDENCE,
    NO_SPREAD,
    Difference,
    Outcome,
    normal_quantile,
    p_values,
    paired_difference,
    student_quantile,
)

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparisons:
    """All pairs of a task's ranked entries, k of them; arrays are (k, k), first entry by second, NaN where unknown."""

    names: tuple[str, ...]
    confidence: float
    value: Matrix
    """First minus second, in the primary metric's unit."""
    seed_part: Matrix
    sample_part: Matrix
    p_value: Matrix
    """Of each pair alone; NaN where the two cannot be compared."""
    corrected: Matrix
    """The same, corrected within the family of the first."""
    seeds: NDArray[np.int64]
    samples: NDArray[np.int64]
    reasons: Mapping[tuple[int, int], str]
    """Why two cannot be compared, by their places."""

    def difference(self, first: str, second: str) -> Difference | None:
        """Return `first` minus `second`; None where one of them is not ranked."""
        if first not in self.names or second not in self.names:
            return None
        i, j = self.names.index(first), self.names.index(second)
        parts = _or_none(self.seed_part[i, j]), _or_none(self.sample_part[i, j])
        is_known = not np.isnan(self.p_value[i, j])
        return Difference(
            value=_or_none(self.value[i, j]),
            smallest=float(np.hypot(parts[0] or 0.0, parts[1] or 0.0)) if is_known else None,
            seed_part=parts[0],
            sample_part=parts[1],
            seeds=int(self.seeds[i, j]),
            samples=int(self.samples[i, j]),
            p_value=_or_none(self.p_value[i, j]),
            reason=self.reasons.get((i, j), ""),
        )

    def ranks(self, *, is_lower_better: bool) -> list[tuple[int, int]]:
        """Return the best and the worst rank that each entry may have; the formula is at the top."""
        is_shown = self.corrected < 1 - self.confidence  # NaN is not
        is_better = (self.value < 0) == is_lower_better
        better, worse = (is_shown & ~is_better).sum(axis=1), (is_shown & is_better).sum(axis=1)
        return [(1 + int(up), len(self.names) - int(down)) for up, down in zip(better, worse, strict=True)]

    def against_better(self, name: str, *, is_lower_better: bool) -> float | None:
        """Return the smallest corrected p value at which somebody is better: that of `name` being the best.

        None where nobody it can be compared with has a better mean.
        """
        i = self.names.index(name)
        is_behind = self.value[i] > 0 if is_lower_better else self.value[i] < 0
        found = self.corrected[i][is_behind & ~np.isnan(self.corrected[i])]
        return float(found.min()) if len(found) else None


def compare_all(outcomes: Mapping[str, Outcome], *, confidence: float = CONFIDENCE) -> Comparisons:
    """Compare every pair of a task's entries, as `paired_difference` does one.

    Entries with the same seeds and test samples, which all that are ranked have as a rule, are compared at once.
    """
    names = tuple(outcomes)
    k = len(names)
    values, counts = np.full((4, k, k), np.nan), np.zeros((2, k, k), dtype=np.int64)
    reasons: dict[tuple[int, int], str] = {}
    for own in _alike(list(outcomes.values())):
        if len(own) > 1 and len(outcomes[names[own[0]]].values) > 1:
            block = np.ix_(own, own)
            found, shared = _at_once([outcomes[names[i]] for i in own], confidence)
            for number, one in enumerate(found):
                values[number][block] = one
            for number, count in enumerate(shared):
                counts[number][block] = count
            unsure = np.argwhere(np.isnan(found[3]))
            reasons |= {(own[i], own[j]): NO_SPREAD for i, j in unsure if i != j}
    for i in range(k):
        for j in range(k):
            if i != j and counts[0, i, j] == 0:
                _put(values, counts, reasons, (i, j), paired_difference(outcomes[names[i]], outcomes[names[j]],
                                                                        confidence=confidence))  # fmt: skip
    for each in values:
        np.fill_diagonal(each, np.nan)
    return Comparisons(
        names=names,
        confidence=confidence,
        value=values[0],
        seed_part=values[1],
        sample_part=values[2],
        p_value=values[3],
        corrected=_corrected(values[3]),
        seeds=counts[0],
        samples=counts[1],
        reasons=reasons,
    )


def _alike(outcomes: Sequence[Outcome]) -> list[list[int]]:
    """Return the places of the outcomes by the seeds and the number of test samples that they have."""
    groups: dict[object, list[int]] = {}
    for place, one in enumerate(outcomes):
        sizes = {len(samples) for samples in one.per_sample.values()}
        has_all = one.per_sample.keys() == one.values.keys() and len(sizes) == 1 and min(sizes) > 1
        if not one.per_sample or has_all:
            groups.setdefault((tuple(sorted(one.values)), *sizes), []).append(place)
    return list(groups.values())


def _at_once(outcomes: Sequence[Outcome], confidence: float) -> tuple[list[Matrix], tuple[int, int]]:
    """Return value, seed part, sample part and p value of all pairs, and how many seeds and samples they share.

    k entries, s seeds, n test samples.
    """
    seeds = sorted(outcomes[0].values)
    values_ks = np.array([[one.values[seed] for seed in seeds] for one in outcomes])
    each_kks = values_ks[:, None] - values_ks[None]
    seed_error = each_kks.std(axis=2, ddof=1) / np.sqrt(len(seeds))
    sample_error, samples = np.zeros_like(seed_error), 0
    if outcomes[0].per_sample:
        means_kn = np.array([np.mean([one.per_sample[seed] for seed in seeds], axis=0) for one in outcomes])
        samples = means_kn.shape[1]
        centred_kn = means_kn - means_kn.mean(axis=1, keepdims=True)
        gram = centred_kn @ centred_kn.T / (samples - 1)
        spread = gram.diagonal()[:, None] + gram.diagonal()[None] - 2 * gram
        sample_error = np.sqrt(np.maximum(spread, 0.0) / samples)
    value = each_kks.mean(axis=2)
    upper = np.triu_indices(len(outcomes), 1)  # the other half is the same
    p_value = np.ones_like(value)
    p_value[upper] = p_values(value[upper], seed_error[upper], sample_error[upper], seeds=len(seeds))
    p_value = np.minimum(p_value, p_value.T)
    if not samples:
        p_value[seed_error == 0] = np.nan
    sample_part = normal_quantile(confidence) * sample_error if samples else np.full_like(value, np.nan)
    return [value, student_quantile(len(seeds), confidence) * seed_error, sample_part, p_value], (len(seeds), samples)


def _put(
    values: Matrix,
    counts: NDArray[np.int64],
    reasons: dict[tuple[int, int], str],
    place: tuple[int, int],
    found: Difference,
) -> None:
    numbers = (found.value, found.seed_part, found.sample_part, found.p_value)
    values[(slice(None), *place)] = [np.nan if number is None else number for number in numbers]
    counts[(slice(None), *place)] = (found.seeds, found.samples)
    if found.reason:
        reasons[place] = found.reason


def _corrected(p_value: Matrix) -> Matrix:
    """Return the p values corrected by Holm within each row, where NaN is no comparison.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none comes out below one that was smaller.
    """
    order = p_value.argsort(axis=1)  # NaN last
    known = (~np.isnan(p_value)).sum(axis=1, keepdims=True)
    factors = np.maximum(known - np.arange(len(p_value)), 1)
    scaled = np.maximum.accumulate(np.take_along_axis(p_value, order, axis=1) * factors, axis=1)
    corrected = np.empty_like(p_value)
    np.put_along_axis(corrected, order, np.minimum(scaled, 1.0), axis=1)
    return corrected


def _or_none(number: float) -> float | None:
    return None if np.isnan(number) else float(number)
