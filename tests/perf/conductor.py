"""What the conductor costs a suite: one run of the real command, watched from outside."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import psutil

STARTED = re.compile(r"^(\S+ \S+) whitebench INFO FitStarted\(.*pid=(\d+)\)")
ENDED = re.compile(r"^(\S+ \S+) whitebench INFO SuiteEnded\(")

PAUSE = 0.02
"""Seconds between looks: each takes 0.2 ms, 1 % of a core."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A conductor's part of the phase from a suite's first fit to its end."""

    seconds: float
    """Of that phase."""
    cpu_seconds: float
    """The conductor's own in it, without those of the server and the fits."""
    idle_seconds: float
    """In which no fit was computing: the conductor was storing what the last ones gave, or starting the next."""
    at_work: float
    """Fits computing, on average."""


@dataclass(kw_only=True)
class _Watch:
    """What was seen of a conductor and its fits: a moment, the conductor's CPU seconds until then, fits at work."""

    process: psutil.Process
    log: Path
    seen: list[tuple[float, float, int]] = field(default_factory=list)
    fits: list[psutil.Process] = field(default_factory=list)
    began: float | None = None
    ended: float | None = None
    _read: int = 0

    def look(self) -> None:
        self._read_log()
        times = self.process.cpu_times()
        self.seen.append((time.time(), times.user + times.system, sum(map(_is_at_work, self.fits))))

    def _read_log(self) -> None:
        if not self.log.exists():
            return
        with self.log.open(encoding="utf-8") as file:
            file.seek(self._read)
            text = file.read()
            whole = text[: text.rfind("\n") + 1]
            self._read += len(whole.encode())
        for line in whole.splitlines():
            if found := STARTED.match(line):
                self.began = self.began or _moment(found[1])
                if psutil.pid_exists(int(found[2])):
                    self.fits = [*(fit for fit in self.fits if fit.is_running()), psutil.Process(int(found[2]))]
            elif found := ENDED.match(line):
                self.ended = _moment(found[1])

    def share(self) -> Share:
        assert self.began is not None
        assert self.ended is not None
        within = [one for one in self.seen if self.began <= one[0] <= self.ended]
        (first, cpu_before, _), (last, cpu_after, _) = within[0], within[-1]
        idle = sum(later[0] - one[0] for one, later in pairwise(within) if not one[2])
        return Share(
            seconds=last - first,
            cpu_seconds=cpu_after - cpu_before,
            idle_seconds=idle,
            at_work=sum(one[2] for one in within) / len(within),
        )


def share_of(arguments: Sequence[str], folder: Path, suite: str) -> Share:
    """Run `whitebench run` with these arguments in an empty folder, and watch it until it ends."""
    command = [str(Path(sys.executable).parent / "whitebench"), "run", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        watch = _Watch(process=psutil.Process(running.pid), log=folder / ".whitebench" / "logs" / f"{suite}.log")
        while running.poll() is None:
            try:
                watch.look()
            except psutil.Error:  # it ended between two lines
                break
            time.sleep(PAUSE)
        said = running.communicate()[0]
        assert running.returncode == 0, said
        watch._read_log()
    return watch.share()


def _is_at_work(fit: psutil.Process) -> bool:
    try:
        return fit.status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP)
    except psutil.Error:
        return False


def _moment(text: str) -> float:
    """Return a moment as logging writes it, in local time, as seconds since 1970."""
    return datetime.fromisoformat(text.replace(",", ".")).timestamp()
