"""The conductor's side: berths on the nodes of a cluster, each with one fit at a time, and what becomes of it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

# Read when Ray is imported: nobody is told that a suite runs, and its C++ does not warn into the conductor's screen.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")

import ray
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray.exceptions import ActorDiedError, AuthenticationError, GetTimeoutError, RayError, RayTaskError

from whitebench import WhitebenchError, __version__
from whitebench.launching import Answer, Failure, FailureKind, FitPlan, LaunchOptions, Lost, Message, Outcome
from whitebench_ray.berth import BREAKPOINT, Berth, put_back_breakpoint
from whitebench_ray.likeness import installation
from whitebench_ray.parcel import Heard, lay, pack

# Ray puts a psutil of its own before everybody's.
_OWN_PSUTIL = str(Path(ray.__file__).parent / "thirdparty_files")
if _OWN_PSUTIL in sys.path:
    sys.path.remove(_OWN_PSUTIL)
    sys.path.append(_OWN_PSUTIL)

HEAR = 1.0
"""Seconds after which a node says that its fit has said nothing."""

IDLE = 10.0
"""Seconds after which a berth without a fit gives its cores back to the cluster."""

GLANCE = 0.5
"""Seconds that a berth may take to say that it is there."""

ANSWER = 10.0
"""Seconds that a cluster may take to answer."""

AS_WITHOUT_RAY = {"worker_niceness": 0}
"""Ray gives what it runs the priority 15, which waits for nearly everything else on the machine."""

MOST_WORDS = 1_000_000
"""Bytes of what Ray prints while one connects that are looked at."""

NO_TOKEN = (
    "the cluster asks for its token, and got none or another: set RAY_AUTH_MODE=token, and copy ~/.ray/auth_token here "
    "from the machine that `ray start --head` was given on"
)

INSTALL = f"install whitebench[ray]=={__version__} and the suite's plugins on every node, as on this machine"

Told = TypeVar("Told")

_log = logging.getLogger(__name__)


def connect(address: str) -> bool:
    """Connect to the cluster at `address`; return whether it is one of our own, to be ended with us.

    Raises:
        WhitebenchError: nothing answers there, or it has another version of Ray or Python.
    """
    if ray.is_initialized():
        return False
    place = address or os.environ.get("RAY_ADDRESS", "")
    _see_that_it_answers(place)
    # What Ray has to say of nodes it prints over the conductor's screen, whatever one asks of its logging.
    cast("Any", ray_worker).print_to_stdstream = _into_the_log
    stops = os.environ.get(BREAKPOINT)
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    with _overheard() as words:
        try:
            if place:
                ray.init(address=place, **quiet)
            else:
                _keep_to_loopback()
                ray.init(
                    address="local",
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    _system_config=AS_WITHOUT_RAY,
                    **quiet,
                )
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            if isinstance(error, AuthenticationError) or b"InvalidAuthToken" in words():
                raise WhitebenchError(f"--launcher ray: {place or 'this machine'}: {NO_TOKEN}") from error
            raise _no_cluster(place, error) from error
        finally:
            put_back_breakpoint(stops)
    return True


class Fleet:
    """Starts fits on the nodes of a Ray cluster."""

    keeps_checkpoints = False
    """They lie on a node that nobody may see again: a fit begins anew, and ends with the same numbers."""
    is_in_process = is_here = False

    def __init__(self, asked: LaunchOptions, *, gpus: float = 1.0, is_ours: bool = False) -> None:
        self._threads, self._is_ours = asked.threads, is_ours
        self._cpus = asked.threads * asked.devices
        self._gpus = gpus * asked.devices if _takes_gpus(asked) else 0.0
        self._idle: list[tuple[float, Any]] = []
        """Berths without a fit, with the moment since when."""
        self._fits: list[FitAfar] = []
        if places_on(ray.nodes(), cpus=self._cpus, gpus=self._gpus) == 0:
            wants = _some(self._cpus, "CPU") + (f" and {_some(self._gpus, 'GPU')}" if self._gpus else "")
            raise WhitebenchError(
                f"--launcher ray: a fit takes {wants}, which no node of the cluster has: see `ray status`"
            )

    @property
    def places(self) -> int:
        """How many fits can run at a time on the nodes that are there now, at least 1."""
        return max(1, places_on(ray.nodes(), cpus=self._cpus, gpus=self._gpus))

    def warm(self) -> None:
        """Nothing is to be waited for: each node warms up when it gets its first fit."""

    def start(self, plan: FitPlan) -> FitAfar:
        """Hand a fit to the cluster; it begins where and when there is room."""
        plan.folder.mkdir(parents=True, exist_ok=True)
        fit = FitAfar(self, self.take(), plan)
        self._fits.append(fit)
        return fit

    def wait(self, fits: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Return those of `fits` of which something has been heard, after at most `seconds`."""
        self._release_idle()
        awaited = {fit.awaited: fit for fit in fits if fit.awaited is not None}
        if not awaited:
            time.sleep(seconds)
            return []
        ray.wait(list(awaited), timeout=seconds)
        ready, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)
        return [awaited[one] for one in ready]

    def ask(
        self, question: Callable[[FitPlan], Told], plans: Sequence[FitPlan], *, seconds: float, at_a_time: int = 1
    ) -> list[Told | Failure | None]:
        """Ask `question` about each plan on some node; return its answers, or what it raised; None if none came."""
        parcels = [pack(plan) for plan in plans]
        berths = [self.take() for _ in range(min(at_a_time, len(parcels)))]
        shares = [parcels[number :: len(berths)] for number in range(len(berths))]
        asked = [berth.ask.remote(question, share, seconds) for berth, share in zip(berths, shares, strict=True)]
        answers: list[Told | Failure | None] = [None] * len(plans)
        for number, (berth, one) in enumerate(zip(berths, asked, strict=True)):
            try:
                answers[number :: len(berths)] = ray.get(one)
            except RayError as error:
                refuse_strangers(error)
                _log.warning("a question on a node was not answered: %s", error)
                ray.kill(berth)
            else:
                self.give_back(berth)
        return answers

    def close(self) -> None:
        """End every fit that is still under way, and leave the cluster."""
        for fit in self._fits:
            ray.kill(fit.berth)
        for _, berth in self._idle:
            ray.kill(berth)
        self._fits, self._idle = [], []
        if self._is_ours:
            ray.shutdown()

    def take(self) -> Any:
        """Return a berth without a fit, a new one where there is none."""
        while self._idle:
            _, berth = self._idle.pop()
            if not _is_dead(berth):
                return berth
        made = ray.remote(_Berth).options(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        return cast("Any", made).remote(self._threads)

    def give_back(self, berth: Any) -> None:
        """Take a berth whose fit has ended back: a fit that waits for room begins at once in it, or else the next."""
        waiting = next((fit for fit in self._fits if not fit.has_begun), None)
        self._idle.append((time.monotonic(), berth if waiting is None else waiting.move_to(berth)))

    def forget(self, fit: FitAfar) -> None:
        """Think no more of a fit that has ended."""
        self._fits = [one for one in self._fits if one is not fit]

    def _release_idle(self) -> None:
        while self._idle and time.monotonic() - self._idle[0][0] > IDLE:
            ray.kill(self._idle.pop(0)[1])


class FitAfar:
    """A fit on a node, as the conductor holds it."""

    pid = None

    def __init__(self, fleet: Fleet, berth: Any, plan: FitPlan) -> None:
        self.plan, self.berth, self.node = plan, berth, ""
        self.seconds = 0.0
        self._fleet = fleet
        self._is_over = self._has_ended = False
        self._board()

    def _board(self) -> None:
        self._started = self.berth.start.remote(pack(self.plan), installation(self.plan.owners))
        self.awaited = self.berth.hear.remote(HEAR)
        """What becomes ready when something has been heard of it; None while it waits for an answer."""

    @property
    def has_begun(self) -> bool:
        """Whether its berth is up and has started it, or has failed."""
        return bool(ray.wait([self._started], timeout=0)[0])

    def move_to(self, berth: Any) -> Any:
        """Begin in another berth, which is free; return the one that it waited for."""
        left, self.berth = self.berth, berth
        left.end.remote()
        self._board()
        return left

    def attend(self, heard: Callable[[FitAfar, Message | Outcome | Lost], None], _idle: Callable[[], None]) -> None:
        """Tell `heard` what the fit has to say, if it has something.

        Raises:
            WhitebenchError: the node has other code than this machine: its numbers would not be what they are called.
        """
        if self.awaited is None:
            return
        said = self._receive()
        if said is not None:
            heard(self, said)
        elif not self._is_over:
            self.awaited = self.berth.hear.remote(HEAR)

    def answer(self, answer: Answer) -> None:
        """Answer what the fit said last."""
        if not self._is_over:
            self.berth.answer.remote(answer)
            self.awaited = self.berth.hear.remote(HEAR)

    def fault(self) -> None:
        """The node looks after its limits, and says so when one is crossed."""

    def end(self) -> None:
        """End the fit, and free its berth."""
        if self._is_over:
            return
        self._is_over, self.awaited = True, None
        self._fleet.forget(self)
        if self._has_ended:
            self._fleet.give_back(self.berth)
        else:
            ray.kill(self.berth)

    def _receive(self) -> Message | Outcome | Lost | None:
        one, self.awaited = self.awaited, None
        try:
            ray.get(self._started)
            heard: Heard = ray.get(one)
        except RayError as error:
            refuse_strangers(error)
            return Lost(reason=_why(error, self.node))
        if heard.complaint:
            raise WhitebenchError(f"--launcher ray: {heard.complaint}; {INSTALL}")
        self.node, self.seconds = heard.node, heard.seconds
        if heard.said is None or isinstance(heard.said, Message):
            return heard.said
        self._has_ended = True
        return self._home(heard.said, heard.files)

    def _home(self, outcome: Outcome, files: Mapping[str, bytes]) -> Outcome:
        """Put what the fit has left where it would have left it here."""
        try:
            lay(files, self.plan.folder)
        except OSError as error:
            return Failure(kind=FailureKind.DISK, message=f"what the fit left cannot be written here: {error}")
        if isinstance(outcome, Failure) and outcome.log:
            return dataclasses.replace(outcome, log=str(self.plan.folder / Path(outcome.log).name))
        return outcome


class _Berth(Berth):
    """A berth that knows from Ray which node it is on and which GPUs are its own."""

    def __init__(self, threads: int) -> None:
        context = ray.get_runtime_context()
        super().__init__(threads, context.get_node_id(), context.get_accelerator_ids().get("GPU", []))


def _takes_gpus(asked: LaunchOptions) -> bool:
    has_some = bool(ray.cluster_resources().get("GPU"))
    if asked.accelerator == "gpu" and not has_some:
        raise WhitebenchError("--accelerator gpu: no node of the Ray cluster has a GPU: see `ray status`")
    return has_some and asked.accelerator != "cpu"


def places_on(nodes: Sequence[Mapping[str, Any]], *, cpus: int, gpus: float) -> int:
    """Return how many fits of so many CPUs and GPUs have room on `nodes`, as `ray.nodes()` lists them."""
    total = 0
    for node in nodes:
        has = node["Resources"] if node["Alive"] else {}
        rooms = [has.get("CPU", 0) // cpus] + ([_rooms(has.get("GPU", 0), gpus)] if gpus else [])
        total += int(min(rooms))
    return total


def _is_dead(berth: Any) -> bool:
    """Return whether a berth without a fit went with its node; not where it is still coming up."""
    try:
        ray.get(berth.end.remote(), timeout=GLANCE)
    except GetTimeoutError:
        return False
    except RayError:
        return True
    return False


def refuse_strangers(error: RayError) -> None:
    """Raise a WhitebenchError where a node cannot take fits: nothing was lost there, and the next would fare alike."""
    if not (isinstance(error, RayTaskError) or (isinstance(error, ActorDiedError) and error.actor_init_failed)):
        return
    last = str(error).strip().rpartition("\n")[2]
    what_to_do = INSTALL if "ModuleNotFoundError" in last or "ImportError" in last else "see to it, or take it out"
    raise WhitebenchError(f"--launcher ray: a node of the cluster cannot run fits ({last}): {what_to_do}") from error


def _see_that_it_answers(place: str) -> None:
    """Raise a WhitebenchError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, found, port = place.rpartition("://")[2].rpartition(":")
    if not (found and port.isdigit()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(place, error) from error


def _no_cluster(place: str, error: Exception) -> WhitebenchError:
    said = str(error).strip().partition("\n")[0]
    return WhitebenchError(
        f"--launcher ray: no cluster to be had at {place or 'this machine'} ({said}): give the HOST:PORT that "
        "`ray start --head` printed, as in --ray-address 10.0.0.1:6379"
    )


def _keep_to_loopback() -> None:
    """Let a Ray of one's own listen to this machine alone: else it takes the machine's address for 127.0.0.1."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # for its processes, which read it as we did
    ray_constants.ENABLE_RAY_CLUSTER = False


@contextlib.contextmanager
def _overheard() -> Iterator[Callable[[], bytes]]:
    """Keep what Ray's C++ prints off the screen; yield what returns it."""
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), MOST_WORDS, 0)
        finally:
            os.dup2(screen, 2)
            os.close(screen)


def _into_the_log(data: Mapping[str, Any], **_: object) -> None:
    for line in data.get("lines", ()):
        _log.warning("Ray: %s", line)


def _rooms(available: float, gpus: float) -> float:
    """Return how many fits so many GPUs have room for: parts of different GPUs make no whole."""
    return available // gpus if gpus >= 1 else available // 1 * (1 // gpus)


def _some(number: float, noun: str) -> str:
    return f"{number:g} {noun}" if number <= 1 else f"{number:g} {noun}s"


def _why(error: RayError, node: str) -> str:
    said = " ".join(str(error).split())[:300]
    return f"node {node[:8]} of the Ray cluster: {said}" if node else f"the Ray cluster: {said}"
