"""Intervals and smallest differences, against t tables, hand-worked numbers and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from whitebench_leaderboards.statistics import (
    SMALLEST_P,
    Outcome,
    estimate,
    p_values,
    paired_difference,
    seeds_needed,
    student_quantile,
)

Numbers = NDArray[np.float64]


def outcome(per_seed_and_sample: Numbers) -> Outcome:
    """Return the outcome of scores (seeds, samples) whose metric is the mean over samples."""
    rows = dict(enumerate(per_seed_and_sample))
    return Outcome(values={seed: float(row.mean()) for seed, row in rows.items()}, per_sample=rows)


def test_the_interval_of_a_mean_is_that_of_students_t_table() -> None:
    # sd of 1, 2, 3 is 1; t(2) at 97.5 % is 4.303 in every printed table
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(4.303 / math.sqrt(3), abs=5e-4)
    assert found.n == 3


def test_one_seed_has_a_mean_and_no_interval() -> None:
    found = estimate([0.9])
    assert (found.mean, found.half_width, found.n) == (0.9, None, 1)
    assert "one seed" in found.reason


def test_seeds_that_agree_to_the_last_digit_make_no_interval_of_width_zero() -> None:
    found = estimate([0.9, 0.9, 0.9])
    assert found.mean == 0.9
    assert found.half_width is None
    assert "same value" in found.reason


def test_no_seed_has_no_mean() -> None:
    assert estimate([]).mean is None


def test_the_smallest_difference_adds_the_seed_part_and_the_sample_part_in_squares() -> None:
    # two seeds, four samples; differences per seed 0.5 and 0.25, per sample 0.5, 1, 0, 0
    first = outcome(np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]]))
    second = outcome(np.array([[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 1.0, 0.0]]))
    found = paired_difference(first, second)
    seed_part = 12.706 * 0.176777 / math.sqrt(2)  # t(1), sd of 0.5 and 0.25
    sample_part = 1.95996 * math.sqrt(0.6875 / 3) / 2  # squares about the mean 0.375 add up to 0.6875
    assert found.value == 0.375
    assert found.seed_part == pytest.approx(seed_part, rel=1e-4)
    assert found.sample_part == pytest.approx(sample_part, rel=1e-4)
    assert found.smallest == pytest.approx(math.hypot(seed_part, sample_part), rel=1e-4)
    assert not found.is_shown
    assert (found.seeds, found.samples) == (2, 4)


def test_only_seeds_that_both_have_are_compared() -> None:
    first = Outcome(values={0: 0.9, 1: 0.8, 2: 0.7})
    second = Outcome(values={1: 0.7, 2: 0.5, 3: 0.1})
    found = paired_difference(first, second)
    assert found.seeds == 2
    assert found.value == pytest.approx(0.15)


def test_one_shared_seed_cannot_be_compared_and_says_so() -> None:
    found = paired_difference(outcome(np.ones((1, 100))), outcome(np.zeros((1, 100))))
    assert found.value == 1.0
    assert found.smallest is None
    assert not found.is_shown
    assert "one shared seed" in found.reason


def test_no_shared_seed_has_no_difference() -> None:
    found = paired_difference(Outcome(values={0: 1.0}), Outcome(values={1: 1.0}))
    assert (found.value, found.smallest) == (None, None)
    assert "no seed" in found.reason


def test_different_test_samples_cannot_be_compared() -> None:
    found = paired_difference(outcome(np.ones((2, 5))), outcome(np.zeros((2, 6))))
    assert found.smallest is None
    assert "test samples differ: 5 and 6" in found.reason


def test_a_metric_that_is_no_mean_over_samples_is_compared_by_seeds_alone() -> None:
    found = paired_difference(Outcome(values={0: 1.0, 1: 1.2}), Outcome(values={0: 0.0, 1: 0.0}))
    assert found.sample_part is None
    assert found.smallest == found.seed_part


def test_without_samples_differences_that_agree_to_the_last_digit_show_nothing() -> None:
    found = paired_difference(Outcome(values={0: 1.0, 1: 1.0}), Outcome(values={0: 0.0, 1: 0.0}))
    assert found.smallest is None
    assert not found.is_shown


def share_told_apart(
    seeds: int, *, shift: float, sd_seed: float, sd_sample: float, sd_both: float, repeats: int = 500
) -> float:
    """Return how often two contestants, `shift` apart, are told apart; real-valued scores on 200 samples."""
    random = np.random.default_rng(seeds)
    told = 0
    for _ in range(repeats):
        difficulty = random.normal(0, 1, 200)
        pair = [
            difficulty
            + random.normal(0, sd_seed, (seeds, 1))
            + random.normal(0, sd_sample, (1, 200))
            + random.normal(0, sd_both, (seeds, 200))
            for _ in range(2)
        ]
        told += paired_difference(outcome(pair[0] + shift), outcome(pair[1])).is_shown
    return told / repeats


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize(
    ("sd_seed", "sd_sample", "sd_both"),
    [(1.0, 0.1, 0.1), (0.05, 1.0, 0.1), (0.0, 0.0, 1.0), (0.1, 1.0, 1.0)],
    ids=["seeds", "samples", "both", "all"],
)
def test_equal_contestants_are_told_apart_in_at_most_one_comparison_in_twenty(
    seeds: int, sd_seed: float, sd_sample: float, sd_both: float
) -> None:
    told = share_told_apart(seeds, shift=0.0, sd_seed=sd_seed, sd_sample=sd_sample, sd_both=sd_both)
    assert told <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 500)  # two standard errors of 500 repeats


def test_of_equal_accuracies_on_few_samples_at_most_one_pair_in_twenty_is_told_apart() -> None:
    random = np.random.default_rng(7)
    told = 0
    for _ in range(500):
        correct = 1 / (1 + np.exp(-random.normal(4.0, 2.5, 360)))
        pair = [outcome((random.random((3, 360)) < correct).astype(float)) for _ in range(2)]
        told += paired_difference(*pair).is_shown
    assert told / 500 <= 0.05


def test_a_difference_well_above_the_smallest_is_usually_found_and_one_well_below_hardly_ever() -> None:
    # Per-seed differences have sd 0.1 * sqrt(2), so a = 2.776 * 0.141 / sqrt(5) = 0.176 on average, and
    # b = 1.96 * sqrt(2 / 200) = 0.196: the smallest difference is about 0.26, the standard error 0.118.
    # A shift of 0.45 lies 1.6 standard errors above it (power 0.94), one of 0.05 far below.
    assert share_told_apart(5, shift=0.45, sd_seed=0.1, sd_sample=1.0, sd_both=0.0) > 0.85
    assert share_told_apart(5, shift=0.05, sd_seed=0.1, sd_sample=1.0, sd_both=0.0) < 0.1


def test_the_p_value_is_the_error_rate_at_which_the_difference_is_just_shown() -> None:
    random = np.random.default_rng(0)
    first, second = (outcome(random.normal(shift, 1, (4, 60))) for shift in (0.3, 0.0))
    found = paired_difference(first, second)
    assert found.p_value is not None
    just = paired_difference(first, second, confidence=1 - found.p_value)
    assert just.smallest == pytest.approx(abs(found.value or 0.0), rel=1e-9)


def test_where_seeds_are_all_there_is_the_p_value_is_that_of_students_test() -> None:
    first, second = np.array([0.9, 0.8, 0.95, 0.7]), np.array([0.7, 0.75, 0.8, 0.72])
    found = paired_difference(Outcome(values=dict(enumerate(first))), Outcome(values=dict(enumerate(second))))
    assert found.p_value == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue, rel=1e-9)


def test_p_values_hold_from_certainty_to_none() -> None:
    assert p_values(0.0, 1.0, 1.0, seeds=3) == pytest.approx(1.0)
    assert p_values(0.0, 0.0, 0.0, seeds=3) == 1
    assert p_values(1e6, 1e-9, 1e-9, seeds=200) == pytest.approx(SMALLEST_P)
    assert p_values([1.0, 2.0], [0.5, 0.5], [0.0, 0.0], seeds=5) == pytest.approx(2 * scipy.stats.t.sf([2, 4], 4))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_means_interval_covers_the_truth_in_95_of_100_experiments_to_a_point(seeds: int) -> None:
    values = np.random.default_rng(seeds).normal(0.9, 0.01, (20_000, seeds))
    means, spreads = values.mean(axis=1), values.std(axis=1, ddof=1)
    found = estimate(values[0].tolist())
    assert found.half_width == pytest.approx(student_quantile(seeds) * spreads[0] / math.sqrt(seeds))
    covered = np.abs(means - 0.9) <= student_quantile(seeds) * spreads / math.sqrt(seeds)
    assert covered.mean() == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_equal_contestants_have_a_p_value_below_5_percent_in_5_of_100_experiments_to_a_point(seeds: int) -> None:
    differences = np.random.default_rng(seeds).normal(0, 1, (20_000, seeds))
    errors = differences.std(axis=1, ddof=1) / math.sqrt(seeds)
    found = p_values(differences.mean(axis=1), errors, np.zeros_like(errors), seeds=seeds)
    assert (found < 0.05).mean() == pytest.approx(0.05, abs=0.01)


def test_so_many_seeds_as_are_said_to_be_needed_show_the_difference_and_one_less_does_not() -> None:
    first, second = [0.90, 0.93, 0.91], [0.89, 0.90, 0.91]
    found = paired_difference(Outcome(values=dict(enumerate(first))), Outcome(values=dict(enumerate(second))))
    assert not found.is_shown
    needed = seeds_needed(found)
    assert needed is not None
    assert found.value is not None
    spread = float(np.std(np.subtract(first, second), ddof=1))

    def smallest(n: int) -> float:
        return student_quantile(n) * spread / math.sqrt(n)

    assert smallest(needed) < found.value <= smallest(needed - 1)


def test_no_number_of_seeds_is_enough_where_the_test_samples_leave_more_room_than_the_difference() -> None:
    random = np.random.default_rng(0)
    noisy = paired_difference(outcome(random.normal(0, 1, (3, 30))), outcome(random.normal(0, 1, (3, 30))))
    assert noisy.sample_part is not None
    assert noisy.sample_part > abs(noisy.value or 0.0)
    assert seeds_needed(noisy) is None
