"""How sure we are: the interval of a mean, and the smallest difference that seeds and test samples can show.

A score depends on the seed s and on the test sample i. The paired difference of two contestants,

    delta_si = mu + S_s + I_i + E_si,

has the mean over n seeds and N samples as its estimate, with variance

    var(S)/n + var(I)/N + var(E)/(nN).

Two half widths estimate it, each from the data of one direction:

    a = t(n - 1) * sd_s(mean_i delta_si) / sqrt(n)    seeds: covers var(S)/n + var(E)/(nN)
    b = z        * sd_i(mean_s delta_si) / sqrt(N)    test samples: covers var(I)/N + var(E)/(nN)

and the smallest difference the data can show is sqrt(a^2 + b^2): half widths of independent parts add
in squares (Zou and Donner 2008, Statistics in Medicine 27:1693). It is conservative twice over: var(E)/(nN)
is counted in both parts, and adding squared half widths is never narrower than Cochran's weighting
of t quantiles. Of equal contestants 5 % are told apart where seeds are all the noise there is (the formula is
then the exact t interval), and 0.4 to 5 % where test samples add theirs: 8,000 simulated pairs of 2 to 10 seeds.

Both quantiles shrink as the confidence does. The p value is one less the confidence at which |mean delta| is just the
smallest difference that the data can show; the seeds needed are the n at which a, with the same spread of seeds, is
small enough for that.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95

BISECTIONS = 40
"""Of log p: they leave a relative error of 3e-10."""

SMALLEST_P = 1e-150
"""Below 1e-200 scipy's quantile of Student's t comes out infinite."""

NO_SPREAD = "every seed gives the same difference, and there are no test samples to judge it by"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The mean of some values with its Student-t interval."""

    mean: float | None
    """None where there is no value."""
    half_width: float | None
    """Half the interval's width; None, never 0, where the values cannot say."""
    n: int
    reason: str = ""
    """Why the mean or the half width is None."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One contestant's primary metric on one task."""

    values: Mapping[int, float]
    """By seed."""
    per_sample: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    """By seed, the metric on each test sample (N,), in the task's order; empty where it is no mean over samples."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference, first minus second, and the smallest one that the same data can show."""

    value: float | None
    """Mean over shared seeds; None where there is no shared seed."""
    smallest: float | None
    """The half width of the difference's interval; None where the two cannot be compared."""
    seed_part: float | None = None
    sample_part: float | None = None
    """None where the metric is not a mean over test samples: `smallest` then speaks of these test samples only."""
    seeds: int
    samples: int = 0
    p_value: float | None = None
    """How often equal contestants would look as different, or more; None where the two cannot be compared."""
    reason: str = ""
    """Why the two cannot be compared."""

    @property
    def is_shown(self) -> bool:
        """Return whether the data tell the two apart."""
        return self.value is not None and self.smallest is not None and abs(self.value) > self.smallest


def estimate(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean of `values` with its two-sided Student-t interval."""
    n = len(values)
    if n == 0:
        return Estimate(mean=None, half_width=None, n=0, reason="no value")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean=mean, half_width=None, n=1, reason="one seed, which does not say how far seeds vary")
    if min(values) == max(values):
        reason = f"all {n} seeds give the same value, which leaves no spread to judge by"
        return Estimate(mean=float(values[0]), half_width=None, n=n, reason=reason)
    return Estimate(mean=mean, half_width=student_half_width(values, confidence), n=n)


def paired_difference(first: Outcome, second: Outcome, *, confidence: float = CONFIDENCE) -> Difference:
    """Compare two contestants over the seeds and the test samples that both have; formula at the top."""
    seeds = sorted(first.values.keys() & second.values.keys())
    if not seeds:
        return Difference(value=None, smallest=None, seeds=0, reason="no seed that both have")
    per_seed = [first.values[seed] - second.values[seed] for seed in seeds]
    value = math.fsum(per_seed) / len(per_seed)
    if len(seeds) == 1:
        reason = "one shared seed, which does not say how far seeds vary"
        return Difference(value=value, smallest=None, seeds=1, reason=reason)
    seed_part = student_half_width(per_seed, confidence)
    differences = _per_sample(first, second, seeds)
    if isinstance(differences, str):
        return Difference(value=value, smallest=None, seed_part=seed_part, seeds=len(seeds), reason=differences)
    if differences is None and seed_part == 0:
        return Difference(value=value, smallest=None, seed_part=0.0, seeds=len(seeds), reason=NO_SPREAD)
    seed_error = spread_of(per_seed) / math.sqrt(len(seeds))
    sample_error = 0.0 if differences is None else float(differences.std(ddof=1)) / math.sqrt(len(differences))
    sample_part = None if differences is None else normal_quantile(confidence) * sample_error
    return Difference(
        value=value,
        smallest=math.hypot(seed_part, sample_part or 0.0),
        seed_part=seed_part,
        sample_part=sample_part,
        seeds=len(seeds),
        samples=0 if differences is None else len(differences),
        p_value=float(p_values(value, seed_error, sample_error, seeds=len(seeds))),
    )


def spread_of(values: Sequence[float]) -> float:
    """Return the standard deviation of two or more values, unbiased in its square; of few sooner than numpy does."""
    mean = math.fsum(values) / len(values)
    return math.dist(values, [mean] * len(values)) / math.sqrt(len(values) - 1)


def student_half_width(values: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """Return `t(n - 1) * sd / sqrt(n)` for two or more values."""
    n = len(values)
    return student_quantile(n, confidence) * spread_of(values) / math.sqrt(n)


@lru_cache(4096)
def student_quantile(n: int, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of Student's t for the mean of n values."""
    return float(stdtrit(n - 1, (1 + confidence) / 2))


def normal_quantile(confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of the normal distribution."""
    return float(ndtri((1 + confidence) / 2))


def p_values(
    value: ArrayLike, seed_error: ArrayLike, sample_error: ArrayLike, *, seeds: int | NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the p value of each difference, given its standard errors over seeds and over test samples; at the top.

    Found by bisection of log p, for arrays of one shape; what is smaller than 1e-150 comes out as that.
    """
    size, over_seeds, over_samples = np.abs(value), np.asarray(seed_error), np.asarray(sample_error)
    low, high = np.full(size.shape, math.log(SMALLEST_P)), np.zeros(size.shape)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        half = np.exp(middle) / 2
        shown = np.hypot(stdtrit(seeds - 1, half) * over_seeds, ndtri(half) * over_samples)
        is_larger = shown > size  # than what could be shown at so small an error rate: p is larger
        low, high = np.where(is_larger, middle, low), np.where(is_larger, high, middle)
    return np.where(size == 0, 1.0, np.exp(high))


def seeds_needed(difference: Difference, *, confidence: float = CONFIDENCE, most: int = 10_000) -> int | None:
    """Return how many seeds would show the observed difference if seeds went on to vary as they did.

    None where no number up to `most` would: the test samples alone leave more room than the difference, or it cannot
    be said.
    """
    if difference.value is None or difference.seed_part is None or difference.seeds < 2:
        return None
    room = difference.value**2 - (difference.sample_part or 0.0) ** 2
    if room <= 0 or difference.reason:
        return None
    spread = difference.seed_part * math.sqrt(difference.seeds) / student_quantile(difference.seeds, confidence)

    def is_enough(n: int) -> bool:
        return student_quantile(n, confidence) * spread / math.sqrt(n) < math.sqrt(room)

    # The half width shrinks with every seed: the first that is enough has only such behind it.
    needed = 2 + bisect_left(range(2, most + 1), x=True, key=is_enough)
    return needed if needed <= most else None


def _per_sample(first: Outcome, second: Outcome, seeds: list[int]) -> NDArray[np.float64] | str | None:
    """Return the seed-averaged difference per sample (N,), None where there is none, or why it cannot be had."""
    if not first.per_sample and not second.per_sample:
        return None
    if any(seed not in one.per_sample for one in (first, second) for seed in seeds):
        return "the metric on each test sample is stored for some cells only"
    rows = [(first.per_sample[seed], second.per_sample[seed]) for seed in seeds]
    lengths = {len(samples) for pair in rows for samples in pair}
    if len(lengths) != 1:
        return f"the test samples differ: {' and '.join(map(str, sorted(lengths)))} of them"
    if lengths.pop() < 2:
        return "one test sample, which does not say how far samples vary"
    differences: NDArray[np.float64] = np.mean([one - other for one, other in rows], axis=0)
    return differences
