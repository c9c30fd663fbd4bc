"""The rules for metrics. Legend: B batch, N tokens, C classes, H heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from whitebench.reading import Reading
from whitebench.result import Score
from whitebench.specs import SOLUTION, TRUTH, Layout, MetricContext, MetricSpec
from whitebench.testing.rule import attempt, is_close, rule

if TYPE_CHECKING:
    import torchmetrics

Given: TypeAlias = Mapping[str, "Tensor | list[Tensor] | tuple[Tensor, ...]"]
"""Samples by what a metric needs; a list holds one tensor per layer, a tuple one weight per layer, which comes whole
with every batch."""

SAMPLES, LAYERS, TOKENS, WIDTH = 130, 3, 5, 8
TRUE_SUBSPACES = 3
"""That tokens come from, of one dimension each."""
CONTEXT = MetricContext(classes=5, shape=(1, 4, 4), layout=Layout(heads=2, scale=0.5, prefix_tokens=1))


def check_metric(spec: MetricSpec, *, context: MetricContext = CONTEXT, given: Given | None = None) -> None:
    """Check a metric on random samples; what a task yields by itself is for `check_task` to check.

    Args:
        spec: the metric.
        context: what it may know of contestant and task.
        given: samples by need, where it needs a kind of trace that is no tensor (B, N, D).

    Raises:
        AssertionError: the first rule that it breaks.
    """
    if SOLUTION in spec.needs:
        return
    who = f"metric {spec.name!r}"
    given = {**_random_samples(spec, context), **(given or {})}
    kept = {need: _rows(one, slice(None), copied=True) for need, one in given.items()}
    whole = _measured(who, spec, context, given, [SAMPLES])
    _check_scores(who, whole)
    for size in (1, 7, 64):
        batched = _measured(who, spec, context, given, [size] * (SAMPLES // size) + [SAMPLES % size])
        _same(who, f"in batches of {size} and at once", whole, batched, "keep sums and counts in its states")
    untouched = all(_is_equal(kept[need], given[need]) for need in spec.needs)
    rule(untouched, who, "update changes what it is given", "work on copies")
    _check_merging(who, spec, context, given, whole)
    if {"logits", "labels"} <= set(spec.needs):
        _check_direction(who, spec, context, given)
    if spec.per_sample is not None:
        _check_per_sample(who, spec, given, whole)


def _random_samples(spec: MetricSpec, context: MetricContext) -> dict[str, Tensor | list[Tensor] | tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    patches = TOKENS - context.layout.prefix_tokens

    def draw(*shape: int) -> Tensor:
        return torch.randn(SAMPLES, *shape, generator=generator)

    def weights(*shape: int) -> tuple[Tensor, ...]:
        return tuple(torch.randn(*shape, generator=generator) for _ in range(LAYERS))

    known: dict[str, Tensor | list[Tensor] | tuple[Tensor, ...]] = {
        "logits": draw(context.classes),
        "labels": torch.randint(context.classes, (SAMPLES,), generator=generator),
        "features": draw(WIDTH),
        "inputs": draw(*context.shape),
        "index": torch.arange(SAMPLES),
        "attention": [draw(context.layout.heads, TOKENS, TOKENS).softmax(dim=-1) for _ in range(LAYERS)],
        "attention-logits": [draw(context.layout.heads, TOKENS, TOKENS) for _ in range(LAYERS)],
        "residual-projections": [draw(2, TOKENS, WIDTH) for _ in range(LAYERS)],
        "attention-forms": weights(context.layout.heads, WIDTH, WIDTH + 1),
        "subspaces": weights(WIDTH, WIDTH),
        "truth:class-subspaces": torch.linalg.qr(draw(math.prod(context.shape), 2)[: context.classes]).Q,
        "truth:token-subspaces": torch.linalg.qr(draw(math.prod(context.shape) // patches, 1)[:TRUE_SUBSPACES]).Q,
        "truth:token-groups": torch.randint(TRUE_SUBSPACES, (SAMPLES, patches), generator=generator),
    }
    return {need: known[need] if need in known else [draw(TOKENS, WIDTH) for _ in range(LAYERS)] for need in spec.needs}


def _measured(who: str, spec: MetricSpec, context: MetricContext, given: Given, sizes: list[int]) -> dict[str, Score]:
    return _scores(who, spec, _updated(who, spec, context, given, sizes))


def _updated(who: str, spec: MetricSpec, context: MetricContext, given: Given, sizes: list[int]) -> torchmetrics.Metric:
    mend = "if it needs another kind of trace, give check_metric samples of it"
    with attempt(who, "build or update", mend):
        metric, start = spec.build(context), 0
        for size in filter(None, sizes):
            part = _cut(given, slice(start, start + size))
            metric.update(*[part[need] for need in spec.needs])
            start += size
    return metric


def _cut(given: Given, rows: slice) -> dict[str, Any]:
    """Return what a metric is given of some samples: of the task's truth, all."""
    return {need: one if need.startswith(TRUTH) else _rows(one, rows) for need, one in given.items()}


def _rows(one: Tensor | list[Tensor] | tuple[Tensor, ...], rows: slice, *, copied: bool = False) -> Any:
    if isinstance(one, list | tuple):
        rows = slice(None) if isinstance(one, tuple) else rows
        return [_rows(layer, rows, copied=copied) for layer in one]
    return one[rows].clone() if copied else one[rows]


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple):
        return all(torch.equal(layer, twin) for layer, twin in zip(one, other, strict=True))
    return torch.equal(one, other)


def _scores(who: str, spec: MetricSpec, metric: torchmetrics.Metric) -> dict[str, Score]:
    with attempt(who, "compute", "return a number, a Reading, or a mapping of names to these"):
        computed = metric.compute()
        parts = computed if isinstance(computed, Mapping) else {"": computed}
        readings = {
            str(part): one if isinstance(one, Reading) else Reading(value=float(one)) for part, one in parts.items()
        }
        return {part: Score.from_reading(spec, part, reading) for part, reading in readings.items()}


def _check_scores(who: str, scores: Mapping[str, Score]) -> None:
    rule(len(scores) > 0, who, "compute returned no score", "return at least one")
    for score in scores.values():
        seen = f"{score.name} of random samples is unscored: {score.unscored}"
        rule(score.value is not None, who, seen, "give check_metric samples on which it can be computed")
        lengths = {len(score.profile), len(score.spread)} - {0}
        rule(len(lengths) < 2, who, f"{score.name} has {lengths} layers", "profile and spread have one number a layer")


def _same(who: str, when: str, one: Mapping[str, Score], other: Mapping[str, Score], mend: str) -> None:
    rule(list(one) == list(other), who, f"{when} it yields {list(one)} and {list(other)}", mend)
    for part in one:
        first, second = _numbers(one[part]), _numbers(other[part])
        seen = f"{when} {one[part].name} differs: {one[part].value} and {other[part].value}"
        rule(is_close(first, second, 1e-5), who, seen, mend)


def _numbers(score: Score) -> Tensor:
    value = math.nan if score.value is None else score.value
    return torch.tensor([value, *score.profile, *score.spread, *score.nulls.values()], dtype=torch.float64)


def _check_merging(
    who: str, spec: MetricSpec, context: MetricContext, given: Given, whole: Mapping[str, Score]
) -> None:
    mend = "give each state a dist_reduce_fx that merges it exactly"
    half = SAMPLES // 2
    with attempt(who, "merging two halves", mend):
        merged = _updated(who, spec, context, given, [half])
        rest = _cut(given, slice(half, None))
        merged.merge_state(_updated(who, spec, context, rest, [SAMPLES - half]))
    _same(who, "from two processes and from one", whole, _scores(who, spec, merged), mend)
    with attempt(who, "merging with a process that saw no sample", mend):
        merged = _updated(who, spec, context, given, [SAMPLES])
        merged.merge_state(spec.build(context))
    _same(who, "with an idle process and without", whole, _scores(who, spec, merged), mend)
    metric = _updated(who, spec, context, given, [half])
    metric.compute()
    metric.reset()
    metric.update(*[given[need] for need in spec.needs])
    _same(who, "after a reset and anew", whole, _scores(who, spec, metric), "keep everything in states")


def _check_direction(who: str, spec: MetricSpec, context: MetricContext, given: Given) -> None:
    """Compare confident right answers with confident wrong ones."""
    labels = given["labels"]
    assert isinstance(labels, Tensor)
    right = 10 * torch.nn.functional.one_hot(labels, context.classes).float()
    good = _measured(who, spec, context, {**given, "logits": right}, [SAMPLES])
    bad = _measured(who, spec, context, {**given, "logits": right.roll(1, dims=1)}, [SAMPLES])
    for part, score in good.items():
        better, worse = score.value, bad[part].value
        if better is None or worse is None or score.direction == "none":
            continue
        is_right = better > worse if score.direction == "higher" else better < worse
        seen = f"{score.direction} is better, but right answers give {score.name} {better:.4g}, wrong ones {worse:.4g}"
        rule(is_right, who, seen, "turn its direction")


def _check_per_sample(who: str, spec: MetricSpec, given: Given, whole: Mapping[str, Score]) -> None:
    assert spec.per_sample is not None
    logits, labels = given["logits"], given["labels"]
    assert isinstance(logits, Tensor)
    assert isinstance(labels, Tensor)
    with attempt(who, "per_sample", "take logits (B, C) and labels (B,)"):
        each = spec.per_sample(logits, labels)
    rule(tuple(each.shape) == (SAMPLES,), who, f"per_sample gave {tuple(each.shape)}", f"return ({SAMPLES},)")
    value = next(iter(whole.values())).value
    assert value is not None
    mean = float(each.double().mean())
    mend = "leave per_sample out where the metric is no mean over samples"
    rule(math.isclose(mean, value, rel_tol=1e-5, abs_tol=1e-7), who, f"per_sample's mean is {mean}, not {value}", mend)
