"""The ViT with Primal-Attention: its scores by loops, its objective at a real SVD, the whole against a textbook."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.plugins.textbook import linear
from tests.plugins.textbook_vit import (
    CLASSES,
    SHAPE,
    TOKENS,
    Weights,
    assert_hidden_tokens_have_no_part,
    assert_same_logits_and_gradients,
    hide,
    scramble,
)
from whitebench import WhitebenchError
from whitebench.testing import check_model
from whitebench.tracing import observe
from whitebench_models.attention import own_term
from whitebench_models.ksvd_vit import KSVD_VIT, KSVDViTConfig, PrimalAttention
from whitebench_models.vit import Attention, ViT

SMALL = KSVDViTConfig(dim=12, depth=2, heads=3, patch=2, mlp_ratio=2, rank=2, eta=0.3)
EVERY = torch.ones(1, TOKENS, dtype=torch.bool)


def build() -> ViT:
    torch.manual_seed(0)
    model = KSVD_VIT.build(SMALL, SHAPE, CLASSES)
    assert isinstance(model, ViT)
    return model


def block(tokens: int = TOKENS, rank: int = 2) -> PrimalAttention:
    torch.manual_seed(0)
    return PrimalAttention(Attention(12, 3), tokens, rank, 0.3)


def scores(tokens: Tensor, p: Weights, hidden: tuple[int, ...] = ()) -> list[tuple[Tensor, Tensor]]:
    """Return e and r (N, s) of each head, number by number."""
    qk = linear(tokens, p, "qk")
    places, rank = p["W_e"].shape[1:]
    heads = []
    for head in range(3):
        own = slice(4 * head, 4 * head + 4)
        sides = []
        for rows, W in ((qk[:, :12][:, own], p["W_e"][head]), (qk[:, 12:][:, own], p["W_r"][head])):
            of_tokens = []
            for row in rows:
                unit = row / row.square().sum().sqrt()
                of_rank = []
                for direction in range(rank):
                    terms = [
                        unit @ tokens[place, own] * W[place, direction]
                        for place in range(places)
                        if place not in hidden
                    ]
                    of_rank.append(torch.stack(terms).sum())
                of_tokens.append(torch.stack(of_rank))
            sides.append(torch.stack(of_tokens))
        heads.append((sides[0], sides[1]))
    return heads


def attend(hidden: tuple[int, ...] = ()) -> Callable[[Tensor, Weights], Tensor]:
    def attended(tokens: Tensor, p: Weights) -> Tensor:
        return torch.cat([linear(torch.cat(sides, 1), p, "join") for sides in scores(tokens, p, hidden)], 1)

    return attended


def textbook_objective(batch: Tensor, p: Weights, hidden: tuple[int, ...] = ()) -> float:
    seen = [place for place in range(TOKENS) if place not in hidden]
    lengths = [
        sum((side[place, i] * p["L"][head, i]).item() ** 2 for side in sides for i in range(2)) / 2
        for tokens in batch
        for head, sides in enumerate(scores(tokens, p, hidden))
        for place in seen
    ]
    traces = [(p["W_e"][head].T @ p["W_r"][head]).trace().item() for head in range(3)]
    return sum(lengths) / len(lengths) - sum(traces) / 3


def test_logits_and_gradients_are_those_of_the_textbook() -> None:
    assert_same_logits_and_gradients(build().double(), SMALL, attend())


def test_the_penalty_is_eta_times_the_squared_objective_averaged_over_layers() -> None:
    model, images = build().double(), torch.randn(3, *SHAPE, dtype=torch.float64)
    scramble(model)
    model.train()(images)
    penalty = own_term(model)
    seen = observe(model.eval(), images, head="head", trace=KSVD_VIT.trace, kinds=["attention-inputs"])
    objectives = [
        textbook_objective(inputs, dict(model.get_submodule(f"blocks.{layer}.attention").named_parameters()))
        for layer, inputs in enumerate(seen.trace["attention-inputs"])
    ]
    assert penalty.item() == pytest.approx(0.3 * (objectives[0] ** 2 + objectives[1] ** 2) / 2, rel=1e-12)
    own = [name for name, _ in model.named_parameters() if name.rpartition(".")[2] in ("L", "W_e", "W_r")]
    gradients = torch.autograd.grad(penalty, [model.get_parameter(name) for name in own])
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_the_objective_is_zero_at_the_svd_of_the_kernel() -> None:
    # K = phi(q) phi(k)^T = U S V^T. In the primal W_e = phi(k)^T V and W_r = phi(q)^T U, so that e = K V = U S,
    # r = K^T U = V S and tr(W_e^T W_r) = tr S; with L^2 = N / S both means are tr S as well.
    model = block(tokens=4).double()  # X' is the identity where n = P
    phi_q, phi_k = (nn.functional.normalize(torch.randn(3, 9, 4, dtype=torch.float64), dim=-1) for _ in range(2))
    U, S, Vt = torch.linalg.svd(phi_q @ phi_k.transpose(1, 2), full_matrices=False)
    U, S, V = U[..., :2], S[..., :2], Vt[:, :2].transpose(1, 2)
    model.W_e.data, model.W_r.data = phi_k.transpose(1, 2) @ V, phi_q.transpose(1, 2) @ U
    model.L.data = (9 / S).sqrt()
    e, r = phi_q @ model.W_e, phi_k @ model.W_r
    torch.testing.assert_close(e, U * S[:, None])
    seen = torch.ones(1, 9, dtype=torch.bool)
    assert model.objective(e[None], r[None], seen).item() == pytest.approx(0, abs=1e-12)
    assert model.objective(2 * e[None], r[None], seen).item() == pytest.approx(1.5 * S.sum().item() / 3)


@pytest.mark.parametrize("hidden", [(2,), (0, 5, 6)])
def test_a_mask_is_that_of_the_textbook(hidden: tuple[int, ...]) -> None:
    model, tokens = block().double().train(), torch.randn(2, TOKENS, 12, dtype=torch.float64)
    scramble(model)
    weights = dict(model.named_parameters())
    theirs = torch.stack([attend(hidden)(one, weights) for one in tokens])
    ours = model(tokens, hide(hidden).double().expand(2, -1))
    torch.testing.assert_close(ours, model.out(theirs), rtol=1e-12, atol=1e-12)
    assert model.term is not None
    assert model.term.item() == pytest.approx(0.3 * textbook_objective(tokens, weights, hidden) ** 2, rel=1e-12)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_hidden_tokens_have_no_part(precision: str) -> None:
    masks = torch.stack([hide([2, 5]), hide([0]), hide([0, 1, 2, 3, 4])])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        assert_hidden_tokens_have_no_part(block(), 12, masks)


def test_every_token_hears_of_every_other() -> None:
    tokens = torch.randn(1, TOKENS, 12, requires_grad=True)
    for place in range(TOKENS):
        (heard,) = torch.autograd.grad(block()(tokens)[0, place].sum(), tokens)
        assert heard[0].any(dim=1).all()


def test_of_a_long_sequence_the_sample_is_spread_evenly_from_end_to_end() -> None:
    for tokens, rank, expected in ((37, 1, [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]), (5, 1, [0, 1, 2, 3, 4])):
        model, given = block(tokens, rank), torch.randn(1, tokens, 12, requires_grad=True)
        (heard,) = torch.autograd.grad(model(given)[0, 1].sum(), given)
        assert {place for place in range(tokens) if heard[0, place].any()} == {*expected, 1}
        assert model.W_e.shape == (3, len(expected), 1)


def test_the_number_of_parameters_is_that_worked_out_by_hand() -> None:
    config = KSVDViTConfig(dim=192, heads=3, depth=12, patch=16, rank=20)
    with torch.device("meta"):
        model = KSVD_VIT.build(config, (3, 224, 224), 1000)
    # a layer less V (192 * 193), more W_e and W_r (3, 197, 20), L (3, 20) and W_join (40 + 1, 64)
    expected = 5_717_416 + 12 * (2 * 3 * 197 * 20 + 3 * 20 + 41 * 64 - 192 * 193)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_w_starts_orthogonal_l_uniform_and_the_scores_with_variance_one() -> None:
    torch.manual_seed(0)
    model = PrimalAttention(Attention(96, 6), 65, 20, 0.05)
    for W in (*model.W_e, *model.W_r):
        torch.testing.assert_close(W.T @ W, torch.eye(20), atol=1e-5, rtol=0)
    assert not torch.equal(model.W_e[0], model.W_e[1])
    assert 0 <= model.L.min() < model.L.max() <= 1
    assert model.L.mean().item() == pytest.approx(0.5, abs=0.1)
    assert model.join.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 56), rel=0.02)
    assert not model.join.bias.any()
    e, r = model.project(torch.randn(16, 65, 96), torch.ones(1, 65, dtype=torch.bool))
    assert e.var().item() == pytest.approx(1, rel=0.1)
    assert r.var().item() == pytest.approx(1, rel=0.1)


def test_it_offers_no_attention_for_it_selects_nothing() -> None:
    assert isinstance(KSVD_VIT.trace, dict)
    assert list(KSVD_VIT.trace) == ["tokens", "compressed", "codes", "attention-inputs"]
    assert not hasattr(block(), "weights")


def test_without_its_penalty_weight_it_still_gives_every_weight_a_gradient() -> None:
    model = KSVD_VIT.build(replace(SMALL, eta=0.0), SHAPE, CLASSES).train()
    (model(torch.randn(2, *SHAPE)).square().sum() + own_term(model)).backward()
    lambdas = [weight.grad for name, weight in model.named_parameters() if name.endswith(".L")]
    assert all(grad is not None and not grad.any() for grad in lambdas)


def test_compiled_it_trains_as_it_does_uncompiled() -> None:
    plain, images = build().train(), torch.randn(4, *SHAPE)
    twin = copy.deepcopy(plain)
    compiled: Any = torch.compile(twin, backend="eager")
    for _ in range(2):
        for model in (plain, compiled):
            (model(images).square().mean() + own_term(model)).backward()
    for one, two in zip(plain.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)  # type: ignore[arg-type]
    compiled.eval()(images)
    assert all(module.term is None for module in twin.modules() if isinstance(module, PrimalAttention))


def test_it_trains_in_bfloat16() -> None:
    model, images = build(), torch.randn(4, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.train()(images)
        penalty = own_term(model)
    (logits.float().square().sum() + penalty).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits.float(), model(images), rtol=0.1, atol=0.05)
    torch.testing.assert_close(penalty.float(), own_term(model), rtol=0.1, atol=0.05)


def test_it_keeps_the_rules_for_models() -> None:
    check_model(KSVD_VIT, config=KSVDViTConfig(rank=20))
    check_model(KSVD_VIT, config=KSVDViTConfig(eta=0, patch=1, rank=1, depth=1, heads=1))


def test_impossible_options_are_refused_before_anything_is_built() -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"dim": 10, "heads": 4}, r"ksvd-vit\[dim=10,heads=4\]"),
        ({"rank": 0}, r"ksvd-vit\[rank=0\]"),
        ({"eta": -1.0}, r"ksvd-vit\[eta=-1.0\]"),
    )
    for options, reason in refused:
        with pytest.raises(WhitebenchError, match=reason):
            KSVDViTConfig(**options)
    with pytest.raises(WhitebenchError, match=r"ksvd-vit: an image"):
        KSVD_VIT.build(KSVDViTConfig(patch=3), (1, 8, 8), 10)
