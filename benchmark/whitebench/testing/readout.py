"""The rules for read-outs. Legend: B batch, C classes, D width of the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whitebench.specs import ReadoutSpec
from whitebench.testing.rule import attempt, is_close, rule

SAMPLES = 240


def check_readout(spec: ReadoutSpec, *, classes: int = 3, width: int = 8, config: Any = None) -> None:
    """Check a read-out, with its default options or those of `config`, on classes that lie on lines of their own.

    Raises:
        AssertionError: the first rule that it breaks.
    """
    who, config = f"readout {spec.name!r}", spec.config() if config is None else config
    features, labels = _lines(classes, width)
    case = _Case(who=who, spec=spec, config=config, classes=classes)
    whole = _logits(case, [features], [labels])
    rule(tuple(whole.shape) == (SAMPLES, classes), who, f"it gave {tuple(whole.shape)}", "return logits (B, C)")
    rule(bool(whole.isfinite().all()), who, "its logits are not all finite numbers", "keep its formula finite")
    share = float((whole.argmax(dim=-1) == labels).double().mean())
    rule(
        share > 0.9, who, f"it tells {share:.0%} of samples apart that any line could", "give the largest to the class"
    )
    parts = _logits(case, list(torch.split(features, 7)), list(torch.split(labels, 7)))
    rule(is_close(parts, whole), who, "it depends on how samples are cut into batches", "keep sums as states")
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(1))
    other = _logits(case, [features[order]], [labels[order]], given=features)
    rule(is_close(other, whole), who, "it depends on the order of samples", "keep sums as states")
    few = labels < classes - 1
    lacking = _logits(case, [features[few]], [labels[few]], given=features)
    is_number = not bool(lacking.isnan().any())
    rule(is_number, who, "a class without samples makes it NaN", "let such a class be unlikely")


def _lines(classes: int, width: int) -> tuple[Tensor, Tensor]:
    """Return features on one line per class, on the side of its direction, with some noise, and their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(SAMPLES) % classes
    lengths = 1 + torch.rand(SAMPLES, 1, generator=generator)
    return lengths * torch.eye(width)[labels] + 0.05 * torch.randn(SAMPLES, width, generator=generator), labels


@dataclass(frozen=True, kw_only=True)
class _Case:
    who: str
    spec: ReadoutSpec
    config: Any
    classes: int


def _logits(case: _Case, features: list[Tensor], labels: list[Tensor], *, given: Tensor | None = None) -> Tensor:
    """Return the logits that it gives `given`, or what it was fitted to, after these batches."""
    who = case.who
    with attempt(who, "build", "take its options, the classes and the features' width"):
        metric = case.spec.build(case.config, case.classes, features[0].shape[1])
    with attempt(who, "update", "take features (B, D) and labels (B,)"):
        for batch, its_labels in zip(features, labels, strict=True):
            metric.update(batch, its_labels)
    mend = "let compute return a function from features to logits"
    with attempt(who, "compute", mend):
        logits: object = metric.compute()(torch.cat(features) if given is None else given)
    rule(isinstance(logits, Tensor), who, f"it gave a {type(logits).__name__}", mend)
    assert isinstance(logits, Tensor)
    return logits
