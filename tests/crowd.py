"""A crowd of readers at a server: what open windows and programs ask, over real connections, and what they hear."""

from __future__ import annotations

import http.client
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psutil

from tests.conftest import person

READERS = 50

ANSWER = 120.0
"""Seconds in which a server answers, however busy the machine is, or is taken to have failed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one question was answered."""

    method: str
    path: str
    status: int
    """0 where there was no answer."""
    seconds: float
    error: str = ""

    @property
    def is_error(self) -> bool:
        """Whether there was no answer, or one that should not be."""
        return bool(self.error) or self.status >= 400


@contextmanager
def serving_boards(
    folder: Path, uri: str, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[psutil.Popen, str]]:
    """Run `whitebench serve` in a folder, and yield its process and its address.

    Raises:
        AssertionError: it did not begin, or said anything that it should not until it was stopped.
    """
    log = folder / "serve.log"
    words = [str(Path(sys.executable).with_name("whitebench")), "serve", "--port", "0", "--store", uri, *arguments]
    with log.open("w") as file:
        process = psutil.Popen(words, cwd=folder, env=person(env or {}), stdout=subprocess.PIPE, stderr=file, text=True)
        try:
            address = re.match(r"http://\S+", process.stdout.readline())
            assert address, log.read_text()
            yield process, address[0]
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()
    said = [line for line in log.read_text().splitlines() if not line.startswith("Reading ")]
    assert not said, said


class Crowd:
    """Readers at an address from `with` on to its end; each a thread with a window or a program of its own.

    Every second one opens a new connection for each question. A window asks whether it still shows the latest, as a
    browser does, every third of them for the head of its page alone.
    """

    def __init__(self, address: str, paths: Sequence[str], *, readers: int = READERS, pause: float = 0.0) -> None:
        """Gather the readers.

        Args:
            address: the server's, `http://127.0.0.1:PORT/`.
            paths: what is read; reader after reader takes the next.
            readers: how many.
            pause: seconds between two questions of one reader, 3 in a window that is open; 0 for no pause at all.
        """
        host = urlsplit(address).netloc
        self._stop = threading.Event()
        self._readers = [
            _Reader(host=host, path=paths[number % len(paths)], number=number, pause=pause, stop=self._stop)
            for number in range(readers)
        ]
        self._threads = [threading.Thread(target=reader.read_on) for reader in self._readers]
        self._began = self.seconds = 0.0

    def __enter__(self) -> Self:
        """Let them begin, all within one pause."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let each hear its last answer, and go."""
        self._stop.set()
        for thread in self._threads:
            thread.join(ANSWER)
        self.seconds = time.monotonic() - self._began

    @property
    def answers(self) -> list[Answer]:
        """All answers until now."""
        return [answer for reader in self._readers for answer in reader.answers]

    @property
    def errors(self) -> Counter[str]:
        """What went wrong, and how often."""
        return Counter(f"{one.method} {one.path}: {one.error or one.status}" for one in self.answers if one.is_error)

    def __str__(self) -> str:
        """Return how many questions there were, and how long they took."""
        times = sorted(one.seconds for one in self.answers)
        p50, p99 = (1e3 * value for value in (statistics.median(times), times[int(0.99 * (len(times) - 1))]))
        rate = len(times) / self.seconds
        return f"{len(times):,} requests, {rate:.0f} a second; answered in {p50:.0f} ms (p50), {p99:.0f} ms (p99)"


@dataclass(kw_only=True)
class _Reader:
    host: str
    path: str
    number: int
    pause: float
    stop: threading.Event
    answers: list[Answer] = field(default_factory=list)
    tag: str = ""
    connection: http.client.HTTPConnection | None = None

    def read_on(self) -> None:
        self.stop.wait(self.pause * self.number / READERS)
        while not self.stop.is_set():
            self.answers.append(self._ask())
            self.stop.wait(self.pause)
        self._hang_up()

    def _ask(self) -> Answer:
        method = "HEAD" if self.tag and self.number % 3 == 0 else "GET"
        headers = {"If-None-Match": self.tag} if self.tag else {}
        began = time.monotonic()
        status, error = 0, ""
        try:
            self.connection = self.connection or http.client.HTTPConnection(self.host, timeout=ANSWER)
            self.connection.request(method, self.path, headers=headers)
            answer = self.connection.getresponse()
            status, self.tag = answer.status, answer.headers.get("ETag", "")
            answer.read()
        except (OSError, http.client.HTTPException) as caught:
            error = f"{type(caught).__name__}: {caught}"
            self._hang_up()
        if self.number % 2:
            self._hang_up()
        return Answer(method=method, path=self.path, status=status, seconds=time.monotonic() - began, error=error)

    def _hang_up(self) -> None:
        if self.connection is not None:
            with suppress(OSError):
                self.connection.close()
        self.connection = None
