"""What is kept of a set that was read: found only where it is whole, and replaced where it is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.pictures import drawn, write_folder
from whitebench import TaskDataError
from whitebench_tasks.images import IMAGEFOLDER, prepared

pytest.importorskip("datasets")

SPLITS = {"train": drawn(10, seed=1), "test": drawn(3, seed=2)}


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return IMAGEFOLDER.config(path=str(write_folder(tmp_path / "pets", SPLITS)), size=6)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


HELD, STREAMED = prepared.DECODED_BYTES, 0


@pytest.mark.parametrize(("most_bytes", "name", "damage"), [
    (HELD, "facts.json", Path.unlink), (HELD, "facts.json", lambda file: file.write_text("")),
    (HELD, "facts.json", lambda file: file.write_text("{}")), (HELD, "facts.json", lambda file: file.write_text("[]")),
    (HELD, "test-pixels.npy", Path.unlink), (HELD, "train-pixels.npy", cut), (HELD, "validation-labels.npy", cut),
    (STREAMED, "test-rows.npy", Path.unlink), (STREAMED, "train-rows.npy", cut), (STREAMED, "facts.json", Path.unlink),
    (HELD, "", shutil.rmtree), (HELD, "", lambda folder: [file.unlink() for file in folder.iterdir()]),
], ids=["no facts", "empty facts", "no facts within", "facts of another kind", "no pixels", "pixels cut", "labels cut",
        "no rows", "rows cut", "no facts of a stream", "gone", "emptied"])  # fmt: skip
def test_a_set_of_whose_kept_files_one_is_gone_or_cut_is_not_found_and_is_read_again(
    options: Any, most_bytes: int, name: str, damage: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "DECODED_BYTES", most_bytes)
    before = prepared.prepare(options)
    damage(before.folder / name)
    with pytest.raises(TaskDataError, match="imagefolder: its pictures have not been read on this machine"):
        prepared.find(options)
    after = prepared.prepare(options)
    assert (after.folder, after.manifest) == (before.folder, before.manifest)
    assert [len(after.samples(part)) for part in after.manifest] == [27, 3, 9]
    assert sorted(file.name for file in after.folder.parent.iterdir()) == [".lock", after.folder.name]


def test_of_two_processes_that_read_the_same_the_first_one_s_stays(
    options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_into = prepared._read_into
    places: list[int] = []

    def overtaken(draft: Path, asked: Any) -> None:
        read_into(draft, asked)
        if not places:
            places.append(0)
            places[0] = prepared.prepare(options).folder.stat().st_ino

    monkeypatch.setattr(prepared, "_read_into", overtaken)
    found = prepared.prepare(options)
    assert found.folder.stat().st_ino == places[0]
    assert sorted(file.name for file in found.folder.parent.iterdir()) == [".lock", found.folder.name]
