"""The rules for objectives. Legend: B batch, C classes, D width of the features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from whitebench.specs import ObjectiveSpec
from whitebench.testing.rule import attempt, is_close, rule

BATCH = 12


def check_objective(spec: ObjectiveSpec, *, classes: int = 4, width: int = 6, config: Any = None) -> None:
    """Check an objective with its default options, or those of `config`, on random features and logits.

    Raises:
        AssertionError: the first rule that it breaks.
    """
    who = f"objective {spec.name!r}"
    generator = torch.Generator().manual_seed(0)
    hot = torch.eye(classes)[torch.arange(BATCH) % classes]
    given = {
        "features": torch.randn(BATCH, width, generator=generator),
        "logits": torch.randn(BATCH, classes, generator=generator),
        "targets": 0.9 * hot + 0.1 / classes,
    }
    with attempt(who, f"build(config, {classes}, {width})", "take its options, the classes and the features' width"):
        module = spec.build(spec.config() if config is None else config, classes, width)
    _check_loss(who, spec, module, given)
    if spec.is_additive:
        _check_additive(who, spec, module, given)
    if "logits" in spec.needs:
        right = _loss(who, spec, module, {**given, "targets": hot, "logits": 4 * hot}).mean()
        wrong = _loss(who, spec, module, {**given, "targets": hot, "logits": 4 * hot.roll(1, dims=1)}).mean()
        seen = f"right answers cost {float(right):.4g}, wrong ones {float(wrong):.4g}"
        rule(bool(right < wrong), who, seen, "return what is to be made small")


def _loss(who: str, spec: ObjectiveSpec, module: nn.Module, given: dict[str, Tensor]) -> Tensor:
    with attempt(who, "forward", f"take {', '.join(spec.needs)} in this order"):
        loss: object = module(*[given[need] for need in spec.needs])
    seen = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
    expected = (len(given["targets"]),) if spec.is_additive else ()
    mend = f"return {expected}, or set is_additive to {not spec.is_additive}"
    rule(seen == expected, who, f"forward gave {seen}", mend)
    assert isinstance(loss, Tensor)
    rule(bool(loss.isfinite().all()), who, "the loss is not a finite number", "compute it from logarithms")
    return loss


def _check_loss(who: str, spec: ObjectiveSpec, module: nn.Module, given: dict[str, Tensor]) -> None:
    leaves = {need: given[need].clone().requires_grad_() for need in spec.needs if need != "targets"}
    rule(len(leaves) > 0, who, "it needs nothing that the model makes", "take `logits` or `features`")
    with attempt(who, "backward", "keep the loss differentiable"):
        _loss(who, spec, module, {**given, **leaves}).mean().backward()  # type: ignore[no-untyped-call]
    for need, leaf in leaves.items():
        has_gradient = leaf.grad is not None and bool(leaf.grad.isfinite().all())
        rule(has_gradient, who, f"no finite gradient reaches {need}", f"use {need}, or do not ask for it")
    large = {need: 1e4 * leaf.detach() for need, leaf in leaves.items()}
    _loss(f"{who} at values of 1e4", spec, module, {**given, **large})


def _check_additive(who: str, spec: ObjectiveSpec, module: nn.Module, given: dict[str, Tensor]) -> None:
    whole = _loss(who, spec, module, given)
    alone = [
        _loss(who, spec, module, {need: one[row : row + 1] for need, one in given.items()}) for row in range(BATCH)
    ]
    mend = "set is_additive to False where the loss belongs to the batch as a whole"
    rule(is_close(torch.cat(alone), whole), who, "a sample's loss depends on its batch", mend)
