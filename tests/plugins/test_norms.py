"""Each norm's smallest W: against cvxpy, and what must hold of the answer in that norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import cvxpy
import pytest
import torch

from tests.plugins.test_separation import drawn, features, margins, opposed
from whitebench import WhitebenchError
from whitebench_svm import InfeasibleError, UnconvergedError, separate, stable_rank
from whitebench_svm.norms import GEOMETRIES, Norm

if TYPE_CHECKING:
    from torch import Tensor

NORMS: tuple[Norm, ...] = get_args(Norm)


def norm_of(weight: Tensor, norm: Norm) -> Tensor:
    values = torch.linalg.svdvals(weight)
    size: Tensor = values.sum(dim=-1) if norm == "nuclear" else values.norm(dim=-1)
    return size


def dual_norm_of(combined: Tensor, norm: Norm) -> Tensor:
    if norm == "psd":
        values = torch.linalg.eigvalsh((combined + combined.mT) / 2).clamp_min(0)
    else:
        values = torch.linalg.svdvals(combined)
    size: Tensor = values.amax(dim=-1) if norm == "nuclear" else values.norm(dim=-1)
    return size


def by_cvxpy(differences: Tensor, queries: Tensor, norm: Norm) -> float:
    """Return the smallest norm, by Clarabel on the problem written over the whole W."""
    weight = cvxpy.Variable((differences.shape[1], queries.shape[1]), PSD=norm == "psd")
    size = cvxpy.normNuc(weight) if norm == "nuclear" else cvxpy.norm(weight, "fro")
    constraints = [features(differences, queries) @ cvxpy.vec(weight, order="C") >= 1]
    cvxpy.Problem(cvxpy.Minimize(size), constraints).solve(solver=cvxpy.CLARABEL)
    return float(size.value)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("n", "T", "d"), [(6, 8, 10), (4, 5, 6), (3, 9, 10)])
def test_agrees_with_cvxpy(norm: Norm, n: int, T: int, d: int) -> None:
    differences, queries = drawn(3, n=n, T=T, d=d)
    expected = [by_cvxpy(*problem, norm) for problem in zip(differences, queries, strict=True)]
    found = separate(differences, queries, norm=norm)
    assert found.margin.tolist() == pytest.approx([1 / one for one in expected], rel=1e-6)


def test_nuclear_norm_between_spaces_of_two_widths_agrees_with_cvxpy() -> None:
    differences, queries = drawn(d=10, e=7)
    found = separate(differences, queries, norm="nuclear")
    assert found.weight.shape == (10, 7)
    assert float(found.margin) == pytest.approx(1 / by_cvxpy(differences, queries, "nuclear"), rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_weight_norm_and_gap_say_the_same(norm: Norm) -> None:
    differences, queries = drawn(4)
    found = separate(differences, queries, norm=norm)
    assert torch.allclose(margins(found.weight, differences, queries).amin(dim=-1), torch.ones(4).double())
    assert torch.allclose(norm_of(found.weight, norm), found.norm)
    assert bool((found.multipliers >= 0).all())
    combined = torch.einsum("...n,...nd,...ne->...de", found.multipliers, differences, queries)
    lower = found.multipliers.sum(dim=-1) / dual_norm_of(combined, norm)
    assert torch.allclose(1 - lower / found.norm, found.gap, atol=1e-12)
    assert torch.allclose(found.multipliers.sum(dim=-1), lower.square())
    assert float(found.gap.max()) <= 1e-6


@pytest.mark.parametrize("norm", NORMS)
def test_no_multipliers_prove_more_than_the_norm_found(norm: Norm) -> None:
    differences, queries = drawn()
    generator = torch.Generator().manual_seed(1)
    random = torch.rand(1000, 42, generator=generator, dtype=torch.float64).sub(0.5).clamp_min(0)
    combined = torch.einsum("rn,nd,ne->rde", random, differences, queries)
    proved = random.sum(dim=1) / dual_norm_of(combined, norm)
    assert float(proved.max()) <= float(separate(differences, queries, norm=norm).norm)


@pytest.mark.parametrize("norm", NORMS)
def test_no_other_feasible_weight_is_smaller(norm: Norm) -> None:
    differences, queries = drawn()
    others = torch.stack([separate(differences, queries, norm=other).weight for other in NORMS])
    if norm == "psd":
        others = others[NORMS.index("psd")][None]
    assert float(norm_of(others, norm).min()) >= float(separate(differences, queries, norm=norm).norm) * (1 - 1e-6)


def test_semidefinite_weights_are_symmetric_and_semidefinite() -> None:
    weight = separate(*drawn(4), norm="psd").weight
    assert torch.equal(weight, weight.mT)
    assert float(torch.linalg.eigvalsh(weight).min()) >= 0


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_vectors_c_times_as_long_take_a_norm_c_times_as_short(norm: Norm, scale: float) -> None:
    differences, queries = drawn(2)
    found, scaled = (separate(differences * by, queries, norm=norm) for by in (1, scale))
    assert torch.allclose(scaled.norm * scale, found.norm, rtol=1e-8)


@pytest.mark.parametrize("norm", NORMS)
def test_redundant_constraints_change_no_norm(norm: Norm) -> None:
    differences, queries = drawn(2)
    again = separate(torch.cat([differences, differences], dim=1), queries.repeat(1, 2, 1), norm=norm)
    assert torch.allclose(again.norm, separate(differences, queries, norm=norm).norm, rtol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_a_masked_batch_is_its_problems_one_by_one(norm: Norm) -> None:
    differences, queries = drawn(3)
    mask = torch.rand(3, 42, generator=torch.Generator().manual_seed(1)) < torch.tensor([[0.2], [0.6], [1.0]])
    found = separate(differences, queries, norm=norm, mask=mask)
    for item in range(3):
        alone = separate(differences[item, mask[item]], queries[item, mask[item]], norm=norm)
        assert float(alone.norm) == pytest.approx(float(found.norm[item]), rel=1e-7)
        assert torch.allclose(alone.weight, found.weight[item], atol=1e-4)
        assert not found.multipliers[item, ~mask[item]].any()


@pytest.mark.parametrize("norm", NORMS)
def test_generated_constraints_give_the_whole_problems_answer(norm: Norm) -> None:
    differences, queries = drawn(2, n=12, T=12, d=16)
    whole = separate(differences, queries, norm=norm)
    few = separate(differences, queries, norm=norm, most_constraints=80)
    assert len(differences[0]) == 132 <= GEOMETRIES[norm].at_once
    assert torch.allclose(few.norm, whole.norm, rtol=1e-6)
    assert torch.allclose(margins(few.weight, differences, queries).amin(dim=-1), torch.ones(2).double())


@pytest.mark.parametrize("norm", NORMS)
def test_opposite_constraints_are_infeasible_in_every_norm(norm: Norm) -> None:
    with pytest.raises(InfeasibleError, match="a nonnegative combination of the constraints cancels"):
        separate(*opposed(), norm=norm)


def test_what_no_semidefinite_weight_separates_is_infeasible() -> None:
    differences, queries = drawn(2)
    differences[1, 0] = -queries[1, 0]  # -z^T W z >= 1
    assert float(separate(differences, queries).gap.max()) <= 1e-6
    with pytest.raises(InfeasibleError, match="problem 1 of the batch that no positive semidefinite W separates"):
        separate(differences, queries, norm="psd")


@pytest.mark.parametrize("length", [2, 3, 5])
def test_tokens_that_select_each_other_in_a_circle_have_no_semidefinite_weight(length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(8, 10, generator=generator, dtype=torch.float64)
    selected = torch.arange(8).roll(-1)
    selected[length - 1] = 0  # of the others each selects its follower, and the last the first
    rows, competitors = (torch.arange(8)[:, None] != selected).T.nonzero(as_tuple=True)
    differences = tokens[selected[rows]] - tokens[competitors]
    assert float(separate(differences, tokens[rows]).gap) <= 1e-6
    with pytest.raises(InfeasibleError, match="no positive semidefinite W separates"):
        separate(differences, tokens[rows], norm="psd")


def test_what_is_proved_less_narrowly_than_asked_for_is_no_answer() -> None:
    with pytest.raises(
        UnconvergedError, match=r"problems 0, 1 of the batch with a relative gap above 1e-11: .* nuclear"
    ):
        separate(*drawn(2), norm="nuclear", tolerance=1e-11)


def test_semidefinite_weights_take_one_width() -> None:
    with pytest.raises(WhitebenchError, match="one width; got 10 and 11"):
        separate(*drawn(e=11), norm="psd")


def test_stable_rank_counts_what_is_large() -> None:
    weight = torch.diag(torch.tensor([2.0, 2.0, 1.0, 1e-9]))
    assert float(stable_rank(weight)) == pytest.approx(2.25)
    assert stable_rank(weight.expand(3, 2, 4, 4)).shape == (3, 2)


def test_small_nuclear_norms_have_low_stable_rank() -> None:
    differences, queries = drawn(10)
    nuclear, frobenius = (
        stable_rank(separate(differences, queries, norm=norm).weight).mean() for norm in ("nuclear", "frobenius")
    )
    assert float(nuclear) < float(frobenius)
