"""What a launcher is: the one import, beside `whitebench`, of a plugin that brings one.

A launcher starts fits and hands what they say to whoever listens, the conductor above all. Where a fit runs and how
its words travel is its own business; what it leaves in its plan's folder is on the listener's machine once it has
ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from whitebench.fit import Answer, FitPlan, Fitted, Lost, Message, Outcome, Pruned
from whitebench.launch import Launcher
from whitebench.result import Failure, FailureKind

__all__ = [
    "Accelerator",
    "Answer",
    "AnyFit",
    "AnyLauncher",
    "Failure",
    "FailureKind",
    "FitPlan",
    "Fitted",
    "LaunchOptions",
    "Launcher",
    "Lost",
    "Message",
    "Outcome",
    "Pruned",
]


Accelerator: TypeAlias = Literal["auto", "cpu", "gpu"]
"""What fits compute on; `auto` takes GPUs where there are any."""


Told = TypeVar("Told")


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """What a run asks of its launcher."""

    threads: int
    """Of each device of a fit."""
    devices: int = 1
    """Of each fit, all on one machine."""
    accelerator: Accelerator = "auto"


class AnyFit(Protocol):
    """A fit under way, as the conductor holds it."""

    plan: FitPlan

    @property
    def pid(self) -> int | None:
        """Its process on this machine; None where it runs on another."""

    @property
    def seconds(self) -> float:
        """How long it has been at work: time spent waiting for an answer is not counted."""

    def attend(self, heard: Callable[[Any, Any], None], idle: Callable[[], None], /) -> None:
        """Call `heard(fit, said)` if it has something to say: a Message, its Outcome, or that it is Lost.

        Whoever waits here for an answer calls `idle` meanwhile.
        """

    def answer(self, answer: Answer, /) -> None:
        """Answer the Message that it said last."""

    def fault(self) -> Failure | None:
        """Return which limit it has crossed; None where it may go on, or its launcher sees to that elsewhere."""

    def end(self) -> None:
        """End it with all it has started; harmless where it has ended."""


class AnyLauncher(Protocol):
    """Starts fits."""

    keeps_checkpoints: bool
    """Whether a fit that is ended goes on from its last epoch when it is started again."""
    is_in_process: bool
    """Whether a fit runs while it is attended to, in the conductor's own process."""
    is_here: bool
    """Whether fits run on this machine: the run then sees to it that what it asks for is there."""

    @property
    def places(self) -> int:
        """How many fits can run at a time, at least 1."""

    def warm(self) -> None:
        """Wait until fits can start; raises a WhitebenchError where none ever will."""

    def start(self, plan: FitPlan, /) -> Any:
        """Start a fit, and return it as an AnyFit."""

    def wait(self, fits: Sequence[Any], seconds: float, /) -> Sequence[Any]:
        """Return those of its `fits` that are to be attended to, after at most `seconds`."""

    def ask(
        self, question: Callable[[FitPlan], Told], plans: Sequence[FitPlan], /, *, seconds: float, at_a_time: int = 1
    ) -> list[Told | Failure | None]:
        """Ask `question` about each plan where fits run; return its answers, or what it raised.

        None where nobody could say: the fit will tell.
        """

    def close(self) -> None:
        """End every fit that is still under way."""
