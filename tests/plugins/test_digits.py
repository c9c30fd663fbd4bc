import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from whitebench import Samples, Split, WhitebenchError
from whitebench_tasks.digits import DIGITS, DigitsOptions, shift_images, split_indices

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def serve(split: Split) -> Samples:
    return DIGITS.data(DigitsOptions(), split)


def test_every_image_of_scikit_learn_is_served_once_with_its_label() -> None:
    digits = load_digits()
    served = np.concatenate([np.c_[serve(split).inputs.flatten(1) * 16, serve(split).labels] for split in SPLITS])
    published = np.c_[digits.data, digits.target]
    assert len(np.unique(published, axis=0)) == 1797
    np.testing.assert_array_equal(np.unique(served, axis=0), np.unique(published, axis=0))
    assert len(served) == 1797


def test_samples_have_the_shape_and_the_range_that_the_spec_states() -> None:
    for split in SPLITS:
        samples = serve(split)
        assert samples.inputs.shape == (len(samples), *DIGITS.shape_of(DigitsOptions()))
        assert (samples.inputs.dtype, samples.labels.dtype) == (torch.float32, torch.int64)
        assert (samples.inputs.min().item(), samples.inputs.max().item()) == (0, 1)
        assert set(samples.labels.tolist()) == set(range(10))


def test_the_split_is_60_20_20_within_each_class() -> None:
    counts = {split: serve(split).labels.bincount() for split in SPLITS}
    assert [int(counts[split].sum()) for split in SPLITS] == [1078, 360, 359]
    total = counts["train"] + counts["validation"] + counts["test"]
    for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        assert ((counts[split] - share * total).abs() < 1).all()


def test_a_sample_s_split_is_its_hash_s_place_within_its_class() -> None:
    labels = [0, 1, 0, 1, 0, 0, 0]
    zeros = sorted([0, 2, 4, 5, 6], key=lambda i: hashlib.sha256(b"whitebench-digits-1:%d" % i).digest())
    indices = split_indices(labels)
    assert [i for i in indices["train"] if labels[i] == 0] == sorted(zeros[:3])
    assert [i for i in indices["validation"] if labels[i] == 0] == zeros[3:4]
    assert [i for i in indices["test"] if labels[i] == 0] == zeros[4:]


@pytest.mark.parametrize("split", SPLITS)
def test_the_bytes_served_are_those_of_the_manifest(split: Split) -> None:
    samples = serve(split)
    digest = hashlib.sha256(samples.inputs.numpy().astype("<f4").tobytes())
    digest.update(samples.labels.numpy().astype("<i8").tobytes())
    assert digest.hexdigest() == DIGITS.manifest_of(DigitsOptions())[split]


def test_label_noise_changes_training_labels_alone_and_says_so() -> None:
    noisy = DigitsOptions(label_noise=0.3)
    train, clean = DIGITS.data(noisy, "train"), serve("train")
    changed = int((train.labels != clean.labels).sum())
    assert torch.equal(train.inputs, clean.inputs)
    assert 0.21 < changed / 1078 < 0.33  # 0.3 * 9 / 10, and four standard deviations
    assert train.facts == {"label noise, nominal": 0.3, "label noise, flipped": changed / 1078}
    for split in SPLITS[1:]:
        assert DIGITS.data(noisy, split) is serve(split)
        assert serve(split).facts == {}


def test_the_manifest_says_nothing_of_training_labels_with_noise() -> None:
    assert set(DIGITS.manifest_of(DigitsOptions(shift=1))) == set(SPLITS)
    assert set(DIGITS.manifest_of(DigitsOptions(label_noise=0.1))) == {"validation", "test"}


@pytest.mark.parametrize("share", [-0.5, 1.5])
def test_label_noise_that_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(WhitebenchError, match=rf"digits\[label_noise={share}\].*between 0 and 1"):
        DigitsOptions(label_noise=share)


def test_without_shifts_the_images_pass_untouched() -> None:
    images = serve("validation").inputs
    assert shift_images(DigitsOptions(), images, torch.Generator()) is images


def test_a_shift_moves_the_image_whole_and_fills_with_zeros() -> None:
    images = torch.arange(1, 65).float().reshape(1, 1, 8, 8).repeat(400, 2, 1, 1)
    shifted = shift_images(DigitsOptions(shift=1), images, torch.Generator().manual_seed(0))
    by_hand = {}
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            moved = np.zeros((8, 8))
            for i in range(8):
                for j in range(8):
                    if 0 <= i - down < 8 and 0 <= j - right < 8:
                        moved[i, j] = 8 * (i - down) + (j - right) + 1
            by_hand[moved.tobytes()] = (down, right)
    seen = [by_hand[image[0].double().numpy().tobytes()] for image in shifted]
    assert {seen.count(shift) for shift in by_hand.values()} <= set(range(25, 65))  # 44 expected of each
    assert torch.equal(shifted[:, 0], shifted[:, 1])


def test_shifts_follow_from_the_generator_s_seed() -> None:
    images = serve("validation").inputs
    once, again, other = (
        shift_images(DigitsOptions(shift=2), images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


@pytest.mark.parametrize("shift", [-1, 8])
def test_shifts_that_leave_the_image_are_refused(shift: int) -> None:
    with pytest.raises(WhitebenchError, match=rf"digits\[shift={shift}\].*0 to 7"):
        DigitsOptions(shift=shift)


def test_fewer_training_samples_are_even_over_classes_and_nested() -> None:
    few, more = (DIGITS.data(DIGITS.config(train=count), "train") for count in (64, 256))
    assert (len(few), len(more)) == (64, 256)
    assert int(torch.bincount(few.labels).max()) - int(torch.bincount(few.labels).min()) <= 1
    known = {row.numpy().tobytes() for row in more.inputs}
    assert all(row.numpy().tobytes() in known for row in few.inputs)
    assert len(DIGITS.data(DIGITS.config(train=64), "test")) == 359


@pytest.mark.parametrize("count", [9, 1079])
def test_a_number_of_training_samples_that_there_is_not_is_refused(count: int) -> None:
    with pytest.raises(WhitebenchError, match="choose 10 to 1078"):
        DIGITS.config(train=count)
