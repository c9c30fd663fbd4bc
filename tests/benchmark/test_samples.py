"""Data as it is served: checked, fingerprinted, cut into batches."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from whitebench import Samples, TaskSpec
from whitebench.errors import TaskDataError
from whitebench.samples import EpochSampler, InOrder, TensorBatches, fingerprint_of, load_samples
from whitebench.seeds import mix

INPUTS = torch.tensor([[1.0, -2.5], [0.0, 3.0], [4.0, 4.0]])
LABELS = torch.tensor([0, 1, 1])
SHA = hashlib.sha256(struct.pack("<6f", 1, -2.5, 0, 3, 4, 4) + struct.pack("<3q", 0, 1, 1)).hexdigest()


@dataclass(frozen=True)
class Nothing:
    pass


def task(served: object, **change: Any) -> TaskSpec:
    facts: dict[str, Any] = {"name": "t", "version": 1, "summary": "", "shape": (2,), "classes": 2, "config": Nothing}
    return TaskSpec(**{**facts, "data": lambda _config, _split: served, **change})


def test_a_split_comes_with_the_sha256_of_its_little_endian_bytes() -> None:
    samples, fingerprint = load_samples(task(Samples(inputs=INPUTS, labels=LABELS)), Nothing(), "train")
    assert len(samples) == 3
    assert fingerprint == SHA


def test_the_fingerprint_is_of_values_and_not_of_their_layout_in_memory() -> None:
    turned = INPUTS.t().contiguous().t()
    assert not turned.is_contiguous()
    assert fingerprint_of(Samples(inputs=turned, labels=LABELS)) == SHA
    assert fingerprint_of(Samples(inputs=INPUTS, labels=LABELS.flip(0))) != SHA


def test_a_manifest_that_agrees_is_silent_and_one_that_does_not_says_so() -> None:
    good = Samples(inputs=INPUTS, labels=LABELS)
    load_samples(task(good, manifest={"train": SHA}), Nothing(), "train")
    with pytest.raises(
        TaskDataError, match=f"task 't', split 'test': the data served has sha256 {SHA[:12]}…, its manifest"
    ):
        load_samples(task(good, manifest={"test": "0" * 64}), Nothing(), "test")


@dataclass(frozen=True)
class Noise:
    noise: float = 0.0


def test_a_manifest_that_follows_from_the_options_is_asked_for_those_in_use() -> None:
    good = Samples(inputs=INPUTS, labels=LABELS)
    clean = task(good, config=Noise, manifest=lambda options: {} if options.noise else {"train": "0" * 64})
    load_samples(clean, Noise(noise=0.1), "train")
    with pytest.raises(TaskDataError, match="its manifest says 000000000000"):
        load_samples(clean, Noise(), "train")


def test_samples_are_checked_against_the_shape_that_the_options_give() -> None:
    good = Samples(inputs=INPUTS, labels=LABELS)
    sized = task(good, config=Noise, shape=lambda options: (2,) if options.noise else (3,))
    load_samples(sized, Noise(noise=0.1), "train")
    with pytest.raises(TaskDataError, match=r"inputs are \(3, 2\) .* the Spec says \(N, 3\)"):
        load_samples(sized, Noise(), "train")


def test_nothing_is_said_of_samples_unless_the_task_says_it() -> None:
    assert Samples(inputs=INPUTS, labels=LABELS).facts == {}
    told = Samples(inputs=INPUTS, labels=LABELS, facts={"writers": 13})
    assert load_samples(task(told), Nothing(), "train")[0].facts == {"writers": 13}


@pytest.mark.parametrize(
    ("served", "message"),
    [
        ((INPUTS, LABELS), "data returned a tuple; it must return Samples"),
        (None, "data returned a NoneType"),
        (Samples(inputs=INPUTS.double(), labels=LABELS), "inputs must be float32 and labels int64, got torch.float64"),
        (Samples(inputs=INPUTS, labels=LABELS.int()), "labels int64, got torch.float32, torch.int32"),
        (
            Samples(inputs=INPUTS[:, :1], labels=LABELS),
            r"inputs are \(3, 1\) and labels \(3,\); the Spec says \(N, 2\)",
        ),
        (Samples(inputs=INPUTS[:2], labels=LABELS), r"inputs are \(2, 2\) and labels \(3,\)"),
        (Samples(inputs=INPUTS, labels=LABELS[:, None]), r"labels \(3, 1\); the Spec says"),
        (Samples(inputs=INPUTS[:0], labels=LABELS[:0]), r"it needs samples with labels in \[0, 2\)"),
        (Samples(inputs=INPUTS, labels=LABELS + 1), r"labels in \[0, 2\)"),
        (Samples(inputs=INPUTS, labels=LABELS - 1), r"labels in \[0, 2\)"),
        (Samples(inputs=INPUTS / 0, labels=LABELS), "inputs hold values that are not finite numbers"),
        (Samples(inputs=INPUTS.to("meta"), labels=LABELS), "samples must be served on the CPU, got meta"),
    ],
)
def test_data_that_is_not_what_its_spec_says_is_refused_with_task_and_split(served: object, message: str) -> None:
    with pytest.raises(TaskDataError, match=f"task 't', split 'train': .*{message}"):
        load_samples(task(served), Nothing(), "train")


@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 2**31 - 1), st.integers(0, 1000))
def test_an_epoch_has_every_sample_once_in_batches_of_which_only_the_last_may_be_smaller(
    samples: int, size: int, seed: int, epoch: int
) -> None:
    sampler = EpochSampler(samples, size, seed)
    sampler.set_epoch(epoch)
    batches = [batch.tolist() for batch in sampler]
    assert sorted(index for batch in batches for index in batch) == list(range(samples))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert len(batches) == len(sampler)


def orders(*seeds_and_epochs: tuple[int, int]) -> list[list[int]]:
    found = []
    for seed, epoch in seeds_and_epochs:
        sampler = EpochSampler(50, 8, seed)
        sampler.set_epoch(epoch)
        found.append([index for batch in sampler for index in batch.tolist()])
    return found


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    one, again, other_epoch, other_seed = orders((0, 3), (0, 3), (0, 4), (1, 3))
    assert one == again
    assert one not in (other_epoch, other_seed)


def test_the_order_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    orders((0, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_in_order_is_the_samples_own_order() -> None:
    assert [batch.tolist() for batch in InOrder(5, 2)] == [[0, 1], [2, 3], [4]]
    assert len(InOrder(5, 2)) == 3


def test_batches_are_cut_from_the_whole_tensors() -> None:
    inputs, labels, count = TensorBatches(Samples(inputs=INPUTS, labels=LABELS))[torch.tensor([2, 0])]
    assert count == 2
    assert inputs.tolist() == [[4.0, 4.0], [1.0, -2.5]]
    assert labels.tolist() == [1, 0]


def test_a_mixed_seed_depends_on_every_number_and_their_order_and_fits_a_generator() -> None:
    seeds = [mix(), mix(0), mix(1), mix(0, 0), mix(0, 1), mix(1, 0), mix(10), mix(2**31 - 1, 5)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix(3) == int.from_bytes(hashlib.sha256(b"(3,)").digest()[:8], "little") >> 1
    torch.Generator().manual_seed(max(seeds))
