"""What tests of metrics share: a metric fed in batches, in halves, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric

from whitebench import Reading
from whitebench.gallery import checked

Kind: TypeAlias = "Tensor | list[Tensor]"
"""One thing that a metric needs: a row per sample, or a list of such, one per layer."""


def part_of(kind: Kind, rows: slice) -> Kind:
    return [layer[rows] for layer in kind] if isinstance(kind, list) else kind[rows]


def size_of(kind: Kind) -> int:
    return len(kind[0]) if isinstance(kind, list) else len(kind)


def feed(metric: Metric, kinds: Sequence[Kind], *, batch: int = 1000) -> Metric:
    for start in range(0, max(1, size_of(kinds[0])), batch):
        metric.update(*(part_of(kind, slice(start, start + batch)) for kind in kinds))
    return metric


def read(metric: Metric, *kinds: Kind, batch: int = 1000) -> dict[str, Reading]:
    found: dict[str, Reading] = feed(metric, kinds, batch=batch).compute()
    for reading in found.values():
        checked(reading.pictures)
    return found


def assert_alike(found: dict[str, Reading], expected: dict[str, Reading], rel: float = 1e-9) -> None:
    assert list(found) == list(expected)
    for part, reading in expected.items():
        assert reading.unscored == found[part].unscored, part
        if reading.unscored is None:
            assert found[part].value == pytest.approx(reading.value, rel=rel, abs=1e-12), part
        assert list(found[part].profile) == pytest.approx(list(reading.profile), rel=rel, abs=1e-12), part
        assert list(found[part].spread) == pytest.approx(list(reading.spread), rel=1e-6, abs=1e-9), part
        assert found[part].nulls == pytest.approx(dict(reading.nulls), rel=rel), part


def assert_batches_and_processes_do_not_matter(build: Callable[[], Metric], *kinds: Kind) -> None:
    """Compare one batch with batches of 1, 7 and 64, with two processes, and with one more that is idle."""
    expected = read(build(), *kinds)
    for batch in (1, 7, 64):
        assert_alike(read(build(), *kinds, batch=batch), expected)
    third = size_of(kinds[0]) // 3
    parts = [slice(0), slice(third), slice(third, None), slice(0)]
    for order in (1, -1):
        first, *others = [feed(build(), [part_of(kind, rows) for kind in kinds], batch=64) for rows in parts[::order]]
        for other in (build(), *others):
            first.merge_state(other)
        assert_alike(first.compute(), expected)


def assert_rounded_numbers_are_measured_as_they_are(build: Callable[[], Metric], *kinds: Kind) -> None:
    """Compare bfloat16 under autocast with the same numbers in float64."""

    def to(kind: Kind, dtype: torch.dtype) -> Kind:
        if isinstance(kind, list):
            return [layer.bfloat16().to(dtype) for layer in kind]
        return kind.bfloat16().to(dtype) if kind.is_floating_point() else kind

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = read(build(), *(to(kind, torch.bfloat16) for kind in kinds))
    assert_alike(found, read(build(), *(to(kind, torch.float64) for kind in kinds)))
