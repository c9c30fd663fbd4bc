"""Sets of pictures as tasks: from folders and from parquet files, in memory and streamed, here and not here."""

from __future__ import annotations

import hashlib
import importlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.plugins.pictures import CLASSES, drawn, png, write_folder, write_parquet
from whitebench import Split, Stream, TaskDataError, TaskSpec
from whitebench.feed import arrange, batches
from whitebench.samples import fingerprint_of, load_samples
from whitebench.testing import check_task
from whitebench_tasks.images import CIFAR10, CIFAR100, IMAGEFOLDER, IMAGENET, PARQUET, prepared
from whitebench_tasks.images.prepared import SHARED

pytest.importorskip("datasets")

SPLITS = {"train": drawn(20, seed=1), "test": drawn(6, seed=2)}
PARTS: tuple[Split, ...] = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(prepared, "_STAMP_SECONDS", 1e-9)  # tests change files faster than people


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pets", SPLITS)


def options(task: TaskSpec, path: Path | None, **more: Any) -> Any:
    where = {"path": str(path)} if path else {}
    return task.config(**{"size": 6, **where, **more})


def read(task: TaskSpec, path: Path | None, **more: Any) -> Any:
    """Return the options, their data read."""
    asked = options(task, path, **more)
    assert task.prepare is not None
    task.prepare(asked)
    return asked


def test_a_folder_of_pictures_keeps_the_rules_of_every_task(folder: Path) -> None:
    check_task(IMAGEFOLDER, config=options(IMAGEFOLDER, folder))


def test_classes_are_the_folders_names_in_order_and_samples_the_pictures_of_the_files(folder: Path) -> None:
    asked = read(IMAGEFOLDER, folder)
    assert IMAGEFOLDER.classes_of(asked) == 3
    test = IMAGEFOLDER.data(asked, "test")
    wanted = [(CLASSES.index(name), pixels) for name, pixels in sorted(SPLITS["test"], key=lambda one: one[0])]
    assert test.labels.tolist() == [label for label, _ in wanted]
    assert test.inputs.dtype == torch.uint8
    assert all(np.array_equal(row.numpy(), pixels.transpose(2, 0, 1)) for row, (_, pixels) in
               zip(test.inputs, wanted, strict=True))  # fmt: skip
    assert [len(IMAGEFOLDER.data(asked, part)) for part in PARTS] == [54, 6, 18]


def test_the_manifest_is_the_sha256_of_the_pixels_and_then_of_the_labels(folder: Path) -> None:
    asked = read(IMAGEFOLDER, folder)
    for part in PARTS:
        samples = IMAGEFOLDER.data(asked, part)
        by_hand = hashlib.sha256(samples.inputs.numpy().tobytes() + samples.labels.numpy().astype("<i8").tobytes())
        assert IMAGEFOLDER.manifest_of(asked)[part] == by_hand.hexdigest() == load_samples(IMAGEFOLDER, asked, part)[1]


@pytest.mark.parametrize("named", [True, False], ids=["names", "numbers"])
def test_the_same_pictures_are_the_same_data_wherever_they_lie_and_whatever_they_are_packed_in(
    tmp_path: Path, folder: Path, named: bool
) -> None:
    by_class = {name: sorted(pictures, key=lambda one: one[0]) for name, pictures in SPLITS.items()}
    other = read(PARQUET, write_parquet(tmp_path / "packed", by_class, named=named))
    moved = read(IMAGEFOLDER, Path(shutil.copytree(folder, tmp_path / "elsewhere" / "copy")))
    here = read(IMAGEFOLDER, folder)
    assert IMAGEFOLDER.manifest_of(here) == IMAGEFOLDER.manifest_of(moved) == PARQUET.manifest_of(other)


def test_pictures_that_are_streamed_are_those_that_are_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = {part: IMAGEFOLDER.data(read(IMAGEFOLDER, folder), part) for part in PARTS}
    monkeypatch.setattr(prepared, "DECODED_BYTES", 0)
    asked = read(IMAGEFOLDER, folder)
    for part in PARTS:
        samples = IMAGEFOLDER.data(asked, part)
        assert isinstance(samples.inputs, Stream)
        assert IMAGEFOLDER.manifest_of(asked)[part] == fingerprint_of(samples)
        streamed = arrange(samples, most_bytes=0, workers=2)
        pictures = {tuple(row.flatten().tolist()) for batch in batches(streamed.inputs, 7) for row in batch}
        if part == "test":  # what validates is chosen by the bytes of files here, and by pixels there
            assert pictures == {tuple(row.flatten().tolist()) for row in held[part].inputs}
    check_task(IMAGEFOLDER, config=asked)


def test_a_streamed_set_s_manifest_is_of_the_files_bytes_whatever_they_are_packed_in(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "DECODED_BYTES", 0)
    by_class = {name: sorted(pictures, key=lambda one: one[0]) for name, pictures in SPLITS.items()}
    here, packed = read(IMAGEFOLDER, folder), read(PARQUET, write_parquet(tmp_path / "packed", by_class))
    assert IMAGEFOLDER.manifest_of(here) == PARQUET.manifest_of(packed)
    files = [png(pixels) for _, pixels in by_class["test"]]
    content = hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in files)).digest()
    labels = np.array([CLASSES.index(name) for name, _ in by_class["test"]], dtype="<i8")
    assert IMAGEFOLDER.manifest_of(here)["test"] == hashlib.sha256(content + labels.tobytes()).hexdigest()


def test_a_set_that_changes_is_other_data_once_it_is_read_again(folder: Path) -> None:
    asked = read(IMAGEFOLDER, folder)
    before = IMAGEFOLDER.manifest_of(asked)
    (folder / "test" / "cat" / "0001.png").write_bytes(png(drawn(1, seed=9)[0][1]))
    with pytest.raises(
        TaskDataError, match="imagefolder: its pictures have not been read on this machine, or have changed"
    ):
        IMAGEFOLDER.manifest_of(asked)
    read(IMAGEFOLDER, folder)
    after = IMAGEFOLDER.manifest_of(asked)
    assert [after[part] == before[part] for part in PARTS] == [True, True, False]


def test_pictures_of_the_test_that_stand_in_training_are_counted_and_said(tmp_path: Path) -> None:
    both = {"train": SPLITS["train"], "test": [*SPLITS["test"], *SPLITS["train"][:2]]}
    asked = options(IMAGEFOLDER, write_folder(tmp_path / "leaky", both))
    assert IMAGEFOLDER.prepare is not None
    assert IMAGEFOLDER.prepare(asked) == [f"2 of 20 {SHARED}"]
    assert IMAGEFOLDER.data(asked, "train").facts == {SHARED: 2.0}


def test_a_folder_without_splits_is_split(tmp_path: Path) -> None:
    asked = read(IMAGEFOLDER, write_folder(tmp_path / "pets", {"": drawn(20, seed=1)}))
    assert [len(IMAGEFOLDER.data(asked, part)) for part in PARTS] == [42, 6, 12]


def test_a_class_that_a_split_lacks_is_still_a_class(tmp_path: Path) -> None:
    lacking = {"train": SPLITS["train"], "test": drawn(6, seed=2, classes=CLASSES[:1] + CLASSES[2:])}
    asked = read(IMAGEFOLDER, write_folder(tmp_path / "pets", lacking))
    assert IMAGEFOLDER.classes_of(asked) == 3
    assert set(IMAGEFOLDER.data(asked, "test").labels.tolist()) == {0, 2}


def test_columns_have_the_names_that_one_says(tmp_path: Path) -> None:
    packed = write_parquet(tmp_path / "packed", SPLITS, image="photo", label="animal")
    with pytest.raises(TaskDataError, match=r"parquet: its train split has no column 'image' \(columns: photo, animal\)"
                                            ": say which by image=NAME"):  # fmt: skip
        read(PARQUET, packed)
    assert PARQUET.classes_of(read(PARQUET, packed, image="photo", label="animal")) == 3


def refused(tmp_path: Path, what: str) -> Path:
    if what == "one class":
        return write_folder(tmp_path / "set", {"train": drawn(9, seed=1, classes=["cat"])})
    if what == "damaged":
        root = write_folder(tmp_path / "set", SPLITS)
        (root / "train" / "cat" / "0001.png").write_bytes(b"no picture")
        return root
    if what == "untrained class":
        return write_folder(tmp_path / "set", {**SPLITS, "test": [*SPLITS["test"], ("emu", SPLITS["test"][0][1])]})
    if what == "empty":
        (tmp_path / "set").mkdir()
    return tmp_path / "set"


@pytest.mark.parametrize(("what", "message"), [
    ("one class", "imagefolder: all pictures are of one class: to be told apart they need two or more"),
    ("damaged", r"train/cat/0001\.png: cannot be read as a picture"),
    ("untrained class", "imagefolder: its test split has pictures of class 3, of which there are none to train with"),
    ("empty", "imagefolder: datasets finds no pictures, a folder for each class at"),
    ("gone", "imagefolder: there is nothing at .*set: put pictures, a folder for each class there, or give another"),
])  # fmt: skip
def test_a_set_that_cannot_be_used_says_why_and_leaves_nothing_half_read(
    tmp_path: Path, what: str, message: str
) -> None:
    with pytest.raises(TaskDataError, match=message):
        read(IMAGEFOLDER, refused(tmp_path, what))
    assert list((tmp_path / "cache" / "whitebench" / "images").glob("*")) == []


def test_without_a_path_a_folder_says_how_to_give_one() -> None:
    with pytest.raises(TaskDataError, match=r"Write imagefolder\[path=FOLDER\], or a path under \[paths\]"):
        read(IMAGEFOLDER, None)


@pytest.mark.parametrize(("task", "repository"), [
    (CIFAR10, "uoft-cs/cifar10"), (CIFAR100, "uoft-cs/cifar100"), (IMAGENET, "ILSVRC/imagenet-1k"),
])  # fmt: skip
def test_a_set_of_the_hub_that_cannot_be_had_says_what_to_fetch_and_where_to_put_it(
    task: TaskSpec, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = importlib.import_module("datasets")

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach it on the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert task.prepare is not None
    with pytest.raises(TaskDataError, match=(
        rf"{task.name}: its data are not on this machine, and cannot be had from the hub \(ConnectionError: Couldn't "
        rf"reach it on the Hub\)\. Without a network here, fetch them where there is one, by `hf download "
        rf"{repository} --repo-type dataset --revision abc --local-dir {task.name}`, bring that folder here, and say "
        rf"where it is: --set paths\.{task.name}=FOLDER"
    )):  # fmt: skip
        task.prepare(task.config(revision="abc"))
    with pytest.raises(TaskDataError, match="have not been read on this machine"):
        task.manifest_of(task.config())


@pytest.mark.parametrize("task", [CIFAR10, CIFAR100, IMAGENET], ids=lambda task: task.name)
def test_the_hub_is_asked_for_the_pinned_commit(task: TaskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unreachable(*_: object, revision: str, **__: object) -> None:
        asked.append(revision)
        raise ConnectionError("no network")

    monkeypatch.setattr(importlib.import_module("datasets"), "load_dataset", unreachable)
    assert task.prepare is not None
    with pytest.raises(TaskDataError, match=f"--revision {task.config().origin.revision} "):
        task.prepare(task.config())
    assert [len(one) for one in asked] == [40]


def test_a_copy_of_cifar10_as_the_hub_serves_it_is_read_from_its_folder(tmp_path: Path) -> None:
    """Columns img and label, 10 classes, a train and a test split; a tenth of train validates."""
    ten = [f"class-{place}" for place in range(10)]
    copy = {"train": drawn(10, seed=1, side=32, classes=ten), "test": drawn(2, seed=2, side=32, classes=ten)}
    asked = CIFAR10.config(path=str(write_parquet(tmp_path / "copy" / "plain_text", copy, image="img", named=False)))
    check_task(CIFAR10, config=asked)
    assert (CIFAR10.classes_of(asked), CIFAR10.shape_of(asked)) == (10, (3, 32, 32))
    assert [len(CIFAR10.data(asked, part)) for part in PARTS] == [90, 10, 20]
    assert CIFAR10.scaling is not None
    assert CIFAR10.scaling(asked) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_copy_that_has_other_classes_is_not_the_set(tmp_path: Path) -> None:
    with pytest.raises(TaskDataError, match="cifar10: it has 10 classes, and there are 3: is this the set"):
        read(CIFAR10, write_parquet(tmp_path / "copy", SPLITS, image="img"))


def test_a_test_split_whose_labels_are_kept_back_gives_way_to_validation(tmp_path: Path) -> None:
    """As ImageNet's: every label of its test split is -1."""
    import pandas as pd

    root = write_parquet(tmp_path / "copy", {"train": SPLITS["train"], "validation": SPLITS["test"]}, named=False)
    hidden = [{"image": {"bytes": png(pixels), "path": None}, "label": -1} for _, pixels in drawn(2, seed=5)]
    pd.DataFrame(hidden).to_parquet(root / "test-00000-of-00001.parquet")
    asked = read(PARQUET, root)
    assert [len(PARQUET.data(asked, part)) for part in PARTS] == [54, 6, 18]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_of_a_streamed_set_is_named_by_whoever_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(prepared, "DECODED_BYTES", 0)
    asked = read(IMAGEFOLDER, refused(tmp_path, "damaged"))
    samples = arrange(IMAGEFOLDER.data(asked, "train"), most_bytes=0, workers=workers)
    with pytest.raises(TaskDataError, match=r"^train/cat/0001\.png: cannot be read as a picture"):
        list(batches(samples.inputs, 8))
