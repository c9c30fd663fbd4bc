"""Bytes that are made once."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from whitebench_tasks.cache import cache_folder, cached


class Maker:
    """Makes bytes and counts how often it did."""

    def __init__(self, content: bytes = b"content") -> None:
        self.content, self.times = content, 0

    def __call__(self) -> bytes:
        self.times += 1
        return self.content


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "whitebench"


@pytest.mark.parametrize("content", [b"content", b""])
def test_bytes_are_made_once_and_kept_with_their_sha256(folder: Path, content: bytes) -> None:
    make = Maker(content)
    assert [cached("x", make), cached("x", make)] == [content, content]
    assert make.times == 1
    assert (folder / "x").read_bytes() == hashlib.sha256(content).digest() + content
    assert [file.name for file in folder.iterdir()] == ["x"]


def damaged(kept: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "cut off within its head": kept[:10],
        "cut off": kept[:-1],
        "longer": kept + b"x",
        "one bit": kept[:-1] + bytes([kept[-1] ^ 1]),
        "head": bytes([kept[0] ^ 1]) + kept[1:],
    }


@pytest.mark.parametrize("how", damaged(b"12"))
def test_a_damaged_file_is_made_anew_and_mended(folder: Path, how: str) -> None:
    cached("x", Maker())
    kept = (folder / "x").read_bytes()
    (folder / "x").write_bytes(damaged(kept)[how])
    make = Maker()
    assert cached("x", make) == b"content"
    assert make.times == 1
    assert (folder / "x").read_bytes() == kept


def test_where_the_folder_cannot_be_written_to_nothing_is_kept_and_nothing_said(folder: Path) -> None:
    folder.write_text("a file in its place")  # which stops even the system's own user
    make = Maker()
    assert [cached("x", make), cached("x", make)] == [b"content", b"content"]
    assert make.times == 2
    assert folder.read_text() == "a file in its place"


def test_a_full_disk_leaves_no_half_written_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert cached("x", Maker()) == b"content"
    assert list(folder.iterdir()) == []


def test_an_error_while_making_is_not_hidden(folder: Path) -> None:
    def broken() -> bytes:
        raise OSError("fonts are gone")

    with pytest.raises(OSError, match="fonts are gone"):
        cached("x", broken)
    assert not folder.exists()


def slowly() -> bytes:
    time.sleep(0.2)
    return bytes(range(256)) * 4096


def take(barrier: Callable[[], object], answers: multiprocessing.SimpleQueue[str]) -> None:
    barrier()
    answers.put(hashlib.sha256(cached("x", slowly)).hexdigest())


def test_two_processes_that_make_the_same_bytes_at_once_both_get_them_whole(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(2), context.SimpleQueue()
    writers = [context.Process(target=take, args=(barrier.wait, answers)) for _ in range(2)]
    for writer in writers:
        writer.start()
    got = {answers.get() for _ in writers}
    for writer in writers:
        writer.join()
    content = bytes(range(256)) * 4096
    assert got == {hashlib.sha256(content).hexdigest()}
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [file.name for file in folder.iterdir()] == ["x"]
    make = Maker()
    assert cached("x", make) == content
    assert make.times == 0


def test_nobody_sees_a_file_before_it_is_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bytes]] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        seen.append((target.exists(), self.read_bytes()))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    cached("x", Maker())
    assert seen == [(False, hashlib.sha256(b"content").digest() + b"content")]


def test_a_relative_folder_is_ignored_and_the_platform_s_own_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == Path("/home/ada/.cache/whitebench")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path("/home/ada/Library/Caches/whitebench")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/whitebench")


def test_a_user_without_a_home_goes_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert os.environ.get("XDG_CACHE_HOME") is None
    assert cached("x", Maker()) == b"content"
