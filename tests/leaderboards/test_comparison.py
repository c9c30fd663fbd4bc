"""Many entries compared at once: as one pair is, corrected as another library does, and right as often as promised."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from whitebench_leaderboards.comparison import Comparisons, compare_all
from whitebench_leaderboards.statistics import Outcome, paired_difference

Numbers = NDArray[np.float64]


def outcomes(*, entries: int, seeds: int, samples: int, seed: int = 0) -> dict[str, Outcome]:
    """Return entries of random scores, each a mean over test samples that are harder for all alike."""
    random = np.random.default_rng(seed)
    difficulty = random.normal(0, 1, samples)
    scores = [
        difficulty + random.normal(0, 0.3, (seeds, 1)) + random.normal(0, 1, (seeds, samples)) for _ in range(entries)
    ]
    return {
        f"entry-{i}": Outcome(
            values={s: float(row.mean()) for s, row in enumerate(one)}, per_sample=dict(enumerate(one))
        )
        for i, one in enumerate(scores)
    }


def assert_as_pairs(found: Comparisons, given: Mapping[str, Outcome]) -> None:
    for first, second in permutations(given, 2):
        expected, one = paired_difference(given[first], given[second]), found.difference(first, second)
        assert one is not None
        assert (one.seeds, one.samples, one.reason) == (expected.seeds, expected.samples, expected.reason)
        for name in ("value", "smallest", "seed_part", "sample_part", "p_value"):
            wanted, got = getattr(expected, name), getattr(one, name)
            assert got is None if wanted is None else got == pytest.approx(wanted, rel=1e-9, abs=1e-15), name


def test_all_at_once_are_compared_as_one_pair_is() -> None:
    given = outcomes(entries=5, seeds=4, samples=50)
    assert_as_pairs(compare_all(given), given)


def test_entries_of_unlike_seeds_or_samples_are_compared_pair_by_pair() -> None:
    whole = outcomes(entries=4, seeds=4, samples=50)
    few = Outcome(
        values={s: whole["entry-1"].values[s] for s in (1, 2)},
        per_sample={s: whole["entry-1"].per_sample[s] for s in (1, 2)},
    )
    given = {**whole, "entry-1": few, "blind": Outcome(values=whole["entry-2"].values), "one": Outcome(values={0: 1.0})}
    assert_as_pairs(compare_all(given), given)


def test_without_samples_seeds_that_agree_in_every_difference_show_nothing() -> None:
    given = {name: Outcome(values={0: value, 1: value + 1}) for name, value in (("a", 1.0), ("b", 0.5), ("c", 0.0))}
    found = compare_all(given)
    assert_as_pairs(found, given)
    assert found.ranks(is_lower_better=False) == [(1, 3)] * 3


def test_p_values_are_corrected_within_an_entrys_family_as_statsmodels_does() -> None:
    found = compare_all(outcomes(entries=7, seeds=3, samples=40))
    for own, corrected in zip(found.p_value, found.corrected, strict=True):
        is_known = ~np.isnan(own)
        assert is_known.sum() == 6
        assert corrected[is_known] == pytest.approx(multipletests(own[is_known], method="holm")[1], rel=1e-12)


def test_entries_that_are_equal_to_the_last_digit_share_a_rank() -> None:
    (first,), (far,) = (list(outcomes(entries=1, seeds=3, samples=40, seed=seed).values()) for seed in (0, 1))
    low = Outcome(
        values={seed: value - 50 for seed, value in far.values.items()},
        per_sample={seed: samples - 50 for seed, samples in far.per_sample.items()},
    )
    found = compare_all({"a": first, "b": first, "low": low})
    assert found.p_value[0, 1] == 1
    assert found.ranks(is_lower_better=False) == [(1, 2), (1, 2), (3, 3)]
    assert found.ranks(is_lower_better=True) == [(2, 3), (2, 3), (1, 1)]


def test_an_entry_nobody_can_be_compared_with_has_every_rank() -> None:
    found = compare_all({"a": Outcome(values={0: 0.9}), "b": Outcome(values={0: 0.1})})
    assert found.ranks(is_lower_better=False) == [(1, 2), (1, 2)]
    assert found.against_better("b", is_lower_better=False) is None


def test_nobody_and_one_have_no_comparisons() -> None:
    assert compare_all({}).ranks(is_lower_better=False) == []
    assert compare_all({"a": Outcome(values={0: 1.0, 1: 2.0})}).ranks(is_lower_better=False) == [(1, 1)]


def worlds(means: list[float], *, seeds: int, repeats: int) -> list[Comparisons]:
    """Return the comparisons of repeated experiments, in which the seeds' scores are normal about the true means."""
    random = np.random.default_rng(1)
    draws = np.array(means)[:, None] + random.normal(0, 1, (repeats, len(means), seeds))
    return [
        compare_all({str(i): Outcome(values=dict(enumerate(row))) for i, row in enumerate(one.tolist())})
        for one in draws
    ]


@pytest.mark.parametrize("means", [[0.0] * 8, [0.0, 0.0, 0.0, 3.0, 3.0, 6.0]], ids=["equal", "in groups"])
def test_a_rank_range_holds_at_least_as_often_as_promised_and_so_does_the_set_of_the_best(means: list[float]) -> None:
    repeats = 400
    better = [sum(other > mean for other in means) for mean in means]  # of equal entries each may have any rank
    worse = [sum(other < mean for other in means) for mean in means]
    best = better.index(0)  # or one of those that are as good
    covered, kept = np.zeros(len(means)), 0
    for one in worlds(means, seeds=5, repeats=repeats):
        ranks = one.ranks(is_lower_better=False)
        covered += [
            low <= 1 + up and high >= len(means) - down
            for (low, high), up, down in zip(ranks, better, worse, strict=True)
        ]
        kept += ranks[best][0] == 1
    noise = 2 * np.sqrt(0.05 * 0.95 / repeats)
    assert (covered / repeats > 0.95 - noise).all()
    assert kept / repeats > 0.95 - noise


def test_without_the_correction_many_equal_entries_would_often_be_told_from_the_best() -> None:
    found = worlds([0.0] * 8, seeds=5, repeats=400)
    alone = np.mean([((one.p_value[0] < 0.05) & (one.value[0] < 0)).any() for one in found])
    corrected = np.mean([one.ranks(is_lower_better=False)[0][0] > 1 for one in found])
    assert alone > 0.08
    assert corrected < 0.05


def test_ranks_follow_the_direction() -> None:
    given = {
        "low": Outcome(values={0: 0.1, 1: 0.11, 2: 0.12}),
        "high": Outcome(values={0: 0.9, 1: 0.92, 2: 0.91}),
    }
    assert compare_all(given).ranks(is_lower_better=False) == [(2, 2), (1, 1)]
    assert compare_all(given).ranks(is_lower_better=True) == [(1, 1), (2, 2)]
    assert compare_all(given).against_better("high", is_lower_better=False) is None
    behind = compare_all(given).against_better("low", is_lower_better=False)
    assert behind is not None
    assert behind < 0.05
