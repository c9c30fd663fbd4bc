"""What k trials buy, against every way of drawing them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from whitebench_leaderboards.tuning import does_ranking_depend_on_budget, leaders_by_budget, tuning_curve

SCORES = [0.91, 0.85, 0.97, 0.6, 0.93]


def test_the_expected_best_of_k_is_the_mean_over_all_ways_of_drawing_k_trials() -> None:
    curve = tuning_curve("a", "digits", SCORES)
    assert curve is not None
    for k, expected in enumerate(curve.expected, start=1):
        assert expected == pytest.approx(np.mean([max(drawn) for drawn in combinations(SCORES, k)]))


def test_where_less_is_better_the_best_is_the_least() -> None:
    curve = tuning_curve("a", "digits", SCORES, is_lower_better=True)
    assert curve is not None
    for k, expected in enumerate(curve.expected, start=1):
        assert expected == pytest.approx(np.mean([min(drawn) for drawn in combinations(SCORES, k)]))
    assert all(low <= middle <= high for low, middle, high in zip(curve.low, curve.expected, curve.high, strict=True))


def test_the_band_holds_the_best_of_k_in_nine_of_ten_draws() -> None:
    scores = np.random.default_rng(0).random(40)
    curve = tuning_curve("a", "digits", scores.tolist())
    assert curve is not None
    random = np.random.default_rng(1)
    for k in (1, 5, 20):
        drawn = [random.choice(scores, k, replace=False).max() for _ in range(2000)]
        held = np.mean([curve.low[k - 1] <= one <= curve.high[k - 1] for one in drawn])
        assert 0.88 < held <= 1.0
    assert curve.low[-1] == curve.high[-1] == curve.expected[-1] == scores.max()


def test_a_trial_that_was_pruned_was_spent_and_counts_as_the_worst() -> None:
    curve = tuning_curve("a", "digits", [0.9, 0.8], lost=2)
    assert curve is not None
    assert (curve.trials, curve.lost) == (4, 2)
    assert curve.expected[0] == pytest.approx((0.9 + 3 * 0.8) / 4)
    assert curve.expected[-1] == pytest.approx(0.9)


def test_without_a_trial_that_ran_to_its_end_there_is_no_curve() -> None:
    assert tuning_curve("a", "digits", [], lost=3) is None


def test_who_leads_may_depend_on_the_budget_and_is_said() -> None:
    steady, lucky = (
        tuning_curve("steady", "digits", [0.8, 0.81, 0.82]),
        tuning_curve("lucky", "digits", [0.5, 0.6, 0.9]),
    )
    assert steady is not None
    assert lucky is not None
    # Expected: 0.81, 0.817, 0.82 against 0.667, 0.8, 0.9.
    assert leaders_by_budget([steady, lucky]) == [(range(1, 3), "steady"), (range(3, 4), "lucky")]
    assert does_ranking_depend_on_budget({"digits": [steady, lucky]}, is_lower_better=False) == [
        "On digits the best validation score to be expected is that of steady with 1 to 2 trials, lucky with 3 trials."
    ]
    assert does_ranking_depend_on_budget({"digits": [steady]}, is_lower_better=False) == []
