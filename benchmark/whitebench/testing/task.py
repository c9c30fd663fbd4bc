"""The rules for tasks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, get_args

import torch

from whitebench.errors import TaskDataError
from whitebench.samples import fingerprint_of, load_samples
from whitebench.specs import Samples, Split, TaskSpec
from whitebench.testing.rule import rule


def check_task(spec: TaskSpec, *, config: Any = None, most_shared: float = 0.01) -> None:
    """Check a task with its default options, or those of `config`.

    Args:
        spec: the task.
        config: an instance of the Spec's config.
        most_shared: the largest share of test samples that also stand, byte for byte, in another split;
            real data has its duplicates.

    Raises:
        AssertionError: the first rule that it breaks.
    """
    who, config = f"task {spec.name!r}", spec.config() if config is None else config
    splits = {split: _served(spec, config, split) for split in get_args(Split)}
    _check_manifest(who, spec, config, splits)
    _check_apart(who, splits, most_shared)
    unseen = sorted(set(splits["test"].labels.tolist()) - set(splits["train"].labels.tolist()))
    rule(not unseen, who, f"classes {unseen} are tested and never trained", "stratify the splits")
    if spec.augment is not None:
        _check_augment(who, spec, config, splits["train"])


def _served(spec: TaskSpec, config: Any, split: Split) -> Samples:
    try:
        samples, first = load_samples(spec, config, split)
        _, second = load_samples(spec, config, split)
    except TaskDataError as error:
        raise AssertionError(str(error)) from error
    mend = "make data a function of its options and the split"
    rule(first == second, f"task {spec.name!r}, split {split!r}", "two calls served different bytes", mend)
    return samples


def _check_manifest(who: str, spec: TaskSpec, config: Any, splits: Mapping[Split, Samples]) -> None:
    lines = ", ".join(f'"{split}": "{fingerprint_of(samples)}"' for split, samples in splits.items())
    if callable(spec.manifest) and config != spec.config():
        return  # whatever splits these options change may be left out
    manifest = spec.manifest_of(config)
    lacking = [split for split in splits if split not in manifest]
    if manifest:
        rule(not lacking, who, f"the manifest lacks {lacking}", f"write manifest={{{lines}}}")
    elif not dataclasses.fields(spec.config):
        rule(not lacking, who, "without options and without a manifest", f"write manifest={{{lines}}}")


def _check_apart(who: str, splits: Mapping[Split, Samples], most_shared: float) -> None:
    rows = {split: [_digest(row) for row in samples.inputs] for split, samples in splits.items()}
    known = {*rows["train"], *rows["validation"]}
    shared = sum(row in known for row in rows["test"])
    seen = f"{shared} of {len(rows['test'])} test samples stand in another split as well"
    mend = "split what is different, or say how large a share is meant with most_shared"
    rule(shared <= most_shared * len(rows["test"]), who, seen, mend)


def _digest(row: torch.Tensor) -> bytes:
    return hashlib.sha256(row.contiguous().numpy().tobytes()).digest()


def _check_augment(who: str, spec: TaskSpec, config: Any, samples: Samples) -> None:
    assert spec.augment is not None
    who, given, state = f"{who}, augment", samples.inputs[:16], torch.get_rng_state()
    kept = given.clone()
    one = spec.augment(config, given, torch.Generator().manual_seed(1))
    two = spec.augment(config, given, torch.Generator().manual_seed(1))
    same_kind = one.shape == given.shape and one.dtype == given.dtype
    rule(same_kind, who, f"it made {tuple(one.shape)}, {one.dtype} of {tuple(given.shape)}", "keep shape and type")
    rule(torch.equal(given, kept), who, "it changes the samples in place", "return a new tensor")
    is_own = torch.equal(one, two) and torch.equal(state, torch.get_rng_state())
    rule(is_own, who, "it draws from elsewhere than its generator", "pass generator= to every random function")
