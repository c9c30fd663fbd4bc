"""Where a number comes from: told by git, by the machine, by the clock."""

from __future__ import annotations

import math
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from whitebench import provenance
from whitebench.provenance import commit_of, now, processor_name, usable_cores


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_file_says_its_commit_and_whether_its_repository_has_changed_since(tmp_path: Path) -> None:
    file = tmp_path / "file"
    git(tmp_path, "init", "-q")
    file.write_text("one", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    assert commit_of(file) == (git(tmp_path, "rev-parse", "HEAD"), False)
    file.write_text("two", encoding="utf-8")
    assert commit_of(file)[1] is True


def test_asking_leaves_the_repository_as_it_is(tmp_path: Path) -> None:
    """A kill in between would else leave `.git/index.lock`, and git would refuse its owner from then on."""
    file = tmp_path / "file"
    git(tmp_path, "init", "-q")
    file.write_text("one", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    os.utime(file, (1, 1))  # git would note that only its time is another
    before = (tmp_path / ".git" / "index").read_bytes()
    assert commit_of(file)[1] is False
    assert (tmp_path / ".git" / "index").read_bytes() == before
    git(tmp_path, "status")
    assert (tmp_path / ".git" / "index").read_bytes() != before


def test_where_git_cannot_say_nothing_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit_of(tmp_path / "file") == (None, None)
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one", encoding="utf-8")
    assert commit_of(tmp_path / "file") == (None, None)  # not git's
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(tmp_path / "file") == (None, None)


def test_an_installed_package_does_not_take_the_commit_of_the_repository_it_happens_to_lie_in(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("site/", encoding="utf-8")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "somebody's own project")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "whitebench.py").write_text("", encoding="utf-8")
    assert commit_of(tmp_path / "site" / "whitebench.py") == (None, None)


def test_moments_are_in_utc_to_the_millisecond() -> None:
    moment = now()
    assert moment.endswith("Z")
    assert len(moment) == len("2026-01-01T00:00:00.000Z")
    assert abs(datetime.fromisoformat(moment) - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_processor_has_a_name() -> None:
    assert processor_name()


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", math.inf), ("250000 100000\n", 2.5), ("50000 100000\n", 0.5), ("nonsense\n", math.inf)],
)
def test_a_container_s_quota_is_read(tmp_path: Path, text: str, cores: float) -> None:
    (tmp_path / "cpu.max").write_text(text, encoding="ascii")
    assert provenance._quota(tmp_path / "cpu.max") == cores
    assert provenance._quota(tmp_path / "absent") == math.inf


@pytest.mark.parametrize(("quota", "expected"), [(math.inf, 4), (2.5, 2), (0.5, 1), (99.0, 4)])
def test_the_cores_to_use_are_those_of_this_process_within_its_quota_and_at_least_one(
    monkeypatch: pytest.MonkeyPatch, quota: float, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(provenance, "_quota", lambda _: quota)
    assert usable_cores() == expected
