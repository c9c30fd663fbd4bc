"""Every registered metric, in two real processes that saw unlike shares of the samples: what one process measures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from tests.plugins.measured import assert_alike
from whitebench import MetricContext, MetricSpec, ModelSpec, Reading, Samples
from whitebench.catalog import load_catalog
from whitebench.names import configure
from whitebench.specs import TRUTH
from whitebench.testing import items
from whitebench.tracing import observe

SIZE, BATCH = 23, 4
SHARES = (slice(15), slice(15, None))
SIZES = {"dim": 16, "depth": 2, "heads": 2, "patch": 4}


def measured() -> dict[str, dict[str, Reading]]:
    """Return what every metric says of a CRATE, as torch draws it, and the samples that fall to this process."""
    catalog = load_catalog()
    found: dict[str, dict[str, Reading]] = {}
    spec, task = catalog.model("crate").spec, catalog.task("subspaces").spec
    for options in ({}, {"tokens": 4, "dim": 3}):  # each knows a truth of its own
        told_of = task.config(**options)
        config, shape = configure("crate", spec.config, SIZES), task.shape_of(told_of)
        classes = task.classes_of(told_of)
        torch.manual_seed(0)
        model = spec.build(config, shape, classes).eval().double()  # in which unlike batches round alike
        assert spec.layout is not None
        context = MetricContext(classes=classes, shape=shape, layout=spec.layout(config, shape))
        rows = torch.arange(SIZE)[SHARES[dist.get_rank()] if dist.is_initialized() else slice(SIZE)]
        samples = task.data(told_of, "test")
        batches = [seen(spec, model, samples, rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
        new = [one for one in metrics() if one.name not in found and set(one.needs) <= set(batches[0])]
        found |= {one.name: told(one, context, batches) for one in new}
    return found


def metrics() -> list[MetricSpec]:
    return items("metric")


def seen(spec: ModelSpec, model: torch.nn.Module, samples: Samples, rows: Tensor) -> dict[str, Any]:
    """Return what a metric may need of some samples."""
    inputs = samples.inputs[rows].double()
    looked = observe(model, inputs, head=spec.head, trace=spec.trace, kinds=None)
    truth = {f"{TRUTH}{name}": one for name, one in samples.truth.items()}
    return {
        "logits": looked.logits, "labels": samples.labels[rows], "inputs": inputs, "index": rows,
        "features": looked.features, **truth, **looked.trace,
    }  # fmt: skip


def told(spec: MetricSpec, context: MetricContext, batches: list[dict[str, Any]]) -> dict[str, Reading]:
    metric = spec.build(context)
    for batch in batches:
        metric.update(*(batch[need] for need in spec.needs))
    computed = metric.compute()
    parts = computed if isinstance(computed, Mapping) else {"": computed}
    return {part: one if isinstance(one, Reading) else Reading(value=float(one)) for part, one in parts.items()}


def _rank(rank: int, place: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    torch.save(measured(), f"{place}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_every_metric_measures_in_two_processes_what_it_measures_in_one(tmp_path: Path) -> None:
    spawn(_rank, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    expected = measured()
    from_samples = {spec.name for spec in metrics() if "solution" not in spec.needs}
    assert set(expected) == from_samples
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert list(found) == list(expected)
        for name, readings in expected.items():
            assert_alike(found[name], readings, rel=1e-6)
