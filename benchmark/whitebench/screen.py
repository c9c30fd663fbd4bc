"""What a person sees while a suite runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from whitebench.events import (
    CellFailed,
    CellFinished,
    CellHeld,
    Event,
    FitLost,
    FitStarted,
    SuiteStarted,
    TrialEnded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from whitebench.progress import Line, Progress

STYLE_BY_WORD = {
    "done": "green",
    "failed": "bold red",
    "waiting": "dim",
    "tuning": "cyan",
    "tuned": "cyan",
    "elsewhere": "blue",
}

OTHER_COLUMNS = 58
"""What the columns beside the cell's name take of a line at most."""


@contextmanager
def watch(
    progress: Progress, console: Console, *, primary: str, heading: str, is_live: bool = True
) -> Iterator[Screen]:
    """Show `progress` on `console` while the body runs: live on a terminal, unless that is wanted for itself."""
    if console.is_terminal and is_live:
        screen = Screen(progress, console, primary=primary, heading=heading)
        with Live(
            console=console,
            get_renderable=screen.render,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield screen
    else:
        yield Screen(progress, console, primary=primary, heading=heading, is_live=False)


class Screen:
    """Turns progress into a table, or events into lines."""

    def __init__(
        self, progress: Progress, console: Console, *, primary: str, heading: str, is_live: bool = True
    ) -> None:
        self.progress, self.console, self.primary, self.heading = progress, console, primary, heading
        self.is_live = is_live

    def hear(self, event: Event) -> None:
        """Take in an event and, where there is no live table, print a line for it."""
        self.progress.hear(event)
        if not self.is_live and (line := self.line(event)):
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def render(self) -> RenderableType:
        """Return the table as it stands."""
        table = Table(box=None, pad_edge=False)
        table.add_column("cell", no_wrap=True)
        table.add_column("state", no_wrap=True, min_width=14)
        table.add_column(f"best validation {self.primary}", justify="right", max_width=14)
        table.add_column(f"test {self.primary}", justify="right", max_width=10)
        table.add_column("time", justify="right", no_wrap=True)
        shown = self._visible()
        for name, line in shown:
            word = line.state.split(",")[0].split(":")[0].split()[0]
            table.add_row(
                Text(shortened(name.partition("/")[2], self.console.width - OTHER_COLUMNS)),
                Text(line.state, style=STYLE_BY_WORD.get(word, "yellow")),
                "" if line.best is None else f"{line.best:.4f}",
                "" if line.test is None else f"{line.test:.4f}",
                self._time(line),
            )
        hidden = len(self.progress.lines) - len(shown)
        rest = [Text(f"… and {hidden} more cells", style="dim")] if hidden else []
        return Group(Text(self.heading, style="bold"), table, *rest, Text(self.summary(), style="dim"))

    def summary(self) -> str:
        """Return how many cells are done and how long the rest will take, in one line."""
        lines = self.progress.lines.values()
        done = sum(line.state == "done" for line in lines)
        failed = sum(line.state.startswith("failed") for line in lines)
        parts = [f"{done} of {len(self.progress.lines)} cells done"]
        if failed:
            parts.append(f"{failed} failed")
        left = self.progress.seconds_left
        if not self.progress.is_over:
            parts.append("time left: not known yet" if left is None else f"about {duration(left)} left")
        parts.append(f"{duration(time.monotonic() - self.progress.started)} so far")
        return ", ".join(parts)

    def line(self, event: Event) -> str | None:
        """Return the line that an event is worth where there is no live table."""
        said: str | None = None
        match event:
            case SuiteStarted():
                owed = sum(event.trials_owed.values())
                said = f"cells to do: {len(event.cells)}, done: {len(event.done)}, trials owed: {owed}"
                said += f", failed earlier: {len(event.failed)}" if event.failed else ""
                said = f"{self.heading}: {said}"
            case TrialEnded(validation=None):
                said = f"{event.fit}: {event.state}" + (f" ({event.reason})" if event.reason else "")
            case TrialEnded():
                said = f"{event.fit}: {event.state}, validation {self.primary} {event.validation:.4f}"
            case CellHeld():
                said = f"{event.cell}: {event.by} is at it"
            case FitStarted(purpose="cell"):
                said = f"{event.fit}: started" + (f" (process {event.pid})" if event.pid else "")
            case FitLost():
                said = f"{event.fit}: lost and to be started again: {event.reason}"
            case CellFinished():
                value = "unscored" if event.primary is None else f"{event.primary:.4f}"
                said = f"{event.cell}: done, test {self.primary} {value} — {self.summary()}"
            case CellFailed():
                said = f"{event.cell}: failed: {event.kind}: {event.message}"
        return f"{said} (elsewhere)" if said and getattr(event, "is_elsewhere", False) else said

    def _visible(self) -> list[tuple[str, Line]]:
        """Return the lines that fit on the screen: what is under way first, then what waits, then what is done."""
        room = max(5, self.console.height - 6)
        every = list(self.progress.lines.items())
        if len(every) <= room:
            return every
        rank = {
            "epoch": 0,
            "testing": 0,
            "tuning": 1,
            "failed:": 2,
            "failed": 3,
            "tuned,": 3,
            "elsewhere": 3,
            "waiting": 4,
        }
        urgent = sorted(every, key=lambda one: rank.get(one[1].state.split()[0], len(rank)))[:room]
        return [one for one in every if one in urgent]

    def _time(self, line: Line) -> str:
        if line.seconds is not None:
            return duration(line.seconds)
        return "" if line.began is None else duration(time.monotonic() - line.began)


def duration(seconds: float) -> str:
    """Return seconds as people say them: `8 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def shortened(name: str, room: int) -> str:
    """Return `name` in at most `room` characters (20 at least), its middle left out: the seed stands at its end."""
    room = max(20, room)
    return name if len(name) <= room else f"{name[: room - 11]}…{name[-10:]}"
