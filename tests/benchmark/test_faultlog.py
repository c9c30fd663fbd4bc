"""The log of mistakes and bugs: one file of the user's own, bounded, without passwords, and never a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from whitebench.faultlog import MOST_BYTES, MOST_KEPT, keep_traceback


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "whitebench"


def raised(text: str) -> BaseException:
    try:
        raise RuntimeError(text)
    except RuntimeError as error:
        return error


def test_each_entry_names_the_command_and_holds_the_traceback(state: Path) -> None:
    assert keep_traceback(raised("first"), ["whitebench", "run", "smok"]) == state / "whitebench.log"
    keep_traceback(raised("second"), ["whitebench", "plan", "smok"])
    kept = (state / "whitebench.log").read_text(encoding="utf-8")
    assert "whitebench run smok\nTraceback (most recent call last)" in kept
    assert kept.index("RuntimeError: first") < kept.index("RuntimeError: second")
    assert (state / "whitebench.log").stat().st_mode & 0o777 == 0o600


def test_a_full_log_makes_room_and_one_traceback_is_bounded(state: Path) -> None:
    state.mkdir(parents=True)
    (state / "whitebench.log").write_text("x" * (MOST_BYTES + 1))
    keep_traceback(raised("y" * 10**6), ["whitebench"])
    assert sorted(path.name for path in state.iterdir()) == ["whitebench.log", "whitebench.log.1"]
    assert (state / "whitebench.log").stat().st_size < MOST_KEPT + 1_000


def test_a_password_is_left_out(state: Path) -> None:
    keep_traceback(raised("postgresql://me:secret@host/db"), ["whitebench", "--store", "http://me:secret@host:5000"])
    kept = (state / "whitebench.log").read_text()
    assert "secret" not in kept
    assert "postgresql://***@host/db" in kept
    assert "http://***@host:5000" in kept


def test_a_password_is_left_out_of_a_command_that_is_too_long_to_be_kept_whole(state: Path) -> None:
    uri = f"postgresql://me:secret{'t' * 600}secret@host/db?sslpassword=secret"
    keep_traceback(raised("x"), ["whitebench", "--store", uri])
    kept = (state / "whitebench.log").read_text()
    assert "whitebench --store postgresql://***@host/db?sslpassword=***" in kept
    assert "secret" not in kept


def test_a_folder_that_cannot_be_written_is_passed_by_and_so_is_a_machine_without_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    log = keep_traceback(raised("x"), ["whitebench"])
    assert log is not None
    assert log.parent == tmp_path
    assert "RuntimeError: x" in log.read_text()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert keep_traceback(raised("x"), ["whitebench"]) is None


def test_a_relative_state_folder_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert keep_traceback(raised("x"), []) == tmp_path / "home" / ".local" / "state" / "whitebench" / "whitebench.log"
