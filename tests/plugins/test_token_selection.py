"""Token selection: its data, its gradient and its claims, against autograd, many digits and a quadratic programme."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import Tensor

from whitebench import Solution, WhitebenchError
from whitebench_models.token_gradient import gradient_of, sparsemax
from whitebench_models.token_selector import DescentOptions, TokenSelector
from whitebench_tasks.token_selection.claims import CLAIMS, sign_test_bar
from whitebench_tasks.token_selection.draws import Draws, draw
from whitebench_tasks.token_selection.margins import nearness, select, target_of
from whitebench_tasks.token_selection.problem import Problem, logits_of
from whitebench_tasks.token_selection.task import TokenSelectionOptions, solve

SIZE = {"inputs": 6, "tokens": 8, "width": 10}


def some(count: int = 5, **size: int) -> Draws:
    return draw(range(count), **{**SIZE, **size})


def problem(draws: Draws, **more: Any) -> Problem:
    return Problem(draws=draws, **{"watch": (1,), **more})


# Data


def test_a_draw_is_the_same_alone_and_beside_others() -> None:
    together, alone = draw([3, 7, 11], **SIZE), draw([7], **SIZE)
    for field in dataclasses.fields(Draws):
        axis = 1 if field.name == "starts" else 0
        beside = getattr(together, field.name).select(axis, 1)
        assert torch.equal(beside, getattr(alone, field.name).select(axis, 0)), field.name


def test_tokens_queries_and_head_have_length_one_and_point_anywhere() -> None:
    draws = some(200)
    for rows in (draws.tokens, draws.queries, draws.head):
        torch.testing.assert_close(rows.norm(dim=-1), torch.ones(rows.shape[:-1], dtype=torch.float64))
    flat = draws.tokens.flatten(0, 2)
    moment = flat.T @ flat / len(flat)  # of the uniform law on the sphere: I / D
    torch.testing.assert_close(moment, torch.eye(10, dtype=torch.float64) / 10, atol=4e-3, rtol=0)
    assert flat.mean(dim=0).abs().max() < 0.02


def test_labels_are_signs_and_starts_are_those_of_a_linear_layer() -> None:
    draws = some(200)
    assert set(draws.labels.flatten().tolist()) == {-1.0, 1.0}
    assert abs(float(draws.labels.mean())) < 0.1
    bound = 1 / math.sqrt(10)
    assert float(draws.starts.abs().max()) <= bound
    assert float(draws.starts.var()) == pytest.approx(bound**2 / 3, rel=0.02)


def test_the_optimal_token_has_the_largest_score() -> None:
    draws = some()
    for s in range(5):
        for i in range(6):
            scores = [float(draws.labels[s, i] * draws.head[s] @ token) for token in draws.tokens[s, i]]
            assert int(draws.optimal[s, i]) == int(np.argmax(scores))


# Gradient


def by_autograd(draws: Draws, weights: Tensor, attention: str = "softmax", ridge: float = 0.0) -> Tensor:
    """The gradient of the objective as it is written down."""
    leaf = weights.clone().requires_grad_()
    logits = torch.einsum("sntd,sde,sne->snt", draws.tokens, leaf, draws.queries)
    weighed = sparsemax(logits) if attention == "sparsemax" else logits.softmax(dim=-1)
    outputs = torch.einsum("sntd,snt,sd->sn", draws.tokens, weighed, draws.head)
    loss = F.softplus(-draws.labels * outputs).mean(dim=1) + ridge / 2 * leaf.square().sum(dim=(1, 2))
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return gradient


def weights_of(draws: Draws, scale: float) -> Tensor:
    return scale * torch.randn(*draws.starts.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_the_gradient_is_autograd_s_where_nothing_cancels(scale: float, is_exact: bool) -> None:
    draws = some()
    weights = weights_of(draws, scale)
    found = gradient_of(problem(draws), weights, is_exact=is_exact)
    dense = found.dense() * found.log_scale.exp()[:, None, None]
    torch.testing.assert_close(dense, by_autograd(draws, weights), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("scale", [0.5, 5.0])
def test_through_sparsemax_with_a_ridge_it_is_autograd_s_too(scale: float) -> None:
    draws = some()
    weights = weights_of(draws, scale)
    found = gradient_of(problem(draws, attention="sparsemax", ridge=0.1), weights, is_exact=True).dense()
    torch.testing.assert_close(found, by_autograd(draws, weights, "sparsemax", 0.1), rtol=1e-9, atol=1e-15)


def test_sparsemax_is_the_nearest_point_of_the_simplex() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(1, 50, 5, dtype=torch.float64, generator=generator)
    found = sparsemax(logits)[0]
    assert found.min() >= 0
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(50, dtype=torch.float64))
    others = torch.rand(500, 5, dtype=torch.float64, generator=generator).log().neg()
    others /= others.sum(dim=-1, keepdim=True)
    mine = (logits[0] - found).norm(dim=-1)
    assert bool((torch.cdist(logits[0], others) >= mine[:, None] - 1e-12).all())


def in_many_digits(draws: Draws, weights: Tensor) -> np.ndarray[Any, Any]:
    """The textbook gradient of the first draw with 500 digits, divided by its Frobenius norm."""
    with localcontext(prec=500):
        exact: Any = np.vectorize(Decimal, otypes=[object])
        W, head = exact(weights[0].numpy()), exact(draws.head[0].numpy())
        total = 0 * W
        for i in range(draws.tokens.shape[1]):
            tokens, query = exact(draws.tokens[0, i].numpy()), exact(draws.queries[0, i].numpy())
            exps = np.array([one.exp() for one in tokens @ W @ query])
            attention, values = exps / exps.sum(), tokens @ head
            label = int(draws.labels[0, i])
            output = attention @ values
            slope = -label / (1 + (label * output).exp())
            total += slope * np.outer((attention * (values - output)) @ tokens, query)
        direction: np.ndarray[Any, Any] = (total / (total**2).sum().sqrt()).astype(np.float64)
    return direction


@pytest.mark.parametrize("nats", [5, 60, 400])
def test_the_exact_gradient_is_right_at_any_margin_and_the_textbook_s_is_noise_at_large_ones(nats: float) -> None:
    draws = some(1, inputs=3, tokens=4, width=5)
    weights = draws.starts[0]
    gaps = logits_of(draws, weights).sort(dim=-1).values.diff(dim=-1)[..., -1]
    weights = weights * nats / gaps.min()
    truth = in_many_digits(draws, weights)

    def error(is_exact: bool) -> float:
        dense = gradient_of(problem(draws), weights, is_exact=is_exact).dense()[0].numpy()
        return float(np.abs(dense / (np.linalg.norm(dense) or 1.0) - truth).max())

    assert error(is_exact=True) < 1e-12
    assert (error(is_exact=False) < 1e-9) == (nats < 20)


def test_keys_and_queries_follow_the_product_rule() -> None:
    draws, rate = some(), 1e-3
    selector = TokenSelector(DescentOptions(parameters="kq", step="plain", learning_rate=rate))
    before, after = selector.descend(problem(draws, watch=(0, 1)))
    keys, queries = (one.clone().requires_grad_() for one in draws.starts)
    logits = torch.einsum("sntd,skd,ske,sne->snt", draws.tokens, keys, queries, draws.queries)
    outputs = torch.einsum("sntd,snt,sd->sn", draws.tokens, logits.softmax(dim=-1), draws.head)
    F.softplus(-draws.labels * outputs).mean(dim=1).sum().backward()  # type: ignore[no-untyped-call]
    assert keys.grad is not None
    assert queries.grad is not None
    torch.testing.assert_close(before, (keys.mT @ queries).detach())
    torch.testing.assert_close(after, ((keys - rate * keys.grad).mT @ (queries - rate * queries.grad)).detach())


# Rules of descent


def stepped(rule: DescentOptions, *, steps: int = 3) -> tuple[Draws, list[Tensor]]:
    draws = some()
    return draws, TokenSelector(rule).descend(problem(draws, watch=tuple(range(steps + 1))))


def test_a_normalised_step_is_as_long_as_the_learning_rate() -> None:
    draws, path = stepped(DescentOptions(learning_rate=0.3))
    moves = torch.stack(path).diff(dim=0)
    torch.testing.assert_close(moves.norm(dim=(2, 3)), torch.full((3, 5), 0.3, dtype=torch.float64))
    gradient = by_autograd(draws, path[1])
    torch.testing.assert_close(moves[1], -0.3 * gradient / gradient.norm(dim=(1, 2), keepdim=True))


def test_a_linear_schedule_comes_to_rest() -> None:
    _, path = stepped(DescentOptions(schedule="linear", learning_rate=0.3), steps=3)
    lengths = torch.stack(path).diff(dim=0).norm(dim=(2, 3))[:, 0]
    torch.testing.assert_close(lengths, 0.3 * torch.tensor([1, 2 / 3, 1 / 3], dtype=torch.float64))


def test_adam_is_torch_s() -> None:
    draws, path = stepped(DescentOptions(step="adam", learning_rate=0.01))
    weights = draws.starts[0].clone().requires_grad_()
    adam = torch.optim.Adam([weights], lr=0.01)
    for there in path:
        torch.testing.assert_close(there, weights.detach(), rtol=1e-6, atol=1e-9)
        weights.grad = by_autograd(draws, weights.detach())
        adam.step()


def test_muon_moves_along_the_polar_factor() -> None:
    draws, path = stepped(DescentOptions(step="muon", learning_rate=0.1), steps=1)
    u, size, v = torch.linalg.svd(by_autograd(draws, path[0]))
    rank = 6  # of six inputs
    assert float(size[:, rank:].max()) < 1e-14
    torch.testing.assert_close(path[1] - path[0], -0.1 * u[:, :, :rank] @ v[:, :rank], rtol=1e-6, atol=1e-9)


def test_no_step_leaves_the_start_and_only_w_can_start_at_zero() -> None:
    draws = some()
    for rule, start in (
        (DescentOptions(step="none"), draws.starts[0]),
        (DescentOptions(), torch.zeros(5, 10, 10, dtype=torch.float64)),
        (DescentOptions(parameters="kq"), draws.starts[0].mT @ draws.starts[1]),
    ):
        [first, *_] = TokenSelector(rule).descend(problem(draws, is_from_zero=True, watch=(0, 1)))
        torch.testing.assert_close(first, start, rtol=0, atol=0)


@pytest.mark.parametrize("rule", [{}, {"parameters": "kq"}, {"step": "adam"}, {"step": "muon"}])
def test_a_draw_s_descent_does_not_depend_on_the_others(rule: dict[str, Any]) -> None:
    together = TokenSelector(DescentOptions(**rule)).descend(problem(draw([3, 7], **SIZE), watch=(20,)))[0]
    alone = TokenSelector(DescentOptions(**rule)).descend(problem(draw([7], **SIZE), watch=(20,)))[0]
    torch.testing.assert_close(together[1], alone[0], rtol=1e-9, atol=1e-12)


def test_the_precision_is_that_of_the_whole_descent() -> None:
    double, single = (
        TokenSelector(DescentOptions(precision=precision)).descend(problem(some(), watch=(5,)))[0]
        for precision in ("float64", "float32")
    )
    assert single.dtype == torch.float64  # what is measured is not rounded once more
    assert 1e-9 < float((double - single).abs().max()) < 1e-4


# Maximum margins


def by_nonnegative_least_squares(draws: Draws, selected: Tensor, s: int) -> Tensor:
    """W_mm as Lawson and Hanson's least-distance problem: min |E a - f|, E = [A^T; 1^T], f = [0; 1]."""
    rows = [
        np.outer(draws.tokens[s, i, selected[s, i]] - draws.tokens[s, i, t], draws.queries[s, i]).ravel()
        for i in range(draws.tokens.shape[1])
        for t in range(draws.tokens.shape[2])
        if t != selected[s, i]
    ]
    A = np.stack(rows)
    E, f = np.vstack([A.T, np.ones(len(A))]), np.append(np.zeros(A.shape[1]), 1.0)
    multipliers, _ = nnls(E, f)
    left = E @ multipliers - f
    D = draws.head.shape[1]
    return torch.from_numpy(-left[:-1] / left[-1]).reshape(D, D)


def test_the_target_is_that_of_nonnegative_least_squares_and_nothing_is_nearer_to_it_than_itself() -> None:
    draws = some()
    selected = select(draws, draws.starts[0])
    target = target_of(draws, selected, "frobenius")
    for s in range(5):
        torch.testing.assert_close(
            target.weights[s], by_nonnegative_least_squares(draws, selected, s), rtol=0, atol=1e-6
        )
    found = nearness(draws, selected, 3 * target.weights, target)
    for values, expected in ((found.cosine, 1.0), (found.margin_ratio, 1.0), (found.norm_ratio, 3.0)):
        torch.testing.assert_close(values, torch.full((5,), expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_a_selection_that_no_w_makes_is_said_and_costs_the_other_draws_nothing() -> None:
    draws = some()
    doubled = draws.tokens.clone()
    doubled[2, 0, 1] = doubled[2, 0, 0]  # one token twice: neither can be told from the other
    broken = dataclasses.replace(draws, tokens=doubled)
    selected = torch.zeros(5, 6, dtype=torch.long)
    target = target_of(broken, selected, "frobenius")
    assert target.is_infeasible.tolist() == [False, False, True, False, False]
    assert not target.is_open.any()
    found = nearness(broken, selected, draws.starts[0], target)
    assert found.cosine.isnan().tolist() == [False, False, True, False, False]
    whole = target_of(draws, selected, "frobenius")
    torch.testing.assert_close(target.weights[[0, 1, 3, 4]], whole.weights[[0, 1, 3, 4]])


# Claims


def solved(rule: dict[str, Any], block: int = 0, **options: Any) -> Solution:
    return solve(TokenSelectionOptions(**{"draws": 20, **options}), TokenSelector(DescentOptions(**rule)), block)


def value(solution: Solution, name: str) -> float:
    found = solution.scores[name].value
    assert found is not None, solution.scores[name].unscored
    return found


def test_normalised_descent_on_w_finds_the_maximum_margin() -> None:
    found = solved({}, draws=100)
    assert value(found, "accepted") >= 0.95
    assert value(found, "max-margin/margin-ratio") >= 0.93
    assert value(found, "verdict") >= 1
    assert value(found, "max-margin/cosine") == pytest.approx(0.998, abs=0.001)
    assert value(found, "max-margin/unsolved") == 0
    assert value(found, "max-margin/gap") < 1e-6


def test_in_float32_too_where_the_gradient_is_exact() -> None:
    assert value(solved({"precision": "float32"}), "max-margin/cosine") > 0.995


@pytest.mark.parametrize(
    ("rule", "cosine"),
    [
        ({"step": "adam", "learning_rate": 0.01}, 0.85),
        ({"step": "plain", "learning_rate": 1.0}, 0.87),
        ({"step": "muon"}, 0.83),
        ({"step": "none"}, 0.34),
        ({"gradient": "textbook", "precision": "float32"}, 0.73),
        ({"parameters": "kq"}, 0.86),
    ],
)
def test_other_rules_of_descent_find_another_direction(rule: dict[str, Any], cosine: float) -> None:
    found = solved(rule)
    assert value(found, "accepted") == 0
    assert value(found, "verdict") < 0.9
    assert value(found, "max-margin/cosine") == pytest.approx(cosine, abs=0.04)


def test_more_width_selects_more_optimal_tokens_and_infeasible_draws_are_counted() -> None:
    found = [solved({}, claim="global-vs-d", width=width, draws=40, steps=1000) for width in (2, 4, 10, 32)]
    shares, infeasible = ([value(one, name) for one in found] for name in ("accepted", "best-tokens/infeasible"))
    assert shares == sorted(shares)
    assert shares[-1] > 0.8 > 0.4 > shares[1]
    assert infeasible[0] > 0.5  # at width 2 one draw in six can be separated at all
    assert infeasible[2:] == [0, 0]
    assert found[0].scores["verdict"].unscored == ("this claim is not about one width: the share is to rise with it")


def test_sparsemax_with_a_small_ridge_ends_at_the_maximum_margin_itself() -> None:
    found = solved({"schedule": "linear", "learning_rate": 0.2}, claim="sparsemax-ridge", ridge=3e-5)
    assert value(found, "accepted") >= 0.95
    assert value(found, "max-margin/median-norm-ratio") == pytest.approx(1, abs=1e-3)


def test_every_draw_is_kept_in_blocks_that_follow_each_other() -> None:
    first, second, both = (
        solved({}, block, draws=size, steps=50).per_sample["frobenius cosine"]
        for block, size in ((0, 4), (1, 4), (0, 8))
    )
    torch.testing.assert_close(torch.cat([first, second]), both, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("draws", "bar"), [(4, 5), (5, 5), (10, 9), (100, 59)])
def test_the_sign_test_takes_the_counts_of_the_binomial_law(draws: int, bar: int) -> None:
    tail = sum(math.comb(draws, k) for k in range(bar, draws + 1)) / 2**draws
    assert tail <= 0.05 < tail + math.comb(draws, bar - 1) / 2**draws
    assert sign_test_bar(draws) == bar


@pytest.mark.parametrize("claim", CLAIMS)
def test_every_claim_yields_pictures_or_has_no_direction_to_show(claim: Any) -> None:
    found = solved({}, claim=claim, draws=2, steps=30)
    if claim == "global-vs-d":
        assert "max-margin/cosine" not in found.scores
        return
    pictures = found.scores["max-margin/cosine"].pictures
    assert list(pictures) == ["nearness", "way-1", "way-2"]
    way = pictures["way-1"].series
    assert way["W z"].shape[1] == 2
    assert [int(one.isfinite().all(dim=1).sum()) for one in way.values()] == [3, len(way["W z"]), 2, 2 * 7]
    torch.testing.assert_close(way["W z"][-1].norm(), torch.tensor(1.0, dtype=torch.float64), atol=0.2, rtol=0)
    steps = pictures["nearness"].series["mean"][:, 0]
    assert (float(steps[0]), float(steps[-1])) == (1, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, r"token-selection\[draws=0\]: it must be 1 or more"),
        ({"tokens": 1}, r"token-selection\[tokens=1\]: it must be 2 or more"),
        ({"ridge": 0.1}, "claim w-frobenius has no ridge: leave it out"),
    ],
)
def test_options_that_make_no_problem_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WhitebenchError, match=message):
        TokenSelectionOptions(**options)
