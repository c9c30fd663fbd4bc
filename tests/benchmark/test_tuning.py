"""Which trials, which are pruned, which choice."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from whitebench.budget import Tuning
from whitebench.errors import WhitebenchError
from whitebench.reading import Direction
from whitebench.space import Choice, FloatRange, IntRange, Space
from whitebench.tuning import Storage, Study, Trial, verdict

SEARCH: dict[str, Space] = {
    "rate": FloatRange(low=1e-3, high=1e-1, log=True),
    "model.depth": IntRange(low=1, high=6),
    "model.kind": Choice(options=("a", "b")),
}


def storage(folder: Path) -> Storage:
    return Storage.of_store(f"sqlite:///{folder}/whitebench.db")


def study(folder: Path, *, name: str = "s", direction: Direction = "higher", allowed: int = 4, **tuning: Any) -> Study:
    return Study(
        storage(folder),
        name,
        search=SEARCH,
        stated={"rate": 0.01, "decay": 0.5},
        tuning=Tuning(**tuning),
        direction=direction,
        allowed=allowed,
    )


def trial(of: Study, number: int, validation: float | None = None, **changes: Any) -> Trial:
    state = "failed" if validation is None else "complete"
    known = {"number": number, "hyperparameters": of.hyperparameters(number), "state": state, "validation": validation}
    return Trial(**{**known, **changes})


def test_a_study_reads_back_what_was_recorded(tmp_path: Path) -> None:
    first = study(tmp_path)
    done = trial(first, 0, 0.7, validation_loss=1.5, curve={1: 0.5, 2: 0.7}, seconds=3.0)
    broken = trial(first, 2, reason="nan: the loss is nan")
    first.record(broken)
    first.record(done)
    for one in (first, study(tmp_path)):
        assert one.trials == [done, broken]
        assert one.owed == [1, 3]


def test_reading_a_study_makes_no_file(tmp_path: Path) -> None:
    assert study(tmp_path).owed == [0, 1, 2, 3]
    assert list(tmp_path.iterdir()) == []


def test_reading_a_study_makes_no_study(tmp_path: Path) -> None:
    other = study(tmp_path, name="other")
    other.record(trial(other, 0, 0.5))
    assert study(tmp_path).owed == [0, 1, 2, 3]
    assert storage(tmp_path).find("s") is None


@pytest.mark.parametrize("sampler", ["quasi-random", "tpe"])
def test_trials_are_the_same_after_any_interruption(tmp_path: Path, sampler: str) -> None:
    tuning: dict[str, Any] = {"sampler": sampler, "seed": 2**31 - 1, "allowed": 14}
    undisturbed = study(tmp_path / "a", **tuning)
    for number in range(14):
        undisturbed.record(trial(undisturbed, number, number % 5 / 5))
    for number in range(14):  # a new process for every trial
        resumed = study(tmp_path / "b", **tuning)
        assert resumed.is_ready(number)
        resumed.record(trial(resumed, number, number % 5 / 5))
    assert [one.hyperparameters for one in undisturbed.trials] == [one.hyperparameters for one in resumed.trials]


def test_quasi_random_trials_do_not_depend_on_how_many_are_allowed(tmp_path: Path) -> None:
    few, many = study(tmp_path, allowed=2), study(tmp_path, allowed=64)
    assert [few.hyperparameters(number) for number in range(2)] == [many.hyperparameters(number) for number in range(2)]


def test_tpe_waits_for_every_trial_of_lower_number(tmp_path: Path) -> None:
    tpe = study(tmp_path, sampler="tpe")
    assert (tpe.is_ready(0), tpe.is_ready(1)) == (True, False)
    tpe.record(trial(tpe, 0, 0.5))
    assert tpe.is_ready(1)


def test_what_is_not_searched_keeps_its_stated_value(tmp_path: Path) -> None:
    assert study(tmp_path).hyperparameters(0)["decay"] == 0.5


@pytest.mark.parametrize(
    ("direction", "outcomes", "winner"),
    [
        ("higher", [(0.5, 1.0), (0.9, 1.0), (0.7, 1.0)], 1),
        ("lower", [(0.5, 1.0), (0.9, 1.0), (0.7, 1.0)], 0),
        ("higher", [(0.9, 1.0), (0.9, 0.5), (0.9, 0.5)], 1),  # equal: the lower loss, then the lower number
    ],
)
def test_the_best_on_validation_is_chosen(
    tmp_path: Path, direction: Direction, outcomes: list[tuple[float, float]], winner: int
) -> None:
    one = study(tmp_path, direction=direction, allowed=len(outcomes))
    for number, (validation, loss) in reversed(list(enumerate(outcomes))):
        one.record(trial(one, number, validation, validation_loss=loss, seconds=2.0))
    chosen = one.choose()
    assert (chosen.trial, chosen.validation) == (winner, outcomes[winner][0])
    assert chosen.hyperparameters == one.hyperparameters(winner)
    assert (chosen.trials_complete, chosen.tuning_seconds) == (3, 6.0)
    assert chosen.digest == study(tmp_path, direction=direction, allowed=3).choose().digest


def test_without_trials_the_recipes_stated_values_are_chosen(tmp_path: Path) -> None:
    chosen = study(tmp_path, allowed=0).choose()
    assert (chosen.trial, dict(chosen.hyperparameters)) == (None, {"rate": 0.01, "decay": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_a_study_without_a_complete_trial_has_no_choice_and_says_why(tmp_path: Path) -> None:
    one = study(tmp_path, allowed=2)
    one.record(trial(one, 0, reason="oom: out of memory"))
    one.record(trial(one, 1, reason="killed: by SIGKILL"))
    with pytest.raises(
        WhitebenchError, match="none of the 2 tuning trials completed; the first said: oom: out of memory"
    ):
        one.choose()
    one.start_over()
    assert (one.owed, study(tmp_path, allowed=2).owed) == ([0, 1], [0, 1])


PRUNING = Tuning(pruning="median", pruning_from_trial=2, pruning_from_epoch=2)


def decide(number: int, epoch: int, curves: dict[int, dict[int, float]], ended: tuple[int, ...] = ()) -> str | None:
    return verdict(PRUNING, direction="higher", number=number, epoch=epoch, curves=curves, ended=ended)


@pytest.mark.parametrize(
    ("mine", "answer"),
    [
        ({1: 0.1, 2: 0.49}, "prune"),  # the median of 0.4, 0.5 and 0.9 is 0.5
        ({1: 0.1, 2: 0.5}, "go"),
        ({1: 0.6, 2: 0.1}, "go"),  # its best epoch counts
    ],
)
def test_a_trial_is_pruned_where_its_best_is_worse_than_the_median(mine: dict[int, float], answer: str) -> None:
    lower = {0: {1: 0.3, 2: 0.4}, 1: {1: 0.3, 2: 0.5}, 2: {1: 0.3, 2: 0.9}}
    assert decide(3, 2, {**lower, 3: mine}) == answer


def test_early_trials_and_early_epochs_are_never_pruned() -> None:
    best = {1: 0.9, 2: 0.9}
    assert decide(1, 2, {0: best, 1: {1: 0.0, 2: 0.0}}) == "go"
    assert decide(2, 1, {0: best, 1: best, 2: {1: 0.0}}) == "go"
    assert verdict(Tuning(), direction="higher", number=9, epoch=9, curves={}, ended=()) == "go"


def test_a_verdict_waits_for_lower_trials_and_never_for_higher_ones() -> None:
    curves = {0: {1: 0.5, 2: 0.5}, 1: {1: 0.5}, 2: {1: 0.1, 2: 0.1}}
    assert decide(2, 2, curves) is None
    assert decide(2, 2, curves, ended=(1,)) == "prune"  # trial 1 failed in its second epoch: only trial 0 counts
    assert decide(2, 2, {**curves, 1: {1: 0.5, 2: 0.05}, 3: {1: 1.0, 2: 1.0}}) == "prune"


@pytest.mark.parametrize("shuffle", range(20))
def test_the_verdicts_are_those_of_sequential_order_whatever_the_order_of_arrival(shuffle: int) -> None:
    """Six trials of five epochs, some of which fail, told in a random order; each goes on as its verdict says."""
    draw = random.Random(11)
    values = {number: {epoch: draw.random() for epoch in range(1, 6)} for number in range(6)}
    fails_after = {1: 3, 4: 2}
    order = random.Random(shuffle)
    assert arrive(values, fails_after, order) == arrive(values, fails_after, None)


def arrive(
    values: dict[int, dict[int, float]], fails_after: dict[int, int], order: random.Random | None
) -> dict[int, list[str]]:
    curves: dict[int, dict[int, float]] = {}
    ended: list[int] = []
    said: dict[int, list[str]] = {number: [] for number in values}
    undecided: set[int] = set()
    while len(ended) < len(values):
        running = [number for number in values if number not in ended and number not in undecided]
        running = running[:1] if order is None else running[:3]  # one at a time, or three
        if running:
            number = running[0] if order is None else order.choice(running)
            epoch = len(curves.get(number, {})) + 1
            if epoch == fails_after.get(number, 9) + 1:
                ended.append(number)
            else:
                curves.setdefault(number, {})[epoch] = values[number][epoch]
                undecided.add(number)
        for number in sorted(undecided):
            if answer := decide(number, len(curves[number]), curves, tuple(ended)):
                undecided.discard(number)
                said[number].append(answer)
                if answer == "prune" or len(curves[number]) == 5:
                    ended.append(number)
    return said
