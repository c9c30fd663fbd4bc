"""Which pictures of a folder are of which split and class: folders say it, and no other name does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.plugins.pictures import drawn, png
from whitebench import Split, TaskDataError
from whitebench_tasks.images import IMAGEFOLDER, prepared

pytest.importorskip("datasets")

PARTS: tuple[Split, ...] = ("train", "validation", "test")
NUMBERS = range(10)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(prepared, "_STAMP_SECONDS", 1e-9)  # tests change files faster than people


def written(root: Path, names: Sequence[str]) -> Path:
    """Write a picture of its own under each name; return the root."""
    for name, (_, pixels) in zip(names, drawn(len(names), seed=1, classes=["any"]), strict=True):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(pixels))
    return root


def numbered(*folders: str, file: str = "{}.png") -> list[str]:
    """Return the names of ten pictures in each folder."""
    return [f"{folder}/{file.format(number)}" for folder in folders for number in NUMBERS]


def read(root: Path) -> tuple[Sequence[str], Mapping[str, int]]:
    """Return the names of a set's classes, and the number of pictures of each split."""
    found = prepared.prepare(IMAGEFOLDER.config(path=str(root), size=6))
    return found.facts["classes"], {part: len(found.samples(part)) for part in PARTS}


UNSPLIT = {"train": 7, "validation": 1, "test": 2}
"""Of ten pictures of a class; where there is a test split, nine and one."""


@pytest.mark.parametrize(("names", "classes", "each"), [
    (numbered("bus", "car"), ["bus", "car"], UNSPLIT),
    (numbered("bus", "train"), ["bus", "train"], UNSPLIT),
    (numbered("airport", "train_station", "test-stand"), ["airport", "test-stand", "train_station"], UNSPLIT),
    (numbered("cat", "dog", file="train_{}.png"), ["cat", "dog"], UNSPLIT),
    (numbered("cat", "dog", file="test {}.png"), ["cat", "dog"], UNSPLIT),
    (numbered("__ground__", "data"), ["__ground__", "data"], UNSPLIT),
    (numbered("train/bus", "train/val", "test/bus", "test/val"), ["bus", "val"],
     {"train": 9, "validation": 1, "test": 10}),
    (numbered("train/bus", "train/train", "test/bus", "test/train"), ["bus", "train"],
     {"train": 9, "validation": 1, "test": 10}),
    (numbered("train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog", file="train_{}.png"),
     ["cat", "dog"], {"train": 10, "validation": 10, "test": 10}),
    (numbered("Train/cat", "Train/dog", "valid/cat", "valid/dog"), ["cat", "dog"],
     {"train": 9, "validation": 1, "test": 10}),
    ([*numbered("cat", "dog"), ".hidden/cat/1.png", "cat/._1.png"], ["cat", "dog"], UNSPLIT),
], ids=["classes", "class train", "classes like splits", "files like train", "files like test", "underscores",
        "class val in splits", "class train in splits", "files like train in splits", "Train and valid", "hidden"],
)  # fmt: skip
def test_splits_are_first_folders_that_hold_folders_of_classes_and_no_other_name_means_anything(
    tmp_path: Path, names: list[str], classes: list[str], each: Mapping[str, int]
) -> None:
    found, sizes = read(written(tmp_path / "set", names))
    assert found == classes
    assert sizes == {part: number * len(classes) for part, number in each.items()}


@pytest.mark.parametrize("name", ["a[1]", "train", "what? * ü #1", "data%20x"])
def test_the_folder_itself_may_be_called_anything(tmp_path: Path, name: str) -> None:
    assert read(written(tmp_path / name, numbered("c[a]t", "dog *")))[0] == ["c[a]t", "dog *"]


def test_two_colons_in_a_name_which_datasets_takes_for_an_archive_are_named(tmp_path: Path) -> None:
    with pytest.raises(TaskDataError, match=r"cat/a::b\.png: datasets reads no path with :: in it: rename"):
        read(written(tmp_path / "set", [*numbered("cat", "dog"), "cat/a::b.png"]))


def test_pictures_keep_the_order_of_their_paths(tmp_path: Path) -> None:
    """As datasets has them, a-b before a/, on which the sha256 of sets that were read before depends."""
    root = written(
        tmp_path / "set", [*numbered("train/a", "train/a-b"), "test/a-b/1.png", "test/a/10.png", "test/a/9.png"]
    )
    found = prepared.prepare(IMAGEFOLDER.config(path=str(root), size=6))
    assert found.samples("test").labels.tolist() == [1, 0, 0]


def test_classes_that_are_links_to_folders_are_read(tmp_path: Path) -> None:
    root, elsewhere = written(tmp_path / "set", numbered("cat")), written(tmp_path / "other", numbered("dogs"))
    (root / "dog").symlink_to(elsewhere / "dogs")
    assert read(root)[0] == ["cat", "dog"]


def test_files_of_metadata_and_text_are_passed_over(tmp_path: Path) -> None:
    root = written(tmp_path / "set", numbered("cat", "dog"))
    (root / "metadata.csv").write_text("file_name,caption\ncat/1.png,a cat\n")
    (root / "cat" / "1.png.txt").write_text("a cat")
    assert read(root) == (["cat", "dog"], {part: 2 * number for part, number in UNSPLIT.items()})


SPLIT = numbered("train/cat", "train/dog", "val/cat", "val/dog")


@pytest.mark.parametrize(("names", "message"), [
    ([*numbered("cat", "dog"), "stray.png"], r"imagefolder: stray\.png: 1 picture lies elsewhere than at CLASS/FILE"),
    ([*numbered("cat", "dog"), "cat/siam/1.png", "cat/siam/2.png"],
     r"imagefolder: cat/siam/1\.png: 2 pictures lie elsewhere than at CLASS/FILE, or that below train, validation "
     r"\(val\) and test: put each into the folder of its class, or take it out"),
    ([*SPLIT, "train/1.png"], r"train/1\.png: 1 picture lies elsewhere than at CLASS/FILE below train or val: put"),
    ([*SPLIT, "train/cat/siam/1.png"], r"train/cat/siam/1\.png: 1 picture lies elsewhere than at CLASS/FILE below"),
    ([*SPLIT, *numbered("test")], r"test/0\.png: 10 pictures lie elsewhere than at CLASS/FILE below train or val"),
    ([*SPLIT, *numbered("extra/cat")], r"extra/cat/0\.png: 10 pictures lie elsewhere than at CLASS/FILE below train"),
    ([*SPLIT, *numbered("validation/cat")], "imagefolder: val and validation are both its validation split: keep one"),
], ids=["beside classes", "below a class", "in a split", "below a split's class", "a split without classes",
        "beside splits", "two of one split"])  # fmt: skip
def test_pictures_that_lie_where_no_class_is_are_refused_by_name_and_number(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(TaskDataError, match=message):
        read(written(tmp_path / "set", names))


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    root = written(tmp_path / "set", numbered("cat", "dog"))
    (root / "cat" / "zz.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(
        TaskDataError, match=r"imagefolder: cat/zz\.png: cannot be read \(No such file or directory\): put"
    ):
        read(root)


def test_a_link_back_to_a_folder_above_is_named(tmp_path: Path) -> None:
    root = written(tmp_path / "set", numbered("cat", "dog"))
    (root / "cat" / "up").symlink_to(root)
    for ask in (prepared.prepare, prepared.find):
        with pytest.raises(TaskDataError, match=r"cat/up: is a link back to a folder that it lies in"):
            ask(IMAGEFOLDER.config(path=str(root), size=6))


def test_archives_among_pictures_are_named_and_not_read(tmp_path: Path) -> None:
    root = written(tmp_path / "set", numbered("cat", "dog"))
    (root / "set.zip").write_bytes(b"what it all came from, in no class")
    assert read(root)[0] == ["cat", "dog"]
    (root / "cat" / "more.zip").write_bytes(b"")
    with pytest.raises(
        TaskDataError, match=r"imagefolder: cat/more\.zip: archives are not read: unpack it, or take it out"
    ):
        read(root)


def test_a_folder_of_archives_and_one_archive_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    packed = tmp_path / "set" / "cat.zip"
    packed.write_bytes(b"")
    with pytest.raises(TaskDataError, match=r"no pictures, .*set \(archives are not read: unpack cat\.zip\)"):
        read(packed.parent)
    with pytest.raises(TaskDataError, match=r"cat\.zip is a file: give a folder of pictures"):
        read(packed)
