"""The margins of one head: against loops over tokens, against another solver, and where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import Tensor

from whitebench import WhitebenchError
from whitebench_metrics.margins import (
    QUERIES,
    Chosen,
    angular_margins,
    choose,
    compare,
    gaps_of,
    logits_of,
    priorities,
    random_form,
)
from whitebench_svm import separate

S, N, D = 6, 9, 12


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(S, N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def form() -> Tensor:
    return torch.randn(D, D + 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(tokens: Tensor, form: Tensor, sample: int, query: int) -> list[float]:
    z = torch.cat([tokens[sample, query], torch.ones(1, dtype=torch.float64)])
    return [float(key @ form @ z) for key in tokens[sample]]


def test_logits_are_the_form_between_a_key_and_a_query_with_a_one_appended(tokens: Tensor, form: Tensor) -> None:
    logits = logits_of(tokens, form)
    for sample, query in ((0, 0), (3, 7), (5, 8)):
        assert logits[sample, query].tolist() == pytest.approx(by_hand(tokens, form, sample, query))


def test_the_gap_is_what_the_weights_say_it_is(tokens: Tensor, form: Tensor) -> None:
    """log a(1) - log a(2), whatever constant a row's logits are known up to."""
    logits = logits_of(tokens, form)
    weights = (logits + torch.randn(S, N, 1, dtype=torch.float64)).softmax(dim=-1)
    top = weights.topk(2, dim=-1).values.log()
    torch.testing.assert_close(gaps_of(logits), top[..., 0] - top[..., 1])


def test_an_angular_margin_is_the_smallest_over_the_other_tokens(tokens: Tensor, form: Tensor) -> None:
    margins = angular_margins(tokens, form)
    for sample, query in ((0, 0), (2, 5)):
        logits = by_hand(tokens, form, sample, query)
        selected = int(np.argmax(logits))
        z = torch.cat([tokens[sample, query], torch.ones(1, dtype=torch.float64)])
        angles = []
        for key in range(N):
            if key != selected:
                delta = tokens[sample, selected] - tokens[sample, key]
                angles.append(float(delta @ form @ z / (form.norm() * delta.norm() * z.norm())))
        assert float(margins[sample, query]) == pytest.approx(min(angles))
    assert float(margins.abs().max()) <= 1


def test_an_angular_margin_does_not_depend_on_the_size_of_the_form(tokens: Tensor, form: Tensor) -> None:
    torch.testing.assert_close(angular_margins(tokens, 7 * form), angular_margins(tokens, form))


def test_two_equal_tokens_have_no_angle_between_them(form: Tensor) -> None:
    assert angular_margins(torch.ones(1, 2, D, dtype=torch.float64), form).tolist() == [[0.0, 0.0]]


def test_queries_are_drawn_from_the_tenth_with_the_largest_gaps(form: Tensor) -> None:
    tokens = torch.randn(80, N, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gaps = gaps_of(logits_of(tokens, form)).flatten()
    gate = gaps.sort(descending=True).values[72 - 1]  # a tenth of 720
    drawn = []
    for draw in range(3):
        chosen = choose(tokens, form, draw=draw)
        assert chosen.differences.shape == (QUERIES, N - 1, D)
        smallest = torch.einsum("mcd,de,me->mc", chosen.differences, form, chosen.queries).amin(dim=1)
        assert float(smallest.min()) >= float(gate) - 1e-9
        drawn.append({tuple(row) for row in chosen.queries.tolist()})
        assert len(drawn[-1]) == QUERIES
    assert len(set.union(*drawn)) > QUERIES


def test_a_nudge_of_rounding_changes_at_most_one_query(form: Tensor) -> None:
    tokens = torch.randn(80, N, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    nudged = tokens * (1 + 1e-7)
    first, second = (choose(one, form, draw=0).queries for one in (tokens, nudged))
    nearest = torch.cdist(first, second).amin(dim=1)
    assert int((nearest > 1e-3).sum()) <= 1


def test_few_tokens_give_all_the_queries_there_are(form: Tensor) -> None:
    tokens = torch.randn(1, 3, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert len(choose(tokens, form, draw=0).queries) == 3


def test_the_order_of_queries_depends_on_the_draw_alone() -> None:
    assert sorted(priorities(50, 0).tolist()) == list(range(50))
    assert torch.equal(priorities(50, 3), priorities(50, 3))
    assert not torch.equal(priorities(50, 3), priorities(50, 4))


def test_the_best_w_is_at_the_margin_and_what_no_constraint_sees_takes_nothing_from_it(
    tokens: Tensor, form: Tensor
) -> None:
    chosen = Chosen(
        differences=choose(tokens, form, draw=0).differences[:2, :3],
        queries=choose(tokens, form, draw=0).queries[:2],
    )
    differences, queries = chosen.constraints
    best = separate(differences, queries).weight
    unseen = torch.linalg.svd(differences)[2][-1]  # six constraints in twelve dimensions
    for weight in (best, 5 * best, best + torch.outer(unseen, queries[0])):
        found = compare(weight, [chosen])
        assert (float(found.rho), float(found.kappa)) == pytest.approx((1.0, 1.0), abs=1e-5)


def test_rho_and_kappa_are_those_of_an_exact_solver(tokens: Tensor, form: Tensor) -> None:
    """min |A^T a| with 1^T a = 1, a >= 0, as a nonnegative least squares problem; W_mm = A^T a / |A^T a|^2."""
    chosen = choose(tokens, form, draw=0)
    few = Chosen(differences=chosen.differences[:6], queries=chosen.queries[:6])
    differences, queries = few.constraints
    rows = torch.einsum("cd,ce->cde", differences, queries).flatten(1).numpy()
    big = 1e4
    dual, _ = nnls(np.vstack([rows.T, big * np.ones(len(rows))]), np.append(np.zeros(rows.shape[1]), big))
    shortest = rows.T @ (dual / dual.sum())
    best = shortest / (shortest @ shortest)
    basis = torch.linalg.svd(differences, full_matrices=False)[2]
    seen = (basis.T @ basis @ form).numpy().ravel()
    z_basis = torch.linalg.svd(queries, full_matrices=False)
    kept = z_basis[2][z_basis[1] > 1e-9]
    seen = (basis.T @ basis @ form @ (kept.T @ kept)).numpy().ravel()
    rho = (rows @ seen).min() / np.linalg.norm(seen) * np.linalg.norm(best)
    kappa = seen @ best / (np.linalg.norm(seen) * np.linalg.norm(best))
    found = compare(form, [few])
    assert (float(found.rho), float(found.kappa)) == pytest.approx((rho, kappa), rel=1e-4)
    assert 0 < rho < 1
    assert float(found.gap) < 1e-6


def test_every_draw_has_a_number_of_its_own(tokens: Tensor, form: Tensor) -> None:
    draws = [choose(tokens, form, draw=draw) for draw in range(3)]
    together = compare(form, draws)
    alone = [float(compare(form, [one]).rho) for one in draws]
    assert together.rho.tolist() == pytest.approx(alone, rel=1e-5)


def test_the_best_positive_semidefinite_w_has_the_smaller_margin(tokens: Tensor) -> None:
    projection = torch.randn(4, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    tied = torch.nn.functional.pad(projection.T @ projection, (0, 1))
    chosen = [choose(tokens, tied, draw=0)]
    free, psd = compare(tied, chosen), compare(tied, chosen, is_psd=True)
    assert 0 < float(free.rho) < float(psd.rho) <= 1 + 1e-6


def test_tokens_that_nothing_separates_are_an_error(form: Tensor) -> None:
    twins = torch.randn(2, 1, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64).expand(2, N, D)
    with pytest.raises(WhitebenchError):
        compare(form, [choose(twins.contiguous(), form, draw=0)])


@pytest.mark.parametrize("is_psd", [False, True])
def test_a_random_form_has_the_spectrum_of_the_one_it_stands_for(form: Tensor, is_psd: bool) -> None:
    if is_psd:
        projection = torch.randn(4, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        form = torch.nn.functional.pad(projection.T @ projection, (0, 1))
    first, second = (random_form(form, is_psd=is_psd, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    torch.testing.assert_close(torch.linalg.svdvals(first), torch.linalg.svdvals(form), rtol=1e-9, atol=1e-9)
    assert float((first - second).norm()) > 0.1 * float(form.norm())
    if is_psd:
        torch.testing.assert_close(first[:, :-1], first[:, :-1].T)
        assert float(torch.linalg.eigvalsh(first[:, :-1]).min()) > -1e-9
        assert first[:, -1].tolist() == [0.0] * D


def test_random_forms_favour_no_direction(form: Tensor) -> None:
    """The mean of many is zero, entry by entry, within what their spread allows."""
    generator = torch.Generator().manual_seed(5)
    many = torch.stack([random_form(form, is_psd=False, generator=generator) for _ in range(400)])
    error = many.std(dim=0) / math.sqrt(len(many))
    assert float((many.mean(dim=0) / error).abs().max()) < 4.5
