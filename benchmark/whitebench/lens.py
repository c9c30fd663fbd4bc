"""Looking at a network of one's own, trained anywhere: no suite, no store, no trainer.

Legend: B batch, N samples, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from whitebench.catalog import load_catalog
from whitebench.errors import TraceError, WhitebenchError
from whitebench.evaluation import Subject, predict
from whitebench.modes import evaluating
from whitebench.names import configured, parse_name
from whitebench.quotation import quote
from whitebench.scoring import Scored, score
from whitebench.specs import Layout, MetricContext, MetricSpec, ModelSpec, NoOptions, Samples, TraceSpec
from whitebench.tracing import observe

if TYPE_CHECKING:
    from whitebench.specs import Trace

Plan: TypeAlias = "TraceSpec | ModelSpec | str"
Data: TypeAlias = "Samples | tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]"


def trace_model(model: nn.Module, batch: Tensor, spec: Plan, kinds: Collection[str] | None = None) -> Trace:
    """Return what `model` lets see of one batch (B, …): per kind, one tensor per layer.

    Args:
        model: any module that maps the batch to logits (B, C), in the mode in which it is.
        batch: (B, …), moved to where the model is.
        spec: where to look.
        kinds: which of the kinds that `spec` offers; all where not given.

    Raises:
        TraceError: a pattern matches nothing, a kind is not on offer, or the head is not where `spec` says.
    """
    subject = _subject(model, spec, tuple(batch.shape[1:]), classes=0)
    inputs = batch.to(subject.device)
    return observe(model, inputs, head=subject.spec.head, trace=subject.spec.trace, kinds=kinds).trace


def score_model(
    model: nn.Module,
    data: Data,
    metrics: Sequence[str | MetricSpec],
    spec: Plan,
    *,
    untrained: nn.Module | None = None,
    batch_size: int = 64,
) -> Scored:
    """Return what `metrics` say of `model` on `data`, every sample once, in evaluation mode, which is undone after.

    Args:
        model: any module that maps inputs (B, …) to logits (B, C), on any device.
        data: samples, a pair of inputs (N, …) and labels (N,), or batches of such pairs (a DataLoader).
        metrics: names of registered metrics, or MetricSpecs.
        spec: where to look.
        untrained: the same network before it learnt anything, the null of metrics that ask for it.
        batch_size: the most samples at a time; changes no score.

    Raises:
        WhitebenchError: a name is unknown, or the data are no samples. A metric that does not apply, or raises, is
            unscored with its reason.
    """
    samples = _samples(data)
    catalog = load_catalog() if any(isinstance(one, str) for one in metrics) else None
    specs = []
    for one in metrics:
        known = catalog.metric(one).spec if catalog and isinstance(one, str) else one
        if not isinstance(known, MetricSpec):
            raise WhitebenchError(f"metrics are names or MetricSpecs, got {quote(one)}")
        specs.append(known)
    shape = tuple(samples.inputs.shape[1:])
    with evaluating(model), evaluating(untrained or model):
        subject = _subject(model, spec, shape, classes=0)
        logits = predict(subject, samples.inputs, batch_size=batch_size)
        classes = logits.shape[-1]
        subject = replace(subject, context=replace(subject.context, classes=classes))
        twin = None if untrained is None else _subject(untrained, spec, shape, classes)
        blank = None if twin is None else lambda: twin
        return score(subject, samples, logits, specs, batch_size=batch_size, untrained=blank)


def _subject(model: nn.Module, spec: Plan, shape: tuple[int, ...], classes: int) -> Subject:
    if isinstance(spec, str):
        name, _ = parse_name(spec)
        named: ModelSpec = load_catalog().model(name).spec
        config = configured("model", spec, named.config, named.presets)
        layout = named.layout(config, shape) if named.layout else Layout()
    elif isinstance(spec, ModelSpec):
        named = spec
        layout = spec.layout(spec.config(), shape) if spec.layout else Layout()
    else:
        named, layout = _as_model(model, spec), spec.layout
    context = MetricContext(classes=classes, shape=shape, layout=layout)
    return Subject(module=model, spec=named, context=context)


def _as_model(model: nn.Module, spec: TraceSpec) -> ModelSpec:
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name]
    if not spec.head and not linear:
        raise TraceError("the network has no linear layer to take for its head: give the TraceSpec a head")
    return ModelSpec(
        name=re.sub(r"[^a-z0-9]+", "-", type(model).__name__.lower()).strip("-")[:64] or "network",
        summary="a network of one's own",
        config=NoOptions,
        build=lambda *_: model,
        head=spec.head or linear[-1].replace("_orig_mod.", ""),
        trace=spec.trace,
    )


def _samples(data: Data) -> Samples:
    if isinstance(data, Samples):
        return data
    is_pair = isinstance(data, tuple) and len(data) == 2 and all(isinstance(one, Tensor) for one in data)
    batches: list[Any] = [data] if is_pair else list(data)
    are_pairs = all(
        isinstance(one, Sequence) and len(one) == 2 and all(isinstance(part, Tensor) for part in one) for one in batches
    )
    if not batches or not are_pairs:
        raise WhitebenchError("data must be a pair of inputs (N, …) and labels (N,), or batches of such pairs")
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    if len(inputs) != len(labels) or labels.ndim != 1 or len(inputs) == 0:
        raise WhitebenchError(
            f"data must be inputs (N, …) with labels (N,), got {tuple(inputs.shape)} and {tuple(labels.shape)}"
        )
    return Samples(inputs=inputs, labels=labels)
