"""Codes against the true coefficients: codes that are them, that all groups share, and by a loop any."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.plugins.grouped import TOKENS, G, R, frames, from_parts, groups, mixture, read, told, value, with_class_token
from tests.plugins.measured import assert_alike
from whitebench import Reading, WhitebenchError
from whitebench_metrics.code_subspaces import METRICS

(SPEC,) = METRICS


def readings(*layers: Tensor) -> dict[str, Reading]:
    return read(SPEC, told(codes=[with_class_token(layer) for layer in layers]))


def true_codes() -> Tensor:
    """Of each coefficient its positive and its negative part, (N, n, 2 G R)."""
    signed = mixture(torch.eye(G * R).double().reshape(G, R, G * R).mT)
    return torch.relu(torch.cat([signed, -signed], dim=-1))


def some_codes() -> Tensor:
    return torch.relu(mixture(frames()) @ torch.randn(20, 33, generator=torch.Generator().manual_seed(8)).double())


def test_codes_that_are_the_true_coefficients_are_as_few_and_each_of_one_group() -> None:
    found = readings(true_codes())
    assert value(found["nonzero"]) == pytest.approx(1)
    assert value(found["own"]) == pytest.approx(1)
    assert found["nonzero"].nulls == {"dense codes": 10}
    assert found["own"].nulls == {"uniform codes": pytest.approx(1 / 5)}


def test_codes_that_all_groups_share_are_no_group_s() -> None:
    found = readings(torch.ones(120, TOKENS, 12))
    assert value(found["own"]) == pytest.approx(1 / 5)
    assert value(found["nonzero"]) == pytest.approx(4)


def test_it_is_what_a_loop_over_tokens_finds() -> None:
    codes, group_of = some_codes(), groups()
    energy, count = torch.zeros(G, 33).double(), torch.zeros(G).double()
    for i in range(120):
        for t in range(TOKENS):
            g = int(group_of[i, t])
            energy[g] += codes[i, t].square() / (group_of == g).sum()
            count[g] += float((codes[i, t] != 0).sum()) / float((group_of == g).sum())
    found = readings(codes)
    best = sum(max(float(energy[g, k]) for g in range(G)) for k in range(33))
    assert value(found["own"]) == pytest.approx(best / float(energy.sum()))
    assert value(found["nonzero"]) == pytest.approx(float(count.mean()) / R)


def test_scale_and_order_of_the_codes_do_not_matter() -> None:
    assert_alike(readings(7 * some_codes().flip(-1)), readings(some_codes()))


def test_layers_may_differ_in_width() -> None:
    found = readings(true_codes(), some_codes())
    assert list(found["nonzero"].null_profiles["dense codes"]) == [10, 11]
    assert value(found["own"]) == pytest.approx(sum(found["own"].profile) / 2)


def test_neither_batches_nor_processes_nor_bfloat16_matter() -> None:
    given = told(codes=[with_class_token(some_codes().bfloat16()), with_class_token(true_codes())])
    expected = read(SPEC, given)
    for found in from_parts(SPEC, given):
        assert_alike(found, expected)
    assert_alike(read(SPEC, told(codes=[one.double() for one in given["codes"]])), expected)


def test_what_cannot_be_told_is_unscored() -> None:
    other = readings(some_codes()[:, :4])
    assert other["own"].unscored == "a layer has 4 tokens of a sample where the task has 16: choose patch=4"
    assert readings(some_codes(), torch.zeros(120, TOKENS, 5))["own"].unscored == "in layer 2 all codes are zero"
    with pytest.raises(WhitebenchError, match="tokens are \\(B, N, D\\)"):
        read(SPEC, told(codes=[torch.zeros(120, 9)]))
