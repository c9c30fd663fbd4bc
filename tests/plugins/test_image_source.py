"""What a parquet file cannot be: each is told in a sentence that names the column, the row or the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.plugins.pictures import drawn, png, write_columns
from whitebench import TaskDataError
from whitebench_tasks.images import PARQUET, prepared

pytest.importorskip("datasets")

FILES = [png(pixels) for _, pixels in drawn(10, seed=1, classes=["any"])]
LABELS = [0, 1] * 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def read(tmp_path: Path, **splits: Mapping[str, Sequence[object]]) -> None:
    prepared.prepare(PARQUET.config(path=str(write_columns(tmp_path / "set", splits)), size=6))


def in_structs(files: Sequence[object]) -> list[object]:
    return [{"bytes": content, "path": None} for content in files]


@pytest.mark.parametrize(("images", "labels", "message"), [
    ([*range(10)], LABELS, r"parquet: the column 'image' of its train split holds Value\('int64'\), and a picture is "
                           r"the bytes of its file: say which by image=NAME"),
    (FILES, [[label] for label in LABELS], r"parquet: the column 'label' of its train split holds List.*, and a label "
                                           r"is a name or a whole number: say which by label=NAME"),
    (FILES, [{"a": label} for label in LABELS], r"the column 'label' of its train split holds \{'a'.*, and a label is"),
    ([*FILES[:5], None, *FILES[6:]], LABELS, "^train split, row 5: holds neither a picture's bytes nor a path: fill"),
    (in_structs([*FILES[:3], None, *FILES[4:]]), LABELS, "^train split, row 3: holds neither a picture's bytes nor"),
    ([b"no picture", *FILES[1:]], LABELS, "^train split, row 0: cannot be read as a picture"),
    ([*(f"{one}.png" for one in range(10))], LABELS, r"^0\.png \(train split, row 0\): cannot be read .*: put the"),
], ids=["numbers for pictures", "lists for labels", "structs for labels", "a null picture", "neither bytes nor path",
        "no picture", "a file that is gone"])  # fmt: skip
def test_a_column_or_row_that_holds_something_else_is_named(
    tmp_path: Path, images: Sequence[object], labels: Sequence[object], message: str
) -> None:
    with pytest.raises(TaskDataError, match=message):
        read(tmp_path, train={"image": images, "label": labels})


def test_files_of_different_columns_are_there_and_cannot_be_read_and_why_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(TaskDataError, match=(
        r"^parquet: the parquet files at .*set cannot be read \(ArrowInvalid: Failed to parse string: '\w+' as a "
        r"scalar of type int64\): mend the file that is meant, or take it out$"
    )):  # fmt: skip
        read(tmp_path, train={"image": FILES, "label": LABELS}, test={"image": FILES, "label": ["cat", "dog"] * 5})


def test_a_file_that_is_not_parquet_is_there_and_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"no")
    with pytest.raises(
        TaskDataError, match=r"^parquet: the parquet files at .* cannot be read \(ArrowInvalid: Parquet file"
    ):
        prepared.prepare(PARQUET.config(path=str(tmp_path)))


def test_a_folder_without_parquet_files_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(TaskDataError, match=r"^parquet: datasets finds no parquet files at .*set"):
        read(tmp_path)
