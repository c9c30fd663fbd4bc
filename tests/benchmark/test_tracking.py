"""A server is asked for what is open or has just ended, and for everything now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from whitebench import tracking as room
from whitebench.store import Store
from whitebench.tables import Mark, TrackedRun
from whitebench.tags import Tag
from whitebench.tracking import Tracking

NewStore = Callable[[Path], Store]
CELLS, KEYS = {Tag.KIND: "cell"}, (Tag.STATE,)


class Served:
    """A store behind MLflow's search, as a server has it, and how many runs that has sent."""

    def __init__(self, store: Store) -> None:
        self.tracking, self.writer, self.sent = Tracking(store.tracking.uri), store.tracking, 0
        self.tracking._tables = None
        self.marks: dict[str, Mark] = {}
        search = self.tracking._search

        def counted(*arguments: object, **options: object) -> list[TrackedRun]:
            found = search(*arguments, **options)  # type: ignore[arg-type]
            self.sent += len(found)
            return found

        self.tracking._search = counted  # type: ignore[method-assign]

    def open(self, name: str) -> str:
        return self.writer.open_run("suite", name, {**CELLS, Tag.STATE: "running"})

    def end(self, run_id: str, ended: int | None = None) -> None:
        self.writer._client.set_terminated(run_id, "FINISHED", ended)
        self.writer.tag(run_id, {Tag.STATE: "finished"})

    def news(self) -> set[str]:
        self.sent = 0
        self.marks, news = self.tracking.changed_runs(CELLS, KEYS, self.marks)
        return {run.run_id for run in news}


@pytest.fixture
def served(tmp_path: Path, new_store: NewStore) -> Served:
    return Served(new_store(tmp_path))


def long_ago() -> int:
    return int((time.time() - 3600) * 1000)


def test_runs_that_ended_long_ago_are_sent_once(served: Served) -> None:
    old = [served.open(f"{number}") for number in range(5)]
    for run_id in old:
        served.end(run_id, long_ago())
    latest = served.open("latest")
    served.end(latest)
    assert (served.news(), served.sent) == ({*old, latest}, 6)
    new = served.open("new")
    assert (served.news(), served.sent) == ({new}, 2)
    served.end(new)
    assert (served.news(), served.sent) == ({new}, 2)
    short = served.open("begun and ended between two looks")
    served.end(short)
    assert (served.news(), served.sent) == ({short}, 3)
    assert set(served.marks) == {*old, latest, new, short}
    assert served.news() == set()


def test_a_tag_that_comes_after_the_end_is_news(served: Served) -> None:
    run_id = served.open("a")
    served.end(run_id)
    served.news()
    served.writer.tag(run_id, {Tag.STATE: "superseded"})
    assert served.news() == {run_id}


@pytest.mark.parametrize("what", ["deleted", "ended by a clock that is an hour behind"])
def test_one_that_was_open_and_is_neither_open_nor_has_just_ended_is_looked_for(served: Served, what: str) -> None:
    served.end(served.open("old"))
    lost = served.open("lost")
    served.news()
    if what == "deleted":
        MlflowClient(served.writer.uri).delete_run(lost)
    else:
        served.end(lost, long_ago())
    assert lost in served.news()
    assert len(served.marks) == 2


def test_what_happens_to_an_old_one_is_seen_with_the_next_look_at_all(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = served.open("old"), served.open("new")
    served.end(old, long_ago())
    served.end(new)
    served.news()
    MlflowClient(served.writer.uri).delete_run(old)
    assert served.news() == set()
    later = time.monotonic() + room.WHOLE_LOOK + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert served.news() == {old}
