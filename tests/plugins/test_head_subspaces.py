"""Heads against the true subspaces: heads that are them, that lean from them, that mix them, and random ones."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor

from tests.plugins.grouped import (
    CONTEXT,
    TOKENS,
    G,
    R,
    frames,
    from_parts,
    groups,
    mixture,
    orthonormal,
    read,
    told,
    value,
    with_class_token,
)
from tests.plugins.measured import assert_alike
from whitebench import Reading, WhitebenchError
from whitebench_metrics.head_subspaces import METRICS, matched, turned

(SPEC,) = METRICS
WIDTH = 40


def readings(*heads: Tensor, layer: Tensor | None = None) -> dict[str, Reading]:
    """Heads (P, D) each, in a layer of tokens in the true subspaces."""
    seen = mixture(frames(WIDTH)) if layer is None else layer
    given = {"attention-inputs": [with_class_token(seen)], "subspaces": (torch.cat(heads),)}
    return read(SPEC, told(**given), heads=len(heads))


def true_heads() -> list[Tensor]:
    return [one.mT for one in frames(WIDTH)]


def random_heads(size: int = 6) -> list[Tensor]:
    return list(torch.randn(G, size, WIDTH, generator=torch.Generator().manual_seed(6)).double())


def test_heads_that_are_the_true_subspaces_have_no_angle_and_see_nothing_else() -> None:
    for heads in (true_heads(), true_heads()[::-1]):
        found = readings(*heads)
        assert value(found["angle"]) == pytest.approx(0, abs=1e-4)
        assert value(found["own"]) == pytest.approx(1, abs=1e-9)


def test_neither_scale_nor_basis_of_a_head_nor_a_rotation_of_everything_matters() -> None:
    generator = torch.Generator().manual_seed(0)
    mixed = [torch.randn(R, R, generator=generator).double() @ one for one in true_heads()]
    assert value(readings(*mixed)["angle"]) == pytest.approx(0, abs=1e-4)
    rotation = orthonormal(WIDTH, WIDTH, seed=7)
    turned = readings(*[one @ rotation for one in random_heads()], layer=mixture(frames(WIDTH)) @ rotation)
    expected = readings(*random_heads())
    for part in ("angle", "own"):  # the nulls are draws, of which none turns with it
        assert value(turned[part]) == pytest.approx(value(expected[part]), rel=1e-7)


def test_heads_that_lean_from_them_have_that_angle() -> None:
    _, _, basis = torch.linalg.svd(torch.cat(true_heads()))
    away = basis[G * R : 2 * G * R].split(R)
    lean = math.radians(40)
    leaning = [math.cos(lean) * true + math.sin(lean) * other for true, other in zip(true_heads(), away, strict=True)]
    found = readings(*leaning)
    assert value(found["angle"]) == pytest.approx(40, abs=1e-6)
    assert value(found["own"]) == pytest.approx(1, abs=1e-9)  # there are no tokens where they lean to


def test_heads_that_hold_two_groups_have_no_angle_and_see_half_of_another() -> None:
    true = true_heads()
    found = readings(*[torch.cat([true[k], true[(k + 1) % G]]) for k in range(G)])
    assert value(found["angle"]) == pytest.approx(0, abs=1e-4)
    assert value(found["own"]) == pytest.approx(1 / 2, abs=1e-9)


def test_a_head_is_matched_once_and_what_is_left_over_does_not_count() -> None:
    true = true_heads()
    same = readings(*[true[0]] * G)
    assert value(same["own"]) == pytest.approx(1 / 5, abs=1e-9)
    assert value(same["angle"]) == pytest.approx(math.degrees(math.acos(math.sqrt(1 / 5))), abs=1e-6)
    assert value(readings(*true[:2])["own"]) == pytest.approx(1, abs=1e-9)
    assert value(readings(*true, *true)["own"]) == pytest.approx(1, abs=1e-9)


def test_the_matching_is_the_best_of_all() -> None:
    table = torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best = max(sum(float(table[k, g]) for k, g in enumerate(order)) / 5 for order in permutations(range(5)))
    assert matched(table) == pytest.approx(best)


def test_it_is_what_a_loop_over_tokens_finds() -> None:
    heads = random_heads()
    layer, group_of = mixture(frames(WIDTH)), groups()
    seen = torch.zeros(G, G, dtype=torch.float64)
    for i in range(len(layer)):
        for t in range(TOKENS):
            g = int(group_of[i, t])
            for k, head in enumerate(heads):
                seen[k, g] += (head @ layer[i, t]).square().sum() / (group_of == g).sum()
    assert value(readings(*heads)["own"]) == pytest.approx(matched(seen / seen.sum(dim=1, keepdim=True)), rel=1e-7)
    cosines = [[torch.linalg.svdvals(torch.linalg.qr(head.T).Q.T @ true) for true in frames(WIDTH)] for head in heads]
    held = torch.tensor([[float(one.square().mean()) for one in row] for row in cosines])
    angle = math.degrees(math.acos(math.sqrt(matched(held))))
    assert value(readings(*heads)["angle"]) == pytest.approx(angle, abs=1e-5)


def test_random_heads_are_at_the_null() -> None:
    found = readings(*random_heads(8))
    assert value(found["angle"]) == pytest.approx(found["angle"].nulls["random subspaces"], abs=3)
    assert value(found["own"]) == pytest.approx(found["own"].nulls["random subspaces"], abs=0.05)
    assert found["own"].nulls["random subspaces"] == pytest.approx(0.25, abs=0.05)


def test_heads_that_lean_to_all_tokens_alike_beat_random_ones_and_are_at_the_turned_truth() -> None:
    generator = torch.Generator().manual_seed(9)
    leaning = [torch.randn(6, G * R, generator=generator).double() @ torch.cat(true_heads()) for _ in range(G)]
    found = readings(*leaning)["angle"]
    assert value(found) < found.nulls["random subspaces"] - 10
    assert value(found) == pytest.approx(found.nulls["turned truth"], abs=3)
    exact = readings(*true_heads())
    assert exact["angle"].nulls["turned truth"] > 50
    assert exact["own"].nulls["turned truth"] < 0.4


def test_beside_it_stand_heads_that_are_the_groups_own_subspaces() -> None:
    found = readings(*random_heads())
    assert found["own"].nulls["true heads"] == pytest.approx(1, abs=1e-9)
    assert found["angle"].nulls["true heads"] == pytest.approx(0, abs=1e-4)
    halves = torch.stack([torch.cat([torch.eye(3), torch.eye(3).roll(g % 2, dims=0)]) for g in range(G)]).double()
    near = torch.nn.functional.pad(halves, (0, 0, 0, WIDTH - 6)) / math.sqrt(2)  # heads see half of the others' energy
    assert readings(*random_heads(), layer=mixture(near))["own"].nulls["true heads"] < 0.5


def test_turning_keeps_each_group_s_spectrum_and_what_lies_outside() -> None:
    own = torch.diag(torch.tensor([5.0, 4.0, 3.0, 0.01])).double()
    found = turned(own[None].repeat(2, 1, 1), 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.linalg.eigvalsh(found[0]), own.diagonal().flip(0), atol=1e-9, rtol=0)
    torch.testing.assert_close(found[0][3], own[3], atol=1e-9, rtol=0)
    assert torch.equal(found[0], found[1])
    assert float((found[0] - own).abs().max()) > 0.1


def test_a_head_of_zeros_holds_and_sees_nothing() -> None:
    found = readings(*[torch.zeros(R, WIDTH)] * G)
    assert value(found["angle"]) == pytest.approx(90)
    assert value(found["own"]) == 0


def test_neither_batches_nor_processes_matter() -> None:
    layers = [with_class_token(mixture(frames(WIDTH))), with_class_token(mixture(frames(WIDTH)) ** 2)]
    weights = (torch.cat(random_heads()), torch.cat(true_heads()))
    given = told(**{"attention-inputs": layers, "subspaces": weights})
    expected = read(SPEC, given)
    assert len(expected["angle"].profile) == 2
    for found in from_parts(SPEC, given):
        assert_alike(found, expected, rel=1e-7)


def test_what_cannot_be_told_is_unscored_and_heads_that_are_none_are_refused() -> None:
    other = readings(*true_heads(), layer=mixture(frames(WIDTH))[:, :4])
    assert other["own"].unscored == "a layer has 4 tokens of a sample where the task has 16: choose patch=4"
    for shape, message in (((9, 8), "a multiple of 4 heads"), ((8, 6), r"of shape \(8, 6\)")):
        given = told(**{"attention-inputs": [torch.zeros(120, 17, 8)], "subspaces": (torch.zeros(shape),)})
        with pytest.raises(WhitebenchError, match=message):
            read(SPEC, given, heads=4)
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert SPEC.build(CONTEXT).compute()["angle"].unscored == "no sample was seen"
