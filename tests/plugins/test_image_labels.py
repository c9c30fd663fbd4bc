"""What is a class in parquet files: names and numbers are, and what is missing is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.pictures import write_labels
from whitebench import TaskDataError
from whitebench_tasks.images import CIFAR10, PARQUET, prepared

pytest.importorskip("datasets")

NAN = float("nan")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def classes(tmp_path: Path, **labels: Sequence[object]) -> Any:
    """Return the classes of a set with such labels in its splits."""
    return prepared.prepare(PARQUET.config(path=str(write_labels(tmp_path / "set", labels)), size=6)).facts["classes"]


def test_numbers_that_no_picture_has_are_classes_too_a_thousand_for_each_that_one_has(tmp_path: Path) -> None:
    assert classes(tmp_path, train=[0, 1999] * 9) == [str(one) for one in range(2000)]


@pytest.mark.parametrize("largest", [2000, 20_000_000, 10**10])
def test_numbers_that_count_much_further_than_there_are_labels_are_no_classes(tmp_path: Path, largest: int) -> None:
    with pytest.raises(TaskDataError, match=(
        f"parquet: its labels count up to {largest}, and 2 of these numbers have pictures: count classes from 0, at "
        "most 1,000 for each that has pictures, or write labels as text"
    )):  # fmt: skip
        classes(tmp_path, train=[0, largest] * 9)


def test_a_set_of_the_hub_with_a_label_far_beyond_its_classes_is_another_set(tmp_path: Path) -> None:
    root = write_labels(tmp_path / "set", {"train": [0, 10**10]}, image="img")
    with pytest.raises(TaskDataError, match="cifar10: it has 10 classes, and there are 10000000001: is this the set"):
        prepared.prepare(CIFAR10.config(path=str(root)))


@pytest.mark.parametrize("label", [0, 1, "cat"])
def test_one_label_is_one_class_whatever_it_is(tmp_path: Path, label: object) -> None:
    with pytest.raises(TaskDataError, match="parquet: all pictures are of one class"):
        classes(tmp_path, train=[label] * 9)


@pytest.mark.parametrize(("train", "test", "message"), [
    ([0, 1, None] * 6, [0, 1], "row 2 of its train split has the label None; labels are 0 to 1, or names of the 2"),
    (["cat", None, "dog"] * 6, ["cat", "dog"], "row 1 of its train split has the label None; labels are 0 to 1"),
    ([NAN, 0.0, 1.0] * 6, [0.0, 1.0], "row 0 of its train split has the label nan; labels are 0 to 1"),
    (["cat", "None"] * 9, ["cat", None, "None"], "row 1 of its test split has the label None; labels are 0 to 1"),
    ([0, 1] * 9, [1, None, 0], "row 1 of its test split has the label None; labels are 0 to 1"),
], ids=["number", "name", "NaN", "a class None", "in the test"])  # fmt: skip
def test_a_picture_without_a_label_has_no_class_and_its_row_is_named(
    tmp_path: Path, train: list[object], test: list[object], message: str
) -> None:
    with pytest.raises(TaskDataError, match=message):
        classes(tmp_path, train=train, test=test)


@pytest.mark.parametrize("hidden", [[-1, -1], [None, None], [None, -1]])
def test_a_test_split_all_of_whose_labels_are_kept_back_counts_as_not_there(
    tmp_path: Path, hidden: list[object]
) -> None:
    assert classes(tmp_path, train=[0, 1] * 9, test=hidden) == ["0", "1"]
