"""A store on a real PostgreSQL server: claims, trials and results in one database, shared by several runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from tests.benchmark.test_tables import assert_tables_agree, make_runs
from tests.conftest import Type, person
from tests.postgresql import NoServerError, Server, serving
from whitebench.address import without_password
from whitebench.claims import Claims, Owner
from whitebench.database import open_engine
from whitebench.errors import BusyStoreError, StoreError
from whitebench.ledger import read_ledger
from whitebench.store import Store
from whitebench.tags import Tag
from whitebench.tuning import SCHEMA, Storage

WriteSuite = Callable[..., Path]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    """A server of our own."""
    try:
        with serving() as server:
            yield server
    except NoServerError as error:
        pytest.skip(str(error))


@pytest.fixture
def server(postgresql: Server) -> str:
    """The address of a database on it."""
    return postgresql.address


@pytest.mark.slow
def test_runs_that_begin_at_once_on_an_empty_database_share_the_suite(
    server: str, write_suite: WriteSuite, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite("searching", seeds=4, trials=3)
    command = [str(Path(sys.executable).with_name("whitebench")), "run", str(suite), "--plugin", str(plugin)]
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    monkeypatch.setenv("XDG_STATE_HOME", state["XDG_STATE_HOME"])
    runs = [
        subprocess.Popen(
            [*command, "--store", server, "--parallel", "1"],
            cwd=tmp_path,
            env=person(state),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    said = [run.communicate(timeout=240)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert [record.state for record in read_ledger(str(suite), store=server, plugins=[plugin]).records] == [
        "finished"
    ] * 4
    store = Store(server)
    assert len(store.tracking.runs("blobs", {Tag.KIND: "cell", Tag.STATE: "finished"})) == 4
    [study] = store.tracking.runs("blobs/tuning", {Tag.KIND: "study"})
    assert len(Storage.of_store(server).trials(study.tags[Tag.IDENTITY])) == 3
    assert len(store.tracking.runs("blobs/tuning", {Tag.KIND: "trial"})) == 3
    assert store.claims.living() == {}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["blobs.toml", "state"]  # nothing in the working folder


def test_reading_makes_no_tables_and_who_has_rights_on_them_alone_can_write_trials(server: str) -> None:
    with closing_engine(server) as engine, engine.connect() as database:
        database.exec_driver_sql("CREATE DATABASE trials")
        database.exec_driver_sql("CREATE ROLE guest LOGIN")
    mine = server.replace("/whitebench", "/trials")
    assert Storage.of_store(mine).find("nothing") is None
    with closing_engine(mine) as engine, engine.connect() as database:
        assert not sqlalchemy.inspect(database).has_schema(SCHEMA)
        Storage.of_store(mine).delete("nothing")  # which opens them, and so makes them
        for right in ("USAGE ON SCHEMA", "ALL ON ALL TABLES IN SCHEMA", "ALL ON ALL SEQUENCES IN SCHEMA"):
            database.exec_driver_sql(f"GRANT {right} {SCHEMA} TO guest")
    theirs = Storage.of_store(mine.replace("tester@", "guest@"))
    theirs.add("a-study", "minimize", optuna.create_trial(value=0.5))
    assert [trial.value for trial in theirs.trials("a-study")] == [0.5]


@contextmanager
def closing_engine(address: str) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(address, isolation_level="AUTOCOMMIT")
    try:
        yield engine
    finally:
        engine.dispose()


RESTARTING = """
import subprocess
from whitebench import hookimpl

MOMENTS = {{"FitStarted", "TrialEnded", "TestOpened"}}


@hookimpl
def observe(event):
    moment = type(event).__name__
    if moment in MOMENTS:  # the first of its kind: what is written next meets a server that goes down or comes up
        MOMENTS.remove(moment)
        log = open({log!r}, "a")
        subprocess.Popen({command!r}, cwd="/", stdout=log, stderr=log)
        print(moment, file=log, flush=True)
"""


@pytest.mark.slow
def test_a_server_that_goes_down_in_the_middle_of_a_run_costs_a_retry_and_no_result(
    postgresql: Server,
    write_suite: WriteSuite,
    plugin: Path,
    tmp_path: Path,
    type_in: Type,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, observer = tmp_path / "restarts.log", tmp_path / "restarting.py"
    observer.write_text(RESTARTING.format(log=str(log), command=list(postgresql.restart)), encoding="utf-8")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    suite = write_suite("searching", name="disturbed", seeds=2, trials=2)
    options = ("--plugin", str(plugin), "--plugin", str(observer), "--store", postgresql.address)
    told = type_in("whitebench", "run", str(suite), *options, env={"XDG_STATE_HOME": str(tmp_path / "state")})
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Traceback" not in told.stdout + told.stderr
    assert f"the store {without_password(postgresql.address)} could not be used: it does not answer" in told.stdout
    assert log.read_text(encoding="utf-8").count("server started") == 3
    store = Store(postgresql.address)
    runs = [store.tracking.runs(experiment, {}) for experiment in ("disturbed", "disturbed/tuning")]
    cells, tuning = ([(run.tags[Tag.KIND], run.tags[Tag.STATE]) for run in some] for some in runs)
    assert cells.count(("cell", "finished")) == 2
    assert {state for _, state in cells} <= {"finished", "superseded"}
    assert sorted(one for one in tuning if one[1] != "superseded") == [
        ("study", "finished"), ("trial", "complete"), ("trial", "complete")
    ]  # fmt: skip
    assert store.claims.living() == {}


@pytest.mark.slow
def test_its_tables_say_of_runs_what_mlflows_own_search_says(server: str) -> None:
    store = Store(server)
    make_runs(store, "rows")
    assert_tables_agree(store, "rows")


def test_a_database_that_is_not_there_and_a_user_without_rights_are_said_and_not_waited_for(server: str) -> None:
    with pytest.raises(StoreError, match="there is no such database: createdb elsewhere ") as told:
        Store(server.replace("/whitebench", "/elsewhere"))
    assert not isinstance(told.value, BusyStoreError)
    with closing(open_engine(server).raw_connection()) as database:
        database.cursor().execute("CREATE USER visitor")
        database.commit()
    with pytest.raises(StoreError, match="the user in its address lacks rights: make it the database's owner") as told:
        Claims(server.replace("tester@", "visitor@")).take("cell/a")
    assert not isinstance(told.value, BusyStoreError)


def test_a_claim_is_judged_by_the_databases_clock(server: str) -> None:
    here, far = Claims(server), Claims(server, Owner(token="far", host="far/away", pid=1, born=0.0))
    assert far.take("cell/a")
    assert not here.take("cell/a")
    assert far.holds("cell/a")
    assert here.living("cell/").keys() == {"cell/a"}
    far.close()
    assert here.take("cell/a")
    here.close()
