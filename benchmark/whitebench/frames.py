"""A board in a notebook: pandas frames, made by whatever is installed to make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from whitebench.errors import WhitebenchError

if TYPE_CHECKING:
    from pandas import DataFrame

GROUP = "whitebench.boards"
"""Entry points: functions of suite, store, plugins and overrides that return Frames."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """A suite's board and what it was made of, as tables; what is missing is NaN or NA, with its reason beside it."""

    entries: DataFrame
    """A row per contestant and task, in the board's order: `rank_low` and `rank_high` are the best and the worst rank
    that the data allow, `mean` and `half_width` those of the primary metric over `n` seeds."""
    scores: DataFrame
    """A row per contestant, task, seed and score or cost."""
    layers: DataFrame
    """A row per contestant, task, seed, score and layer, first layer 1; `null/NAME` is the same where the claim cannot
    hold."""
    comparisons: DataFrame
    """A row per two ranked entries of a task: `value` is first minus second, `smallest` what the data can show."""


def load_frames(
    suite: str, *, store: str | None = None, plugins: Sequence[str | Path] = (), overrides: Sequence[str] = ()
) -> Frames:
    """Return the board of a suite, as far as it has been run, as pandas frames.

    Args:
        suite: a suite's name or the path of its file.
        store: a tracking URI; None for `MLFLOW_TRACKING_URI`, or else the file in the working folder.
        plugins: local plugin files; where none is given, those in `WHITEBENCH_PLUGINS`.
        overrides: texts like `budget.epochs=3`.

    Raises:
        WhitebenchError: the suite cannot be planned, the store cannot be read, or nothing is installed to make boards.
    """
    makers = list(entry_points(group=GROUP))
    if not makers:
        raise WhitebenchError(
            f"nothing is installed that makes boards (entry points {GROUP}): `python -m pip install --force-reinstall "
            "whitebench` brings whitebench_leaderboards along"
        )
    made: Frames = makers[0].load()(suite, store=store, plugins=[Path(one) for one in plugins], overrides=overrides)
    return made
