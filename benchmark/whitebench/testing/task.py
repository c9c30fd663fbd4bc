"""The rules for tasks."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_args

import torch
from torch import nn

from whitebench.catalog import load_catalog
from whitebench.errors import TaskDataError
from whitebench.feed import batches, to_numbers
from whitebench.samples import fingerprint_of, load_samples
from whitebench.solving import checked
from whitebench.specs import ModelSpec, Samples, Solution, Split, TaskSpec
from whitebench.testing.rule import attempt, rule

BLOCKS = ((0, 1), (0, 2), (1, 1))
"""What is solved, and the seed of torch's own generator, which is to have no part in it."""


def check_task(
    spec: TaskSpec, *, config: Any = None, most_shared: float = 0.01, contestant: nn.Module | None = None
) -> None:
    """Check a task with its default options, or those of `config`.

    Args:
        spec: the task.
        config: an instance of the Spec's config.
        most_shared: the largest share of test samples that also stand, byte for byte, in another split;
            real data has its duplicates.
        contestant: what a task that solves itself is solved with; of the registered models the first that has the
            methods it asks for, where not given.

    Raises:
        AssertionError: the first rule that it breaks.
    """
    who, config = f"task {spec.name!r}", spec.config() if config is None else config
    if spec.solve is not None:
        _check_solving(who, spec, config, contestant or _contestant(who, spec))
        return
    if spec.prepare is not None:
        spec.prepare(config)
    splits = {part: _served(spec, config, part) for part in get_args(Split)}
    _check_manifest(who, spec, config, splits)
    _check_apart(who, splits, most_shared)
    unseen = sorted(set(splits["test"].labels.tolist()) - set(splits["train"].labels.tolist()))
    rule(not unseen, who, f"classes {unseen} are tested and never trained", "stratify the splits")
    if spec.augment is not None:
        _check_augment(who, spec, config, splits["train"])


def _contestant(who: str, spec: TaskSpec) -> nn.Module:
    models: list[ModelSpec] = [entry.spec for entry in load_catalog().entries["model"].values()]
    modules = (model.build(model.config(), (), 0) for model in models if not model.head)
    found = next((one for one in modules if all(callable(getattr(one, method, None)) for method in spec.asks)), None)
    rule(found is not None, who, f"no model has {' and '.join(spec.asks)}", "give check_task a contestant")
    assert found is not None
    return found


def _check_solving(who: str, spec: TaskSpec, config: Any, contestant: nn.Module) -> None:
    assert spec.solve is not None
    first, again, other = (_solved(who, partial(spec.solve, config, contestant, block), seed) for block, seed in BLOCKS)
    is_same = _arrays(first).keys() == _arrays(again).keys() and all(
        torch.equal(one, _arrays(again)[name]) for name, one in _arrays(first).items()
    )
    rule(is_same, who, "one block was solved twice, with other numbers", "draw from a generator that the block seeds")
    shared = [name for name, one in first.per_sample.items() if name in other.per_sample and not one.isnan().any()]
    is_other = not shared or any(not torch.equal(first.per_sample[name], other.per_sample[name]) for name in shared)
    rule(is_other, who, "blocks 0 and 1 are the same draws", "let block b be draws of its own")
    for name, one in first.per_sample.items():
        value = first.scores[name].value if name in first.scores else None
        mean = float(one.double().mean())
        is_mean = value is None or math.isclose(mean, float(value), rel_tol=1e-5, abs_tol=1e-7)
        rule(is_mean, who, f"{name} is {value}, its mean over draws {mean}", "call what is no mean by another name")


def _solved(who: str, solve: Callable[[], object], seed: int) -> Solution:
    with torch.random.fork_rng(devices=[]), attempt(who, "solve", "let it take what its contestants build"):
        torch.manual_seed(seed)
        return checked(who, solve())


def _arrays(solution: Solution) -> dict[str, torch.Tensor]:
    values = {name: reading.value for name, reading in solution.scores.items()}
    numbers = {name: torch.tensor(math.inf if one is None else float(one)) for name, one in values.items()}
    return {**numbers, **{f"{name} of each": one.nan_to_num() for name, one in solution.per_sample.items()}}


def _served(spec: TaskSpec, config: Any, part: Split) -> Samples[Any]:
    try:
        samples, first = load_samples(spec, config, part)
        _, second = load_samples(spec, config, part)
    except TaskDataError as error:
        raise AssertionError(str(error)) from error
    mend = "make data a function of its options and the split"
    rule(first == second, f"task {spec.name!r}, split {part!r}", "two calls served different bytes", mend)
    return samples


def _check_manifest(who: str, spec: TaskSpec, config: Any, splits: Mapping[Split, Samples[Any]]) -> None:
    lines = ", ".join(f'"{part}": "{fingerprint_of(samples)}"' for part, samples in splits.items())
    if callable(spec.manifest) and config != spec.config():
        return  # whatever splits these options change may be left out
    manifest = spec.manifest_of(config)
    lacking = [part for part in splits if part not in manifest]
    if manifest:
        rule(not lacking, who, f"the manifest lacks {lacking}", f"write manifest={{{lines}}}")
    elif not dataclasses.fields(spec.config):
        rule(not lacking, who, "without options and without a manifest", f"write manifest={{{lines}}}")


def _check_apart(who: str, splits: Mapping[Split, Samples[Any]], most_shared: float) -> None:
    rows = {part: [_digest(row) for batch in batches(samples.inputs, 256) for row in batch]
            for part, samples in splits.items()}  # fmt: skip
    known = {*rows["train"], *rows["validation"]}
    shared = sum(row in known for row in rows["test"])
    seen = f"{shared} of {len(rows['test'])} test samples stand in another split as well"
    mend = "split what is different, or say how large a share is meant with most_shared"
    rule(shared <= most_shared * len(rows["test"]), who, seen, mend)


def _digest(row: torch.Tensor) -> bytes:
    return hashlib.sha256(row.contiguous().numpy().tobytes()).digest()


def _check_augment(who: str, spec: TaskSpec, config: Any, samples: Samples[Any]) -> None:
    assert spec.augment is not None
    who, given, state = f"{who}, augment", to_numbers(samples.inputs[:16]), torch.get_rng_state()
    kept = given.clone()
    one = spec.augment(config, given, torch.Generator().manual_seed(1))
    two = spec.augment(config, given, torch.Generator().manual_seed(1))
    same_kind = one.shape == given.shape and one.dtype == given.dtype
    rule(same_kind, who, f"it made {tuple(one.shape)}, {one.dtype} of {tuple(given.shape)}", "keep shape and type")
    rule(torch.equal(given, kept), who, "it changes the samples in place", "return a new tensor")
    is_own = torch.equal(one, two) and torch.equal(state, torch.get_rng_state())
    rule(is_own, who, "it draws from elsewhere than its generator", "pass generator= to every random function")
