"""The processes of one fit on several devices: started together by torch's elastic launcher, ended together.

Each is called by its rank. Where one dies, the others are ended, and the failure is the one that came first: who hears
that another has gone says so too, but is not to blame.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from whitebench import group, memory
from whitebench.errors import PeerError
from whitebench.fault import failure_of, kind_of_exit
from whitebench.fit import Answer, FitPlan, Message, Outcome
from whitebench.result import Failure
from whitebench.transcript import tail

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

Hear: TypeAlias = Callable[[Message], Answer]
Work: TypeAlias = Callable[[Hear], Outcome]

FAILED = 1
"""The exit code of a process that has written down its failure."""

LAUNCHED = "torch.distributed.launcher.api"

GLANCE = 0.05
"""Seconds between two looks of the launcher at its processes."""

PEER_PATIENCE = 3.0
"""Seconds in which one that hears that another has gone waits to be ended: the launcher shall see the other first."""

GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed", "NCCL", "gloo/")
"""How torch's backends say that another process has gone."""

WORDS = 16_000
"""Bytes of a log that tell how a process died."""


def run_ranks(plan: FitPlan, work: Work, hear: Hear) -> Outcome:
    """Do `work` in as many processes as the plan has devices, and return how it ended; the first alone is heard."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if plan.seat is not None and plan.devices == 1:
        return _part(plan, work, hear)
    if sys.platform == "linux" and plan.seat is None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all on this machine, whatever it is called
    place = plan.folder / (f"ranks-{plan.seat.member}" if plan.seat else "ranks")
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob("*.failure"):
        old.unlink()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=plan.devices,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=GLANCE,
        start_method="fork",
        logs_specs=DefaultLogsSpecs(log_dir=str(place)),
    )
    try:
        outcomes: dict[int, Outcome] = elastic_launch(config, _begin)(plan, work, hear, place)
    except ChildFailedError as error:
        return _blame(plan, error, place)
    return outcomes[0]


def _part(plan: FitPlan, work: Work, hear: Hear) -> Outcome:
    """Take part in a fit as the only process of ours."""
    try:
        return _work_together(plan, work, hear, 0)
    except BaseException as error:
        if _is_of_another(error):
            time.sleep(PEER_PATIENCE)  # the conductor shall hear of the other first
        raise


def _begin(plan: FitPlan, work: Work, hear: Hear, place: Path) -> Outcome | None:
    """Be one of the processes."""
    local_rank = int(os.environ["LOCAL_RANK"])
    try:
        outcome = _work_together(plan, work, hear, local_rank)
    except BaseException as error:  # whatever a stranger's model does, it is a Failure
        memory.lift_limit()
        traceback.print_exc()
        note = (time.monotonic(), _is_of_another(error), failure_of(error, plan))
        (place / f"{local_rank}.note").write_bytes(pickle.dumps(note))
        (place / f"{local_rank}.note").replace(place / f"{local_rank}.failure")
        sys.stdout.flush()
        sys.stderr.flush()
        if _is_of_another(error):
            time.sleep(PEER_PATIENCE)
        os._exit(FAILED)
    return outcome if local_rank == 0 else None


def _work_together(plan: FitPlan, work: Work, hear: Hear, local_rank: int) -> Outcome:
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # torch does not list them

    seat = plan.seat
    if seat is None:
        group.join(local_rank, plan.devices, local_rank)
    else:
        meeting = PrefixStore(f"fit/{seat.fit}", TCPStore(seat.address, seat.port, is_master=False))
        rank, size = seat.member * plan.devices + local_rank, seat.members * plan.devices
        group.join(rank, size, local_rank if plan.devices > 1 else seat.local_member, meeting)
    outcome = work(group.together(hear))
    group.leave()
    return outcome


def _is_of_another(error: BaseException) -> bool:
    return isinstance(error, PeerError) or any(word in str(error) for word in GONE)


def _blame(plan: FitPlan, error: ChildFailedError, place: Path) -> Failure:
    """Return what came first: a failure that a process wrote down as its own, or how one went without a word."""
    notes: list[Any] = sorted(
        (pickle.loads(file.read_bytes()) for file in place.glob("*.failure")),  # written by ourselves
        key=lambda note: (note[1], note[0]),
    )
    rank, gone = error.get_first_failure()
    if notes:
        _, is_of_another, failure = notes[0]
        if not is_of_another or gone.exitcode == FAILED:
            written: Failure = failure
            return written
    kind, message = kind_of_exit(gone.exitcode, words := tail(plan.log, WORDS))
    one = message.replace("the fit's process", f"process {rank} of the fit's {plan.devices}")
    return Failure(kind=kind, message=one, traceback=words, log=str(plan.log))
