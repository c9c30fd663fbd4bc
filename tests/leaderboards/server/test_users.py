"""Who MLflow's basic auth knows is let in, and nobody learns from a refusal."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.conftest import person
from tests.crowd import serving_boards
from whitebench_leaderboards.server import users as room
from whitebench_leaderboards.server.app import make_app
from whitebench_leaderboards.server.reader import Reader
from whitebench_leaderboards.server.users import KNOWN, PUBLIC, Users, credentials_of

SECRET = "a long pass: wörd"


class Kept:
    """Users in hand that stand in for MLflow's."""

    def __init__(self) -> None:
        self.passwords = {"anna": SECRET, "admin": PUBLIC}
        self.asked: list[str] = []
        self.broken: Exception | None = None

    def has_user(self, username: str) -> bool:
        if self.broken:
            raise self.broken
        return username in self.passwords

    def authenticate_user(self, username: str, password: str) -> bool:
        self.asked.append(username)
        return self.passwords[username] == password


def basic(name: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def users(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> Users:
    monkeypatch.setattr(room, "PENALTY", 0.0)
    return Users(kept)


@pytest.fixture
def open_client(reader: Reader, users: Users) -> TestClient:
    return TestClient(make_app(reader, users=users), base_url="http://board.example", follow_redirects=False)


def knows(users: Users, *credentials: str) -> bool:
    return asyncio.run(users.know(basic(*credentials)))


@pytest.mark.parametrize("path", ["/", "/suite/tiny", "/api/v1/suites", "/static/whitebench.css", "/login", "/mlflow/"])
def test_without_a_name_and_a_password_nothing_is_answered(open_client: TestClient, path: str) -> None:
    answer = open_client.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_user_reads_what_there_is_by_whatever_name_the_server_has(open_client: TestClient) -> None:
    mine = {"Authorization": basic("anna", SECRET)}
    assert open_client.get("/suite/tiny", headers=mine).status_code == 200
    assert open_client.post("/suite/tiny", headers=mine).status_code == 405


def test_one_who_is_nobody_and_one_who_forgot_are_told_the_same(open_client: TestClient) -> None:
    answers = [
        open_client.get("/", headers={"Authorization": basic(*one)})
        for one in (("anna", "something else"), ("nobody", SECRET), ("", ""), ("anna", ""))
    ]
    assert len({(one.status_code, one.text, str(one.headers)) for one in answers}) == 1
    assert answers[0].status_code == 401


def test_a_try_costs_a_hash_whether_there_is_such_a_user_or_not(
    kept: Kept, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(room, "check_password_hash", lambda _, password: hashed.append(password))
    assert not knows(users, "nobody", "a")
    assert not knows(users, "anna", "b")
    assert (hashed, kept.asked) == (["a"], ["anna"])  # the store hashes the password of the one there is


def test_a_try_that_fails_is_not_answered_at_once(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PENALTY", 0.3)
    for name in ("nobody", "anna"):
        began = time.monotonic()
        assert not knows(Users(kept), name, "wrong")
        assert time.monotonic() - began >= 0.3


def test_whoever_was_let_in_is_looked_up_again_after_a_minute(
    kept: Kept, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(knows(users, "anna", SECRET) for _ in range(5))
    assert kept.asked == ["anna"]
    assert not knows(users, "anna", "wrong")
    kept.passwords["anna"] = "another"
    assert knows(users, "anna", SECRET)
    later = time.monotonic() + KNOWN + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not knows(users, "anna", SECRET)


def test_the_password_that_everybody_knows_opens_nothing(users: Users) -> None:
    assert not knows(users, "admin", PUBLIC)


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic !!!", "Bearer abc", "Basic " + "A" * 10_000, basic("a\0b", "c"),
     "Basic " + base64.b64encode(b"no colon").decode(), "Basic " + base64.b64encode(b"\xff:\xff").decode()],
)  # fmt: skip
def test_what_names_nobody_is_not_looked_up(header: str) -> None:
    assert credentials_of(header) is None


def test_a_password_may_hold_colons_and_letters_of_any_kind() -> None:
    assert credentials_of(basic("anna", SECRET)) == ("anna", SECRET)


def test_users_that_cannot_be_read_let_nobody_in_and_no_name_or_password_is_logged(
    kept: Kept, open_client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    kept.broken = RuntimeError(f"[parameters: ('anna', '{SECRET}')]")
    with caplog.at_level(logging.DEBUG):
        answer = open_client.get("/", headers={"Authorization": basic("anna", SECRET)})
    assert answer.status_code == 503
    assert "RuntimeError" in caplog.text
    assert "anna" not in caplog.text + answer.text
    assert SECRET not in caplog.text + answer.text


MAKE = """
import warnings
warnings.simplefilter("ignore")
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
store = SqlAlchemyStore()
store.init_db("sqlite:///{file}")
store.create_user("anna", "a long password")
"""


@pytest.fixture
def configured(tmp_path: Path) -> Callable[[], dict[str, str]]:
    """Return a function that configures MLflow's basic auth in a folder, and returns the environment that says so."""

    def configure() -> dict[str, str]:
        (tmp_path / "auth.ini").write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{tmp_path}/users.db\n"
        )
        return {"MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini")}

    return configure


@pytest.mark.slow
def test_mlflows_own_users_read_and_others_do_not(
    tmp_path: Path, configured: Callable[[], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flask_wtf", reason="pip install 'whitebench[auth]'")
    env = configured()
    made = MAKE.format(file=tmp_path / "users.db")
    subprocess.run([sys.executable, "-c", made], check=True, env=person(env), capture_output=True)
    before = (tmp_path / "users.db").read_bytes()

    def status(address: str, *credentials: str) -> int:
        asked = urllib.request.Request(address, headers={"Authorization": basic(*credentials)})
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    uri = f"sqlite:///{tmp_path / 'whitebench.db'}"
    with serving_boards(tmp_path, uri, "--auth", "mlflow", env=env) as (_, address):
        assert status(address, "anna", "a long password") == 200
        assert status(f"{address}mlflow/version", "anna", "a long password") == 200
        assert status(address, "anna", "another password") == 401
        assert status(address, "nobody", "a long password") == 401
    assert (tmp_path / "users.db").read_bytes() == before


@pytest.mark.slow
def test_without_users_or_with_those_of_another_mlflow_it_says_what_to_do(
    tmp_path: Path, configured: Callable[[], dict[str, str]]
) -> None:
    pytest.importorskip("flask_wtf", reason="pip install 'whitebench[auth]'")
    env = person(configured()) | {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    command = [str(Path(sys.executable).with_name("whitebench")), "serve", "--auth", "mlflow", "--port", "0"]

    def said() -> str:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 2
        return done.stderr

    assert "there are no users: sqlite:///" in said()
    assert not (tmp_path / "users.db").exists()
    (tmp_path / "users.db").touch()
    assert "are not those of the MLflow that is installed here" in " ".join(said().split())


def test_what_is_not_installed_is_said_with_what_installs_it() -> None:
    code = """
import sys, warnings
warnings.simplefilter("ignore")
sys.modules["flask_wtf"] = None
from whitebench_leaderboards.server.users import open_users
try:
    open_users()
except Exception as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "python -m pip install 'whitebench[auth]'" in done.stdout
