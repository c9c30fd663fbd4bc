"""What the server of fits imports first: it adopts what a fit leaves behind, and takes it along when it goes.

Nobody else imports this room: it changes the process that it is imported in.
"""

from __future__ import annotations

import atexit
import gc
import os
import warnings

from whitebench.kin import adopt_orphans, end_descendants

GRACE = 3.0
"""Seconds after which the server goes, whatever is left: a dead conductor's fits have 5 s in all."""


def _end_all(server: int) -> None:
    if os.getpid() == server:  # not one of its fits
        end_descendants(server, seconds=GRACE)


gc.disable()  # what is imported from here on is no garbage; a fit collects its own, see `child`
adopt_orphans()
atexit.register(_end_all, os.getpid())  # it goes when the conductor has gone, also by SIGKILL
# It is told of the end of orphans too, and wonders at each on the conductor's screen.
warnings.filterwarnings("ignore", "forkserver: waitpid returned unexpected pid")
