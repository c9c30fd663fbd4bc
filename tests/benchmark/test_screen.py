"""What a person sees while a suite runs."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from whitebench import events
from whitebench.events import (
    CellFailed,
    CellFinished,
    EpochEnded,
    Event,
    FitLost,
    FitStarted,
    SuiteEnded,
    SuiteStarted,
    TrialEnded,
)
from whitebench.progress import Progress
from whitebench.reading import Direction
from whitebench.screen import Screen, duration, shortened, watch

CRATE = "crate[dim=64,depth=4,heads=4,patch=2,eta=0.1]"
HEADING = "Suite smoke version 1: two [bold] models"


def epoch(fit: str, number: int, validation: float) -> EpochEnded:
    return EpochEnded(
        fit=fit, purpose="trial" if "trial" in fit else "cell", epoch=number, epochs=10, validation=validation,
        train_loss=1.0, validation_loss=1.0, learning_rate=0.1, gradient_norm=1.0, seconds=1.0,
    )  # fmt: skip


STARTED = SuiteStarted(
    suite="smoke",
    cells=("smoke/vit/digits/0", "smoke/vit/digits/1", f"smoke/{CRATE}/digits/0", f"smoke/{CRATE}/digits/1"),
    done=("smoke/plain/digits/0",),
    trials_owed={"smoke/vit/digits": 0, f"smoke/{CRATE}/digits": 2},
)
STORY: tuple[Event, ...] = (
    STARTED,
    FitStarted(fit=f"smoke/{CRATE}/digits/trial-1", purpose="trial", pid=7),
    FitStarted(fit="smoke/vit/digits/0", purpose="cell", pid=8),
    FitStarted(fit="smoke/vit/digits/1", purpose="cell", pid=9),
    epoch(f"smoke/{CRATE}/digits/trial-1", 1, 0.5),
    TrialEnded(fit=f"smoke/{CRATE}/digits/trial-1", state="pruned", validation=None),
    epoch("smoke/vit/digits/0", 1, 0.7),
    epoch("smoke/vit/digits/0", 2, 0.6),
    events.TestOpened(cell="smoke/vit/digits/0", openings=1),
    CellFinished(cell="smoke/vit/digits/0", primary=0.65, run_id="r"),
    CellFailed(cell="smoke/vit/digits/1", kind="oom", message="too big"),
)


def told(*heard: Event, direction: Direction = "higher") -> Progress:
    progress = Progress(trials=3, epochs=10, parallel=2, direction=direction)
    for event in heard:
        progress.hear(event)
    return progress


def shown(width: int, *heard: Event, height: int = 30, **terminal: bool) -> str:
    console = Console(width=width, height=height, file=io.StringIO(), **{"no_color": True, **terminal})  # type: ignore[arg-type]
    progress = told(*heard)
    console.print(Screen(progress, console, primary="accuracy", heading=HEADING).render())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_cell_knows_how_far_it_is() -> None:
    lines = told(*STORY).lines
    assert {name: line.state for name, line in lines.items()} == {
        "smoke/plain/digits/0": "done",
        "smoke/vit/digits/0": "done",
        "smoke/vit/digits/1": "failed: oom",
        f"smoke/{CRATE}/digits/0": "tuning 2/3",
        f"smoke/{CRATE}/digits/1": "tuning 2/3",
    }
    assert [line.best for line in lines.values()] == [None, 0.7, None, 0.5, 0.5]
    assert lines["smoke/vit/digits/0"].test == 0.65


def test_the_best_is_the_lowest_where_lower_is_better() -> None:
    assert told(*STORY, direction="lower").lines["smoke/vit/digits/0"].best == 0.6


@pytest.mark.parametrize(
    ("heard", "state"),
    [
        (STORY[:3], "epoch 0/10"),
        (STORY[:7], "epoch 1/10"),
        (STORY[:9], "testing"),
    ],
)
def test_a_cells_own_fit_goes_from_epoch_to_epoch_to_its_test(heard: tuple[Event, ...], state: str) -> None:
    assert told(*heard).lines["smoke/vit/digits/0"].state == state


def test_time_left_is_what_the_epochs_that_are_left_take_at_the_speed_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress = told(STARTED)
    before = progress.seconds_left
    assert before is None
    for event in STORY[1:5]:
        progress.hear(event)
    clock[0] += 2.0
    assert progress.seconds_left == 2.0 * (4 * 10 + 2 * 10 - 1)  # one epoch in two seconds
    progress.hear(STORY[5])  # pruned: its other nine are not owed any more
    assert progress.seconds_left == 2.0 * (4 * 10 + 1 * 10)


def test_a_fit_that_was_lost_is_owed_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [
        FitLost(fit=f"smoke/{CRATE}/digits/trial-1", purpose="trial", reason="node 7 died"),
        FitLost(fit="smoke/vit/digits/0", purpose="cell", reason="node 7 died"),
    ]
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress = told(*STORY[:3], epoch(f"smoke/{CRATE}/digits/trial-1", 1, 0.5), *lost)
    assert progress.lines["smoke/vit/digits/0"].state == "waiting"
    clock[0] += 2.0
    assert progress.seconds_left == 2.0 * (4 * 10 + 2 * 10)
    again = told(*STORY[:3], *lost, *STORY[1:3])
    assert again.lines["smoke/vit/digits/0"].state == "epoch 0/10"


def test_where_there_is_no_terminal_a_line_says_what_was_lost_and_where_no_process_is_none_is_named() -> None:
    screen = Screen(told(STARTED), Console(file=io.StringIO()), primary="accuracy", heading=HEADING, is_live=False)
    afar = FitStarted(fit="smoke/vit/digits/0", purpose="cell", pid=None)
    assert screen.line(afar) == "smoke/vit/digits/0: started"
    lost = FitLost(fit="smoke/vit/digits/0", purpose="cell", reason="node 7 died")
    assert screen.line(lost) == "smoke/vit/digits/0: lost and to be started again: node 7 died"


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_its_terminal_and_every_line_tells_its_seed(width: int) -> None:
    text = shown(width, *STORY)
    assert all(len(line) <= width for line in text.splitlines())
    assert HEADING in text
    for state in ("done", "failed: oom", "tuning 2/3", "0.7000", "0.6500"):
        assert state in text
    assert len(re.findall(r"digits/[01]\b", text)) == 5
    assert (f"{CRATE}/digits/1" in text) is (width == 200)
    assert "2 of 5 cells done, 1 failed, about " in text


def test_a_terminal_of_few_lines_shows_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(80, STARTED, *STORY[1:3], height=10)
    assert "vit/digits/0" in text
    assert len(text.splitlines()) <= 10
    many = SuiteStarted(
        suite="s", cells=tuple(f"s/m/t/{seed}" for seed in range(40)), done=(), trials_owed={"s/m/t": 0}
    )
    text = shown(80, many, FitStarted(fit="s/m/t/33", purpose="cell", pid=1), height=20)
    assert "m/t/33" in text
    assert "… and 26 more cells" in text


@pytest.mark.parametrize("no_color", [True, False])
def test_without_colour_there_is_none(*, no_color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    text = shown(100, *STORY, force_terminal=True, no_color=no_color)
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", text)) is not no_color


def test_where_there_is_no_terminal_events_are_lines() -> None:
    console = Console(file=io.StringIO(), width=80)
    progress = Progress(trials=3, epochs=10, parallel=2, direction="higher")
    with watch(progress, console, primary="accuracy", heading=HEADING) as screen:
        for event in STORY:
            screen.hear(event)
        screen.hear(SuiteEnded(suite="smoke", finished=1, failed=1, is_interrupted=False, seconds=2.0))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == f"{HEADING}: cells to do: 4, done: 1, trials owed: 2"
    assert lines[1:4] == [
        "smoke/vit/digits/0: started (process 8)",
        "smoke/vit/digits/1: started (process 9)",
        f"smoke/{CRATE}/digits/trial-1: pruned",
    ]
    assert lines[4].startswith("smoke/vit/digits/0: done, test accuracy 0.6500 — 2 of 5 cells done, about ")
    assert lines[5:] == ["smoke/vit/digits/1: failed: oom: too big"]


def test_on_a_terminal_the_table_stays_when_all_is_over() -> None:
    console = Console(file=io.StringIO(), width=100, height=30, force_terminal=True)
    progress = Progress(trials=3, epochs=10, parallel=2, direction="higher")
    with watch(progress, console, primary="accuracy", heading=HEADING) as screen:
        for event in STORY:
            screen.hear(event)
    assert isinstance(console.file, io.StringIO)
    assert "failed: oom" in console.file.getvalue().rpartition("Suite smoke")[2]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_long_name_loses_its_middle_and_keeps_its_seed() -> None:
    assert shortened("vit/digits/0", 22) == "vit/digits/0"
    assert shortened(f"{CRATE}/digits/12", 22) == "crate[dim=6…/digits/12"
