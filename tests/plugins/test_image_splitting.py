"""Which pictures are for training, validation and the test, and that nothing but the pictures decides it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from whitebench import TaskDataError
from whitebench_tasks.images.splitting import count_shared, split_rows


def digests(count: int, salt: str = "") -> list[bytes]:
    return [hashlib.sha256(f"{salt}{number}".encode()).digest() for number in range(count)]


def labelled(**sizes: int) -> dict[str, np.ndarray]:
    """Return splits of three classes in turn."""
    return {name: np.arange(size) % 3 for name, size in sizes.items()}


def split(seed: int = 0, **sizes: int) -> dict[str, tuple[str, list[int]]]:
    labels = labelled(**sizes)
    found = split_rows("t", labels, {name: digests(len(one), name) for name, one in labels.items()}, seed=seed)
    return {name: (source, places.tolist()) for name, (source, places) in found.items()}


def test_three_splits_are_taken_as_they_are() -> None:
    found = split(train=30, validation=6, test=9)
    assert found == {
        "train": ("train", [*range(30)]),
        "validation": ("validation", [*range(6)]),
        "test": ("test", [*range(9)]),
    }


@pytest.mark.parametrize("own", ["test", "validation"])
def test_where_there_are_two_the_second_is_the_test_and_a_tenth_of_each_trained_class_validates(own: str) -> None:
    found = split(train=90, **{own: 12})
    assert found["test"] == (own, [*range(12)])
    validation, train = found["validation"][1], found["train"][1]
    assert np.bincount(np.array(validation) % 3).tolist() == [3, 3, 3]
    assert sorted(validation + train) == [*range(90)]
    assert (validation, train) == (sorted(validation), sorted(train))


def test_of_one_split_a_fifth_is_the_test_and_a_tenth_of_the_rest_validates() -> None:
    found = split(train=150)
    sizes = {name: np.bincount(np.array(places) % 3).tolist() for name, (_, places) in found.items()}
    assert sizes == {"test": [10] * 3, "validation": [4] * 3, "train": [36] * 3}
    assert sorted(place for _, places in found.values() for place in places) == [*range(150)]


def test_the_choice_follows_from_the_seed_and_the_pictures_and_not_from_their_order() -> None:
    order = np.random.default_rng(0).permutation(90)
    labels, content = np.arange(90) % 3, digests(90)
    plain = split_rows("t", {"train": labels}, {"train": content}, seed=0)
    mixed = split_rows("t", {"train": labels[order]}, {"train": [content[place] for place in order]}, seed=0)
    for name in ("train", "validation", "test"):
        assert set(order[mixed[name][1]]) == set(plain[name][1])
    assert split(seed=1, train=90) != split(seed=0, train=90)


@pytest.mark.parametrize(("labels", "message"), [
    ({"test": [0, 1]}, r"it has no train split \(splits: test\)"),
    ({"train": [0, 1, 0, 1], "test": [0, 1]}, "nothing is left for validation: 4 pictures"),
    ({"train": [0] * 9, "validation": [0], "test": [1]}, "its test split has pictures of class 1, of which"),
])  # fmt: skip
def test_what_cannot_be_trained_and_tested_is_refused(labels: dict[str, list[int]], message: str) -> None:
    known = {name: np.array(one) for name, one in labels.items()}
    with pytest.raises(TaskDataError, match=f"t: {message}"):
        split_rows("t", known, {name: digests(len(one), name) for name, one in known.items()}, seed=0)


def test_test_pictures_that_stand_in_another_split_as_well_are_counted() -> None:
    labels = labelled(train=9, validation=3, test=6)
    content = {
        "train": digests(9),
        "validation": digests(3, "v"),
        "test": [*digests(2), *digests(1, "v"), *digests(3, "t")],
    }
    assert count_shared(content, split_rows("t", labels, content, seed=0)) == 3
