"""One contestant on one task: its trials, its choice, its cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from whitebench.catalog import Catalog
from whitebench.contest import Contest, open_contests, trials_owed
from whitebench.events import EpochEnded
from whitebench.fit import Answer, Fitted, Outcome
from whitebench.ledger import plan_cells
from whitebench.provenance import Provenance
from whitebench.result import Failure, FailureKind
from whitebench.suite import Suite, load_suite
from whitebench.tuning import Storage

WriteSuite = Callable[..., Path]
PRUNING = 'pruning = "median"\npruning_from_trial = 1\npruning_from_epoch = 1'
PROVENANCE = Provenance(
    commit=None, is_dirty=None, distributions={}, python="", torch="", cuda=None, platform="", device="", threads=1,
    precision="32", seed=0, started="",
)  # fmt: skip


def opened(suite: Suite, catalog: Catalog, folder: Path) -> list[Contest]:
    return open_contests(suite, plan_cells(suite, catalog), catalog, storage(folder), "lower")


def storage(folder: Path) -> Storage:
    return Storage.of_store(f"sqlite:///{folder}/whitebench.db")


def begin_trials(contest: Contest) -> list[int]:
    begun = contest.startable_trials
    for number in begun:
        contest.begin_trial(number)
    return begun


def fitted(validation: float) -> Fitted:
    return Fitted(
        reported_epoch=1, validation=validation, validation_loss=1.0, training_seconds=1.0, provenance=PROVENANCE
    )


def finish(contest: Contest, number: int, outcome: Outcome, folder: Path) -> None:
    contest.trial_ended(number, contest.trial_plan(number, plugins=[], work=folder), outcome, seconds=1.0)


def epoch(number: int, validation: float) -> EpochEnded:
    return EpochEnded(
        fit="", purpose="trial", epoch=number, epochs=2, validation=validation, train_loss=0.0, validation_loss=0.0,
        learning_rate=0.0, gradient_norm=0.0, seconds=0.0,
    )  # fmt: skip


def test_no_cell_starts_before_every_trial_has_ended_and_there_is_a_choice(
    write_suite: WriteSuite, catalog: Catalog, tmp_path: Path
) -> None:
    [contest] = opened(load_suite(str(write_suite(trials=2))), catalog, tmp_path)
    assert begin_trials(contest) == [0, 1]
    for number, validation in ((1, 0.2), (0, 0.3)):
        assert (contest.is_tuned, contest.startable_cells) == (False, [])
        finish(contest, number, fitted(validation), tmp_path)
    assert contest.is_tuned
    contest.chosen = contest.study.choose()
    assert contest.chosen.trial == 1
    assert [cell.name.seed for cell in contest.startable_cells] == [0, 1]


def test_a_fit_is_told_whose_plugins_bring_what_it_trains_and_measures(
    write_suite: WriteSuite, catalog: Catalog, plugin: Path, tmp_path: Path
) -> None:
    [contest] = opened(load_suite(str(write_suite(trials=1))), catalog, tmp_path)
    assert begin_trials(contest) == [0]
    trial = contest.trial_plan(0, plugins=[plugin], work=tmp_path)
    finish(contest, 0, fitted(0.1), tmp_path)
    contest.chosen = contest.study.choose()
    cell = contest.cell_plan(contest.waiting_cells[0], plugins=[plugin], work=tmp_path)
    expected = [str(plugin), "whitebench_metrics", "whitebench_objectives"]  # blobs, accuracy, cross-entropy
    assert trial.owners == cell.owners == expected


def test_trials_and_cells_of_other_identities_never_share_a_folder(
    write_suite: WriteSuite, catalog: Catalog, tmp_path: Path
) -> None:
    # Two labels for the same thing have one identity; run at the same time they would overwrite each other.
    twins = "\n".join(f'[[contestants]]\nlabel = "{label}"\nmodel = "tiny"' for label in ("one", "other"))
    one, other = opened(load_suite(str(write_suite(contestants=twins, trials=1))), catalog, tmp_path)
    folders = set()
    for contest in (one, other):
        folders.add(contest.trial_plan(0, plugins=[], work=tmp_path).folder)
        begin_trials(contest)
        finish(contest, 0, fitted(0.1), tmp_path)
        contest.chosen = contest.study.choose()
        for cell in contest.waiting_cells:
            folders.add(contest.cell_plan(cell, plugins=[], work=tmp_path).folder)
    assert len(folders) == 6


def test_every_contestant_is_tried_at_the_same_points_of_the_recipe(
    write_suite: WriteSuite, catalog: Catalog, tmp_path: Path
) -> None:
    plain, searching = opened(load_suite(str(write_suite("tiny", "searching", trials=4))), catalog, tmp_path)
    for number in range(4):
        theirs = searching.trial_plan(number, plugins=[], work=tmp_path).hyperparameters
        ours = plain.trial_plan(number, plugins=[], work=tmp_path).hyperparameters
        assert theirs["learning_rate"] == ours["learning_rate"]
        assert set(theirs) - set(ours) == {"model.rate"}


def test_a_verdict_is_told_as_soon_as_it_is_known_and_not_before(
    write_suite: WriteSuite, catalog: Catalog, tmp_path: Path
) -> None:
    [contest] = opened(load_suite(str(write_suite(trials=3, tuning=PRUNING))), catalog, tmp_path)
    answers: dict[int, Answer] = {}
    begin_trials(contest)
    for number, validation in ((2, 0.3), (1, 0.9)):  # `error`: lower is better
        contest.trial_told(number, epoch(1, validation), lambda answer, number=number: answers.update({number: answer}))  # type: ignore[misc]
    assert answers == {}
    contest.trial_told(0, epoch(1, 0.5), lambda answer: answers.update({0: answer}))
    assert answers == {0: "go", 1: "prune", 2: "go"}


def test_a_trial_that_fails_lets_those_that_wait_for_it_go_on(
    write_suite: WriteSuite, catalog: Catalog, tmp_path: Path
) -> None:
    [contest] = opened(load_suite(str(write_suite(trials=2, tuning=PRUNING))), catalog, tmp_path)
    answers: list[Answer] = []
    begin_trials(contest)
    contest.trial_told(1, epoch(1, 0.9), answers.append)
    assert answers == []
    finish(contest, 0, Failure(kind=FailureKind.OOM, message="too big"), tmp_path)
    assert answers == ["go"]
    assert contest.study.trials[0].reason == "oom: too big"


def test_a_trial_that_dies_while_it_waits_is_answered_no_more(
    write_suite: WriteSuite, catalog: Catalog, tmp_path: Path
) -> None:
    [contest] = opened(load_suite(str(write_suite(trials=2, tuning=PRUNING))), catalog, tmp_path)
    begin_trials(contest)

    def never(_: Answer) -> None:
        raise AssertionError("answered a dead fit")

    contest.trial_told(1, epoch(1, 0.9), never)
    finish(contest, 1, Failure(kind=FailureKind.KILLED, message="by SIGKILL"), tmp_path)
    finish(contest, 0, fitted(0.1), tmp_path)
    assert [trial.state for trial in contest.study.trials] == ["complete", "failed"]


def test_what_another_conductor_has_done_is_seen_and_not_done_again(
    write_suite: WriteSuite, catalog: Catalog, tmp_path: Path
) -> None:
    suite = load_suite(str(write_suite(trials=3, tuning=PRUNING)))
    [mine], [theirs] = opened(suite, catalog, tmp_path), opened(suite, catalog, tmp_path)
    answers: list[Answer] = []
    mine.begin_trial(1)
    mine.trial_told(1, epoch(1, 0.9), answers.append)
    assert (mine.undecided(), answers) == ([1], [])
    theirs.begin_trial(0)
    theirs.trial_told(0, epoch(1, 0.5), lambda _: None)
    finish(theirs, 0, fitted(0.5), tmp_path)
    assert mine.waiting_trials == [0, 2]
    assert [trial.number for trial in mine.catch_up()] == [0]
    assert (mine.waiting_trials, mine.undecided(), answers) == ([2], [], ["prune"])
    assert mine.study.trials[0].epochs == (epoch(1, 0.5),)


def test_trials_owed_are_counted_per_contestant_and_task_and_reading_makes_no_file(
    write_suite: WriteSuite, catalog: Catalog, tmp_path: Path
) -> None:
    suite = load_suite(str(write_suite("tiny", "searching", trials=3)))
    cells = plan_cells(suite, catalog)
    assert trials_owed(suite, cells, catalog, storage(tmp_path / "empty")) == {"tiny/blobs": 3, "searching/blobs": 3}
    assert not (tmp_path / "empty").exists()
    contest, _ = opened(suite, catalog, tmp_path)
    contest.begin_trial(0)
    finish(contest, 0, fitted(0.1), tmp_path)
    assert trials_owed(suite, cells, catalog, storage(tmp_path)) == {"tiny/blobs": 2, "searching/blobs": 3}


def test_an_option_that_the_contestants_name_pins_is_not_tuned_away(
    write_suite: WriteSuite, catalog: Catalog, tmp_path: Path
) -> None:
    suite = load_suite(str(write_suite("searching[rate=0.2]", "searching", trials=4)))
    pinned, free = opened(suite, catalog, tmp_path)
    points = [pinned.trial_plan(n, plugins=[], work=tmp_path).hyperparameters for n in range(4)]
    assert all("model.rate" not in point for point in points)
    assert all("model.rate" in free.study.hyperparameters(n) for n in range(4))
    assert pinned.waiting_cells[0].identity != free.waiting_cells[0].identity  # though 0.2 is the default
