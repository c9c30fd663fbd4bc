"""Labels drawn anew."""

from __future__ import annotations

import pytest
import torch

from whitebench import Samples, WhitebenchError
from whitebench_tasks.chance import Stream
from whitebench_tasks.label_noise import check_label_noise, with_label_noise


def clean(size: int, classes: int) -> Samples:
    return Samples(inputs=torch.zeros(size, 1), labels=torch.arange(size) % classes)


def noisy(share: float, *, size: int = 20_000, classes: int = 10, stream: str = "s") -> Samples:
    return with_label_noise(clean(size, classes), share, classes=classes, stream=stream)


def test_a_label_is_drawn_anew_where_the_sample_s_own_number_is_below_the_share() -> None:
    numbers = Stream("s").uniform(50, 2)
    by_hand = [int(anew * 10) if chance < 0.4 else i % 10 for i, (chance, anew) in enumerate(numbers.tolist())]
    assert noisy(0.4, size=50).labels.tolist() == by_hand


@pytest.mark.parametrize("classes", [2, 10, 62])
@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_the_share_that_flips_is_that_of_the_binomial_law(share: float, classes: int) -> None:
    expected = share * (1 - 1 / classes)
    flipped = float((noisy(share, classes=classes).labels != clean(20_000, classes).labels).float().mean())
    assert abs(flipped - expected) < 4 * (expected * (1 - expected) / 20_000) ** 0.5  # four standard deviations


def test_new_labels_are_even_over_all_classes() -> None:
    counts = noisy(1.0).labels.bincount()
    assert len(counts) == 10
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 27.9  # chi square of 9 degrees: passed by 1 in 1,000


def test_the_nominal_share_and_the_exact_share_of_changed_labels_are_stated() -> None:
    samples = noisy(0.3, size=1000)
    changed = sum(label != i % 10 for i, label in enumerate(samples.labels.tolist()))
    assert samples.facts == {"label noise, nominal": 0.3, "label noise, flipped": changed / 1000}


def test_what_else_is_said_of_the_samples_stays_said() -> None:
    told = Samples(inputs=torch.zeros(5, 1), labels=torch.zeros(5).long(), facts={"writers": 13})
    assert with_label_noise(told, 0.5, classes=2, stream="s").facts["writers"] == 13


def test_what_is_changed_at_a_tenth_is_changed_in_the_same_way_at_three_tenths() -> None:
    labels, little, much = clean(20_000, 10).labels, noisy(0.1).labels, noisy(0.3).labels
    is_changed = little != labels
    assert torch.equal(little[is_changed], much[is_changed])
    assert (much != labels).sum() > 2 * is_changed.sum()


def test_a_longer_training_set_begins_with_the_shorter_one() -> None:
    assert torch.equal(noisy(0.3).labels[:500], noisy(0.3, size=500).labels)


def test_the_stream_s_name_decides_which_labels_change() -> None:
    assert not torch.equal(noisy(0.3, stream="one").labels, noisy(0.3, stream="other").labels)


def test_without_noise_the_samples_pass_untouched() -> None:
    samples = clean(5, 2)
    assert with_label_noise(samples, 0.0, classes=2, stream="s") is samples
    assert samples.facts == {}


def test_clean_samples_stay_clean() -> None:
    samples = clean(100, 10)
    with_label_noise(samples, 1.0, classes=10, stream="s")
    assert torch.equal(samples.labels, torch.arange(100) % 10)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(WhitebenchError, match=rf"digits\[label_noise={share}\]: .* between 0 and 1"):
        check_label_noise("digits", share)
    check_label_noise("digits", 0.0)
    check_label_noise("digits", 1.0)
