"""A claim is taken by exactly one owner, and taken over from one that is dead."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from whitebench import claims
from whitebench.claims import LEASE, Claims, Owner, born_of
from whitebench.errors import StoreError


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/whitebench.db"


@pytest.fixture
def mine(url: str) -> Iterator[Claims]:
    opened = Claims(url)
    yield opened
    opened.close()


def owner(**changes: object) -> Owner:
    return dataclasses.replace(Owner.me(), token=random.randbytes(8).hex(), **changes)  # type: ignore[arg-type]


def age(url: str, seconds: float) -> None:
    """Let the heartbeats of every claim lie back by `seconds`."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        database.execute("UPDATE whitebench_claims SET beat = beat - ?", (seconds,))
        database.commit()


def test_a_claim_belongs_to_the_first_who_takes_it_until_it_is_given_back(mine: Claims, url: str) -> None:
    other = Claims(url, owner())
    assert mine.take("cell/a")
    assert mine.take("cell/a")  # again, by the same owner
    assert not other.take("cell/a")
    other.release("cell/a")  # not its own: nothing happens
    assert mine.holds("cell/a")
    mine.release("cell/a")
    assert other.take("cell/a")
    assert not mine.holds("cell/a")
    other.close()
    assert mine.take("cell/a")


def test_the_living_claims_name_their_owners(mine: Claims) -> None:
    mine.take("cell/a")
    mine.take("trial/b")
    assert mine.living("cell/") == {"cell/a": mine.owner}
    assert set(mine.living()) == {"cell/a", "trial/b"}
    assert str(mine.owner).startswith(f"process {os.getpid()} on ")


def test_a_percent_sign_in_a_prefix_is_no_wildcard(mine: Claims) -> None:
    mine.take("cell/a")
    assert mine.living("%") == {}


def test_reading_makes_neither_a_file_nor_a_table(tmp_path: Path) -> None:
    file = tmp_path / "none.db"
    assert Claims(f"sqlite:///{file}").living() == {}
    assert not file.exists()
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE another (x)")
    assert Claims(f"sqlite:///{file}").living() == {}
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("another",)]


def test_an_owner_whose_process_is_gone_is_dead_at_once(mine: Claims, url: str) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert Claims(url, owner(pid=gone.pid, born=time.time())).take("cell/a")
    assert mine.living() == {}
    assert mine.take("cell/a")


def test_an_owner_whose_number_another_process_has_now_is_dead(mine: Claims, url: str) -> None:
    assert Claims(url, owner(born=born_of(os.getpid()) - 100)).take("cell/a")
    assert mine.take("cell/a")


def test_a_living_owner_on_this_machine_keeps_its_claim_however_late_its_heartbeat(mine: Claims, url: str) -> None:
    assert Claims(url, owner()).take("cell/a")
    age(url, LEASE * 100)
    assert not mine.take("cell/a")


def test_an_owner_that_was_stopped_keeps_its_claim_for_the_lease(mine: Claims, url: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as stopped:
        stopped.send_signal(signal.SIGSTOP)
        born = born_of(stopped.pid)
        while psutil.Process(stopped.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        assert Claims(url, owner(pid=stopped.pid, born=born)).take("cell/a")
        assert not mine.take("cell/a")
        age(url, LEASE + 1)
        assert mine.take("cell/a")
        stopped.kill()


def test_an_owner_on_another_machine_keeps_its_claim_for_the_lease(mine: Claims, url: str) -> None:
    far = Claims(url, owner(host="far/away"))
    assert far.take("cell/a")
    age(url, LEASE - 5)
    assert not mine.take("cell/a")
    assert far.holds("cell/a")  # a sign of life: the lease begins anew
    age(url, LEASE - 5)
    assert not mine.take("cell/a")
    age(url, 10)
    assert mine.take("cell/a")
    assert not far.holds("cell/a")


def test_the_heartbeat_comes_from_a_thread_of_its_own(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "HEARTBEAT", 0.05)
    far = Claims(url, owner(host="far/away"))
    far.take("cell/a")
    far.keep()
    age(url, LEASE * 2)
    deadline = time.monotonic() + 10
    while not far.living() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert far.living().keys() == {"cell/a"}
    far.close()
    assert far.living() == {}


def test_alone_waits_for_its_turn_and_says_who_is_in_the_way(mine: Claims, url: str) -> None:
    other = Claims(url, owner())
    held = pytest.raises(StoreError, match=rf"open/s has been held for more than 0.1 s by process {os.getpid()} on")
    with mine.alone("open/s"), held, other.alone("open/s", 0.1):
        raise AssertionError("two at once")
    with other.alone("open/s", 0.1):
        assert not mine.take("open/s")


def test_a_database_that_is_none_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database, but long enough to look at" * 10)
    with pytest.raises(StoreError, match=r"the store sqlite:///.*text.db could not be used: its file is damaged"):
        Claims(f"sqlite:///{tmp_path}/text.db").take("cell/a")


WORKER = """
import sys, time
from whitebench.claims import Claims
url, log, cells = sys.argv[1], sys.argv[2], int(sys.argv[3])
done = lambda: {line.split()[0] for line in open(log)}
claims = Claims(url)
while len(done()) < cells:
    for cell in range(cells):
        name = f"cell/{cell}"
        if str(cell) in done() or not claims.take(name):
            continue
        if str(cell) not in done():  # asked again once it is ours
            time.sleep(0.002)
            if claims.holds(name):
                with open(log, "a") as file:
                    file.write(f"{cell} {claims.owner.pid}\\n")
        claims.release(name)
"""


@pytest.mark.slow
def test_four_owners_two_of_them_killed_do_each_of_200_things_once(tmp_path: Path, url: str) -> None:
    log = tmp_path / "log"
    log.touch()
    command = [sys.executable, "-c", WORKER, url, str(log), "200"]
    workers = [subprocess.Popen(command) for _ in range(4)]
    for victim in workers[:2]:
        while sum(line.endswith(f" {victim.pid}") for line in log.read_text().splitlines()) < 5:
            time.sleep(0.01)
        victim.kill()
    assert [worker.wait(60) for worker in workers] == [-9, -9, 0, 0]
    done = Counter(line.split()[0] for line in log.read_text().splitlines())
    assert set(done.values()) == {1}
    assert len(done) == 200
