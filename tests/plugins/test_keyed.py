"""Rows under keys come together from any number of processes, also from one that saw nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torchmetrics import Metric

from tests.plugins.measured import assert_alike, feed, read
from whitebench import Layout, MetricContext
from whitebench_metrics.keyed import KeyedMetric
from whitebench_metrics.rate_reduction import METRICS


class Kept(KeyedMetric):
    """Keeps what it is given and gives it back."""

    def update(self, key: int, *numbers: float) -> None:
        self.keep(key, torch.tensor(numbers, dtype=torch.float64))

    def compute(self) -> dict[int, list[list[float]]]:
        return {key: [row.tolist() for row in rows] for key, rows in self.found().items()}


def test_rows_of_any_size_come_back_by_key_in_the_keys_order() -> None:
    metric = Kept()
    metric.update(7, 1.0, 2.0, 3.0)
    metric.update(0, 4.0)
    assert metric.places() == {7: 0, 0: 1}
    assert metric.compute() == {0: [[4.0]], 7: [[1.0, 2.0, 3.0]]}


def test_a_row_may_make_place_for_a_longer_one_and_leaves_who_else_has_it_alone() -> None:
    first, second = Kept(), Kept()
    first.update(7, 1.0)
    second.update(2, 2.0)
    second.merge_state(first)
    second.put(second.places()[7], torch.tensor([8.0, 9.0], dtype=torch.float64))
    assert second.compute() == {2: [[2.0]], 7: [[8.0, 9.0]]}
    assert first.compute() == {7: [[1.0]]}


def test_two_processes_rows_of_one_key_come_both() -> None:
    first, second = Kept(), Kept()
    first.update(7, 1.0)
    second.update(7, 2.0)
    second.update(3, 5.0, 6.0)
    first.merge_state(second)
    first.merge_state(Kept())
    assert first.compute() == {3: [[5.0, 6.0]], 7: [[2.0], [1.0]]}
    first.reset()
    assert first.places() == {}


def rate_reduction() -> Metric:
    return METRICS[0].build(MetricContext(classes=4, shape=(1,), layout=Layout()))


def samples() -> tuple[Any, Any, Any]:
    return torch.randn(30, 6, generator=torch.Generator().manual_seed(0)), torch.arange(30) // 8, torch.arange(30)


def _rank(rank: int, place: str) -> None:
    """Measure the first or the second part of the samples as one of three processes; the third has none."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=3)
    rows = [slice(11), slice(11, None), slice(0)][rank]
    torch.save(feed(rate_reduction(), [kind[rows] for kind in samples()], batch=4).compute(), f"{place}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_three_real_processes_of_which_one_is_idle_measure_what_one_does(tmp_path: Path) -> None:
    spawn(_rank, (str(tmp_path),), nprocs=3)  # type: ignore[no-untyped-call]
    expected = read(rate_reduction(), *samples())
    for rank in range(3):
        assert_alike(torch.load(tmp_path / f"{rank}.pt", weights_only=False), expected)
