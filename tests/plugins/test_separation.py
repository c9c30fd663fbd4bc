"""The smallest separating W: against exact nonnegative least squares, and what must hold of every answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linprog, nnls

from whitebench import WhitebenchError
from whitebench_svm import InfeasibleError, UnconvergedError, separate

if TYPE_CHECKING:
    from torch import Tensor


def drawn(
    *batch: int, n: int = 6, T: int = 8, d: int = 10, e: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Return n inputs of T tokens, of which the first is selected: n (T - 1) differences and queries."""
    generator = torch.Generator().manual_seed(seed)
    tokens = F.normalize(torch.randn(*batch, n, T, d, generator=generator, dtype=torch.float64), dim=-1)
    queries = F.normalize(torch.randn(*batch, n, 1, e or d, generator=generator, dtype=torch.float64), dim=-1)
    differences = tokens[..., :1, :] - tokens[..., 1:, :]
    return differences.flatten(-3, -2), queries.expand(*batch, n, T - 1, -1).flatten(-3, -2)


def features(differences: Tensor, queries: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return one row Delta_l z_l^T for each constraint: (N, D E)."""
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    rows = (differences[:, :, None] * queries[:, None, :]).flatten(1).numpy()
    return rows


def exact_norm(differences: Tensor, queries: Tensor) -> float:
    """Return ||W_mm||_F: min_b ||A* b||^2 + (1^T b - 1)^2 is 1 / (1 + ||W_mm||^2)."""
    rows = features(differences, queries)
    _, residual = nnls(np.vstack([rows.T, np.ones(len(rows))]), np.append(np.zeros(rows.shape[1]), 1.0))
    return float(np.sqrt(1 / residual**2 - 1))


def margins(weight: Tensor, differences: Tensor, queries: Tensor) -> Tensor:
    found: Tensor = torch.einsum("...nd,...de,...ne->...n", differences, weight, queries)
    return found


def opposed(*batch: int) -> tuple[Tensor, Tensor]:
    """Return problems with a constraint and its opposite."""
    differences, queries = drawn(*batch)
    return torch.cat([differences, -differences[..., :1, :]], dim=-2), torch.cat([queries, queries[..., :1, :]], dim=-2)


def test_by_hand() -> None:
    # <e_1, W z> >= 1 and <e_2, W z> >= 1 with z = (2, 0): the smallest W has 1/2 twice in its first column.
    found = separate(torch.eye(2), torch.tensor([[2.0, 0.0], [2.0, 0.0]]))
    assert torch.allclose(found.weight, torch.tensor([[0.5, 0.0], [0.5, 0.0]], dtype=torch.float64), atol=1e-9)
    assert float(found.norm) == pytest.approx(0.5**0.5, rel=1e-9)
    assert float(found.margin) == pytest.approx(2**0.5, rel=1e-9)
    assert torch.allclose(found.multipliers, torch.tensor([0.25, 0.25], dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("d", [5, 6, 10, 20])
def test_agrees_with_exact_least_squares(d: int) -> None:
    differences, queries = drawn(20, d=d)
    expected = [exact_norm(*problem) for problem in zip(differences, queries, strict=True)]
    assert separate(differences, queries).norm.tolist() == pytest.approx(expected, rel=1e-6)


def test_queries_may_be_of_another_width() -> None:
    differences, queries = drawn(d=10, e=11)
    found = separate(differences, queries)
    assert found.weight.shape == (10, 11)
    assert float(found.norm) == pytest.approx(exact_norm(differences, queries), rel=1e-6)


def test_weight_norm_margin_and_gap_say_the_same() -> None:
    differences, queries = drawn(3, 4)
    found = separate(differences, queries)
    assert found.weight.shape == (3, 4, 10, 10)
    assert found.norm.shape == found.gap.shape == found.margin.shape == (3, 4)
    assert found.multipliers.shape == (3, 4, 42)
    assert torch.allclose(margins(found.weight, differences, queries).amin(dim=-1), torch.ones(3, 4).double())
    assert torch.allclose(found.weight.flatten(-2).norm(dim=-1), found.norm)
    assert torch.allclose(found.margin * found.norm, torch.ones(3, 4).double())
    assert bool((found.multipliers >= 0).all())
    combined = torch.einsum("...n,...nd,...ne->...de", found.multipliers, differences, queries)
    lower = found.multipliers.sum(dim=-1) / combined.flatten(-2).norm(dim=-1)
    assert torch.allclose(1 - lower / found.norm, found.gap, atol=1e-12)
    assert torch.allclose(found.multipliers.sum(dim=-1), lower.square())
    assert float(found.gap.max()) <= 1e-6


def test_no_multipliers_prove_more_than_the_norm_found() -> None:
    differences, queries = drawn()
    norm = float(separate(differences, queries).norm)
    random = torch.rand(1000, 42, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    combined = torch.einsum("rn,nd,ne->rde", random * (random > 0.5), differences, queries)
    proved = (random * (random > 0.5)).sum(dim=1) / combined.flatten(1).norm(dim=1)
    assert float(proved.max()) <= norm


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_vectors_c_times_as_long_take_a_weight_c_times_as_short(scale: float) -> None:
    differences, queries = drawn(4)
    found, scaled = separate(differences, queries), separate(differences * scale, queries / 7)
    assert torch.allclose(scaled.weight * scale / 7, found.weight, rtol=1e-7, atol=1e-9)
    assert torch.allclose(scaled.norm * scale / 7, found.norm, rtol=1e-9)


def test_redundant_constraints_change_nothing() -> None:
    differences, queries = drawn(4)
    shares = torch.rand(4, 6, 7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(dim=-1)
    between = (shares @ differences.reshape(4, 6, 7, 10)).reshape(4, 42, 10)
    found = separate(differences, queries)
    again = separate(torch.cat([differences, differences, between], dim=1), queries.repeat(1, 3, 1))
    assert torch.allclose(again.weight, found.weight, atol=1e-7)


def test_a_batch_is_its_problems_one_by_one() -> None:
    differences, queries = drawn(3, 2, d=5)
    together = separate(differences, queries)
    for place in [(i, j) for i in range(3) for j in range(2)]:
        alone = separate(differences[place], queries[place])
        assert alone.norm.shape == ()
        assert torch.allclose(alone.weight, together.weight[place], atol=1e-7)


def test_masked_places_are_no_constraints() -> None:
    differences, queries = drawn(5)
    mask = torch.rand(5, 42, generator=torch.Generator().manual_seed(1)) < torch.linspace(0.1, 1, 5)[:, None]
    found = separate(differences.masked_fill(~mask[..., None], torch.nan), queries, mask=mask)
    for item in range(5):
        alone = separate(differences[item, mask[item]], queries[item, mask[item]])
        assert torch.allclose(found.weight[item], alone.weight, atol=1e-7)
        assert torch.allclose(found.multipliers[item, mask[item]], alone.multipliers, atol=1e-7)
        assert not found.multipliers[item, ~mask[item]].any()


@pytest.mark.parametrize(("n", "T", "d", "most"), [(20, 20, 32, 160), (30, 8, 10, 100)])
def test_generated_constraints_give_the_whole_problems_answer(n: int, T: int, d: int, most: int) -> None:
    differences, queries = drawn(2, n=n, T=T, d=d)
    whole = separate(differences, queries)
    few = separate(differences, queries, most_constraints=most)
    assert torch.allclose(few.norm, whole.norm, rtol=1e-6)
    assert float(margins(few.weight, differences, queries).min()) == pytest.approx(1)


def test_supports_above_the_most_constraints_at_a_time_are_no_answer() -> None:
    with pytest.raises(UnconvergedError, match="gap above 1e-06"):
        separate(*drawn(), most_constraints=10)


def test_a_good_guess_is_enough() -> None:
    differences, queries = drawn(n=20, T=20, d=32)
    weight = separate(differences, queries).weight
    again = separate(differences, queries, most_constraints=160, guess=weight * 100)
    assert torch.allclose(again.weight, weight, atol=1e-6)


@pytest.mark.parametrize("push", [0.0, 1e-14])
def test_opposite_constraints_are_infeasible(push: float) -> None:
    differences, queries = opposed()
    with pytest.raises(InfeasibleError, match="a problem that no W separates: a nonnegative combination"):
        separate(differences + push, queries)


def test_too_many_inputs_for_the_width_are_infeasible_and_named() -> None:
    differences, queries = drawn(2, 3, n=60, d=8)
    easy_differences, easy_queries = differences[0, 0], queries[0, 0]
    differences[:, 1], queries[:, 1] = easy_differences[:1], easy_queries[:1]
    with pytest.raises(
        InfeasibleError, match=r"problems \(0, 0\), \(0, 2\), \(1, 0\), \(1, 2\) of the batch"
    ) as caught:
        separate(differences, queries)
    assert caught.value.items == ((0, 0), (0, 2), (1, 0), (1, 2))


def test_a_competitor_equal_to_the_selected_token_is_infeasible() -> None:
    differences, queries = drawn()
    differences[3] = 0
    with pytest.raises(InfeasibleError, match="a competitor is equal to the selected token"):
        separate(differences, queries)


def test_infeasible_is_what_a_linear_programme_finds_no_weight_for() -> None:
    differences, queries = drawn(60, d=3, seed=2)
    is_separable = []
    for problem in zip(differences, queries, strict=True):
        rows = features(*problem)
        margin_last = np.append(np.zeros(rows.shape[1]), -1.0)  # the largest t with rows W >= t and entries within 1
        found = linprog(
            margin_last,
            A_ub=np.hstack([-rows, np.ones((len(rows), 1))]),
            b_ub=np.zeros(len(rows)),
            bounds=[(-1, 1)] * rows.shape[1] + [(None, None)],
        )
        is_separable.append(-found.fun > 1e-9)
    with pytest.raises(InfeasibleError) as caught:
        separate(differences, queries)
    assert caught.value.items == tuple((item,) for item, separable in enumerate(is_separable) if not separable)
    assert 0 < sum(is_separable) < 60
    which = torch.tensor(is_separable)
    assert float(separate(differences[which], queries[which]).gap.max()) <= 1e-6


def test_margins_lost_in_rounding_are_no_answer() -> None:
    differences, queries = opposed(5)
    generator = torch.Generator().manual_seed(1)
    differences[..., -1, :] += 1e-9 * torch.randn(5, 10, generator=generator, dtype=torch.float64)
    with pytest.raises(UnconvergedError, match="problems 0, 1, 2, 3, 4 of the batch with a relative gap above 1e-06"):
        separate(differences, queries)


@pytest.mark.parametrize(
    ("differences", "queries", "options", "text"),
    [
        (torch.ones(3, 2), torch.ones(4, 2), {}, "one for each constraint"),
        (torch.ones(2, 3, 2), torch.ones(4, 3, 2), {}, "not of one batch"),
        (torch.ones(3, 2), torch.ones(3, 2), {"mask": torch.ones(4)}, "not of one batch"),
        (torch.ones(2, 3, 2), torch.ones(2, 3, 2), {"mask": torch.tensor([[1, 0, 0], [0, 0, 0]])}, "problem 1 of the"),
        (torch.ones(0, 2), torch.ones(0, 2), {}, "without a problem or a constraint"),
        (torch.ones(0, 3, 2), torch.ones(0, 3, 2), {}, "without a problem or a constraint"),
        (torch.full((3, 2), torch.nan), torch.ones(3, 2), {}, "finite"),
        (torch.ones(3, 2), torch.ones(3, 2), {"norm": "taxicab"}, "frobenius"),
        (torch.ones(3, 2), torch.ones(3, 2), {"tolerance": 0.0}, "tolerance"),
        (torch.ones(3, 2), torch.ones(3, 2), {"guess": torch.ones(3, 2)}, "guess"),
    ],
)  # fmt: skip
def test_what_is_no_problem_is_refused(
    differences: Tensor, queries: Tensor, options: dict[str, object], text: str
) -> None:
    with pytest.raises(WhitebenchError, match=text):
        separate(differences, queries, **options)  # type: ignore[arg-type]


def test_half_precision_and_gradients_are_taken_as_they_come() -> None:
    differences, queries = drawn()
    found = separate(differences.bfloat16().requires_grad_(), queries.bfloat16())
    exact = separate(differences.bfloat16().double(), queries.bfloat16().double())
    assert found.weight.dtype == torch.float64
    assert not found.weight.requires_grad
    assert torch.equal(found.weight, exact.weight)
