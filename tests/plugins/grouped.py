"""What tests of metrics by true subspace share: tokens whose second moments are exact, and a metric fed with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from whitebench import Layout, MetricContext, MetricSpec, Reading

G, R, TOKENS, HALF = 5, 3, 16, 60
"""Groups of three dimensions, tokens of a sample, and half of the samples: the others are their negatives."""
CONTEXT = MetricContext(classes=10, shape=(1, 16, 16), layout=Layout(heads=G, prefix_tokens=1))


def groups() -> Tensor:
    """Return the group of each token, (N, n), the same in both halves."""
    drawn = torch.randint(G, (HALF, TOKENS), generator=torch.Generator().manual_seed(0))
    return torch.cat([drawn, drawn])


def coefficients() -> Tensor:
    """Return coefficients (N, n, R) whose mean is zero at each place and whose moments are I in each group."""
    half, own = groups()[:HALF], torch.randn(HALF, TOKENS, R, generator=torch.Generator().manual_seed(1)).double()
    for group in range(G):
        rows = own[half == group]
        own[half == group] = torch.linalg.qr(rows).Q * len(rows) ** 0.5
    return torch.cat([own, -own])


def orthonormal(rows: int, columns: int, seed: int = 2) -> Tensor:
    drawn = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found: Tensor = torch.linalg.qr(drawn).Q
    return found


def frames(width: int = 20) -> Tensor:
    """Return orthonormal frames that are orthogonal to each other, (G, D, R)."""
    return orthonormal(width, G * R).T.reshape(G, R, width).mT


def mixture(frames_GDR: Tensor) -> Tensor:
    """Return each token in the subspace of its group, (N, n, D)."""
    return torch.einsum("bndr,bnr->bnd", frames_GDR[groups()], coefficients())


def with_class_token(layer: Tensor) -> Tensor:
    return torch.cat([torch.full_like(layer[:, :1], 7.0), layer], dim=1)


def told(**given: Any) -> dict[str, Any]:
    """Return what a metric is given of all samples: lists hold a tensor per layer, tuples a weight per layer."""
    return {
        "inputs": torch.zeros(2 * HALF, 1, 16, 16).double(),
        "index": torch.arange(2 * HALF),
        "truth:token-subspaces": frames(16),
        "truth:token-groups": groups(),
        **given,
    }


def part_of(need: str, kind: Any, rows: slice) -> Any:
    if need.startswith("truth:") or isinstance(kind, tuple):
        return kind
    return [layer[rows] for layer in kind] if isinstance(kind, list) else kind[rows]


def feed(
    spec: MetricSpec, given: Mapping[str, Any], *, rows: slice = slice(None), batch: int = 1000, heads: int = G
) -> Metric:
    metric = spec.build(replace(CONTEXT, layout=replace(CONTEXT.layout, heads=heads)))
    start, stop, _ = rows.indices(len(given["index"]))
    for first in range(start, max(stop, start + 1), batch):  # of no sample, one batch without any
        part = slice(first, min(first + batch, stop))
        metric.update(*[part_of(need, given[need], part) for need in spec.needs])
    return metric


def read(spec: MetricSpec, given: Mapping[str, Any], *, batch: int = 1000, heads: int = G) -> dict[str, Reading]:
    found: dict[str, Reading] = feed(spec, given, batch=batch, heads=heads).compute()
    return found


def value(reading: Reading) -> float:
    assert reading.value is not None, reading.unscored
    return reading.value


def from_parts(spec: MetricSpec, given: Mapping[str, Any]) -> list[dict[str, Reading]]:
    """Return what it reads in batches of 7, and from three processes of which one is idle, in two orders."""
    parts = [slice(0, 0), slice(0, 50), slice(50, None)]
    found = [read(spec, given, batch=7)]
    for order in (1, -1):
        first, *others = [feed(spec, given, rows=rows, batch=32) for rows in parts[::order]]
        for other in others:
            first.merge_state(other)
        found.append(first.compute())
    return found
