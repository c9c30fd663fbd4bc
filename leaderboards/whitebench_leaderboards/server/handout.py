"""A board as one file, to be handed on: it opens from a disk, moves as the served one does, and asks nobody."""

from __future__ import annotations

from datetime import UTC, datetime

from whitebench.ledger import Ledger
from whitebench_leaderboards.commands import board_of
from whitebench_leaderboards.server.asset import inside
from whitebench_leaderboards.server.boards import told_of
from whitebench_leaderboards.server.discretion import discreet, discreet_ledger
from whitebench_leaderboards.server.grid import whole_grid
from whitebench_leaderboards.server.page import Site, make_templates, origin_of
from whitebench_leaderboards.server.place import relink


def to_html(ledger: Ledger, *, command: str, now: datetime | None = None) -> str:
    """Return the page of a suite's board with everything inside that it is drawn with.

    Args:
        ledger: what the store has of the suite.
        command: what made the page, for its foot; without a place of this machine.
        now: when that is, if not now.
    """
    ledger = discreet_ledger(ledger)
    board = board_of(ledger)
    origin = origin_of(discreet(command), now or datetime.now(UTC), board.ended)
    site = Site(edition="handout", origin=origin, policy=inside().policy)
    told = told_of(ledger, board, " ".join(ledger.overrides), whole_grid(board))
    return relink(make_templates(site).get_template("board.html").render(told), lambda _: None)
