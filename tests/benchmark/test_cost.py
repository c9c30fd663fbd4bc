"""What a model costs, against counts by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench.cost import CostError, PeakMemory, count_macs, count_parameters, inference_rate

MEGABYTE = 2**20


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).movedim(-3, 0).transpose(-3, -2)
        return F.scaled_dot_product_attention(parts[0], parts[1], parts[2])


def test_a_shared_parameter_counts_once_and_a_frozen_one_counts() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].weight.requires_grad_(False)
    assert count_parameters(model) == 2 * (9 + 3)
    model[1].weight = model[0].weight
    assert count_parameters(model) == 9 + 3 + 3


def test_a_linear_layer_costs_width_times_width() -> None:
    assert count_macs(nn.Linear(5, 7), (5,)) == 35
    assert count_macs(nn.Linear(5, 7), (11, 5)) == 11 * 35


def test_attention_costs_two_products_of_tokens_by_tokens() -> None:
    tokens, width = 5, 8
    projections, products = tokens * width * 3 * width, 2 * tokens * tokens * width
    assert count_macs(Attention(width, heads=2), (tokens, width)) == projections + products


def test_counting_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    count_macs(model, (3,))
    assert model.training
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


def test_a_tensor_kept_from_training_does_not_hinder_the_count() -> None:
    class Penalised(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            self.kept = super().forward(input)
            return self.kept

    model = Penalised(4, 2)
    model(torch.zeros(1, 4))
    assert count_macs(model, (4,)) == 8


def test_a_model_that_reads_values_cannot_be_counted_and_says_why() -> None:
    class Reader(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs * float(inputs.sum().item())

    with pytest.raises(CostError, match="multiply-accumulates of Reader cannot be counted"):
        count_macs(Reader(), (3,))


def test_the_inference_rate_is_of_evaluation_and_every_mode_is_restored() -> None:
    seen: list[tuple[bool, bool]] = []

    class Watcher(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            seen.append((self.training, torch.is_grad_enabled()))
            return super().forward(input)

    model = nn.Sequential(Watcher(3, 3), nn.Dropout())
    model[1].eval()
    assert inference_rate(model, torch.zeros(8, 3), warm_ups=1, repeats=3) > 0
    assert seen == [(False, False)] * 4
    assert [module.training for module in model.modules()] == [True, True, False]


def test_peak_memory_sees_what_was_given_back() -> None:
    memory = PeakMemory()
    block = torch.ones(48 * MEGABYTE // 4)
    del block
    assert 40 * MEGABYTE < memory.above_start() < 80 * MEGABYTE


def test_peak_memory_starts_at_the_level_of_now() -> None:
    block = torch.ones(48 * MEGABYTE // 4)
    del block
    assert PeakMemory().above_start() < 8 * MEGABYTE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_on_a_cuda_device_counts_tensors() -> None:
    held = torch.ones(MEGABYTE, device="cuda")
    memory = PeakMemory("cuda")
    block = torch.ones(2 * MEGABYTE, device="cuda")
    del block
    assert memory.above_start() == 8 * MEGABYTE
    del held
