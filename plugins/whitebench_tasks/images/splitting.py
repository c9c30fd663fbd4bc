"""Splitting: which pictures are for training, which for validation, which for the test.

    the set has                   train                validation            test
    train, validation, test       train                validation            test
    train, test                   nine tenths of it    a tenth of train      test
    train, validation             nine tenths of it    a tenth of train      validation
    train alone                   the rest             a tenth of the rest   a fifth of train

A tenth is one of each class. Which pictures it holds follows from the seed and from the pictures: those of a class are
ordered by the sha256 of seed and content, and the first are taken. So neither names nor order of files matter, and a
picture that is there twice stays on one side, but where the border runs between the two.

N pictures of a split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from whitebench import Split, TaskDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rows: TypeAlias = "tuple[str, NDArray[np.int64]]"
"""The name of a split in the set, and the places of pictures in it, in ascending order."""

_SALT = "whitebench-images-1"


def split_rows(
    task: str, labels: Mapping[str, NDArray[np.int64]], digests: Mapping[str, Sequence[bytes]], *, seed: int
) -> dict[Split, Rows]:
    """Return what each split holds.

    Args:
        task: its name, for errors.
        labels: by the names of the set's own splits, those of their pictures (N,).
        digests: likewise, the sha256 of each picture's content.
        seed: of the choice.

    Raises:
        TaskDataError: there is no train split, or a split or a trained class would be empty; says which.
    """
    if "train" not in labels:
        raise TaskDataError(f"{task}: it has no train split (splits: {', '.join(labels) or 'none'})")
    whole = {name: np.arange(len(one)) for name, one in labels.items()}
    test = "test" if "test" in labels else "validation" if "validation" in labels else ""
    is_whole = test == "test" and "validation" in labels
    kept = whole["train"]
    rows: dict[Split, Rows] = {}
    if test:
        rows["test"] = (test, whole[test])
    else:
        taken = _first_of_each(labels["train"], digests["train"], kept, 5, f"{seed}:test")
        rows["test"], kept = ("train", taken), np.setdiff1d(kept, taken)
    if is_whole:
        rows["validation"] = ("validation", whole["validation"])
    else:
        taken = _first_of_each(labels["train"], digests["train"], kept, 10, f"{seed}:validation")
        rows["validation"], kept = ("train", taken), np.setdiff1d(kept, taken)
    rows = {"train": ("train", kept), **rows}
    for split, (name, places) in rows.items():
        if not len(places):
            raise TaskDataError(
                f"{task}: nothing is left for {split}: {len(labels['train'])} pictures for training are too few"
            )
        unseen = np.setdiff1d(labels[name][places], labels["train"][kept])
        if len(unseen):
            raise TaskDataError(
                f"{task}: its {split} split has pictures of class {unseen[0]}, of which there are none to train with"
            )
    return rows


def _first_of_each(
    labels: NDArray[np.int64], digests: Sequence[bytes], places: NDArray[np.int64], part: int, stream: str
) -> NDArray[np.int64]:
    """Return one in `part` of each class, rounded half up, in ascending order."""
    taken: list[int] = []
    for label in np.unique(labels[places]):
        members = sorted(places[labels[places] == label].tolist(), key=lambda place: _key(stream, digests[place]))
        taken += members[: (len(members) + part // 2) // part]
    return np.array(sorted(taken), dtype=np.int64)


def _key(stream: str, digest: bytes) -> bytes:
    return hashlib.sha256(f"{_SALT}:{stream}:".encode() + digest).digest()


def count_shared(digests: Mapping[str, Sequence[bytes]], rows: Mapping[Split, Rows]) -> int:
    """Return how many pictures of the test split stand in another one as well, the same to the last bit."""
    known = {digests[name][place] for split in ("train", "validation") for name, places in (rows[split],)
             for place in places}  # fmt: skip
    name, places = rows["test"]
    return sum(digests[name][place] in known for place in places)
