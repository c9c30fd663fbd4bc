"""The ViT that selects by a margin: its maps against projections and bisection, the whole against a textbook."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

import entmax
import numpy as np
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
    heads_of,
    hide,
    scramble,
)
from whitebench import WhitebenchError
from whitebench.cost import count_macs
from whitebench.testing import check_model
from whitebench.tracing import observe
from whitebench_models.attention import own_term
from whitebench_models.svm_vit import SVM_VIT, BilinearAttention, SVMAttention, SVMViTConfig, hinge_on_gap
from whitebench_models.vit import Attention, ViT, ViTConfig

Name = Literal["softmax", "sparsemax", "entmax15", "softmax-w", "sparsemax-w", "entmax15-w"]
NAMES: tuple[Name, ...] = get_args(Name)
Row: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
SMALL = SVMViTConfig(dim=12, depth=2, heads=3, patch=2, mlp_ratio=2)


def build(attention: Name, *, hinge: float = 0.0) -> ViT:
    torch.manual_seed(0)
    model = SVM_VIT.build(replace(SMALL, attention=attention, hinge=hinge), SHAPE, CLASSES)
    assert isinstance(model, ViT)
    return model


def block(attention: Name, *, hinge: float = 0.0) -> SVMAttention:
    torch.manual_seed(0)
    kind = BilinearAttention if attention.endswith("-w") else SVMAttention
    return kind(Attention(12, 3), attention.removesuffix("-w"), hinge)


def projected(z: Row) -> Row:
    """Return the point of the simplex nearest to z, by trying every support (Duchi et al. 2008, figure 1)."""
    ordered = np.sort(z)[::-1]
    for size in range(len(z), 0, -1):
        threshold = (ordered[:size].sum() - 1) / size
        if ordered[size - 1] > threshold:
            nearest: Row = np.maximum(z - threshold, 0)
            return nearest
    raise AssertionError("the largest alone is a support")


def bisected(z: Row) -> Row:
    """Return entmax-1.5: [z/2 - tau]_+^2 with the tau that gives the sum 1."""
    low, high = z.max() / 2 - 1, z.max() / 2
    for _ in range(200):
        middle = (low + high) / 2
        if (np.maximum(z / 2 - middle, 0) ** 2).sum() > 1:
            low = middle
        else:
            high = middle
    weights: Row = np.maximum(z / 2 - low, 0) ** 2
    return weights


def rows(scale: float) -> list[Row]:
    draw = np.random.default_rng(0)
    return [scale * draw.normal(size=size) for size in (1, 2, 3, 7, 50) for _ in range(20)]


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize(("ours", "independent"), [(entmax.sparsemax, projected), (entmax.entmax15, bisected)])
def test_the_sparse_maps_are_those_of_an_independent_algorithm(
    ours: Callable[..., Tensor], independent: Callable[[Row], Row], scale: float
) -> None:
    for z in rows(scale):
        np.testing.assert_allclose(ours(torch.from_numpy(z), dim=-1).numpy(), independent(z), rtol=1e-9, atol=1e-12)


def test_sparsemax_meets_the_conditions_of_the_quadratic_programme() -> None:
    # min |p - z|^2 / 2 with p >= 0 and sum p = 1: z - p is one number tau where p > 0, and no more than it elsewhere.
    for z in rows(1.0):
        p = entmax.sparsemax(torch.from_numpy(z), dim=-1).numpy()
        assert p.min() >= 0
        assert p.sum() == pytest.approx(1, abs=1e-12)
        tau = (z - p)[p > 0]
        assert np.ptp(tau) < 1e-12
        assert (z[p == 0] <= tau.mean() + 1e-12).all()


@pytest.mark.parametrize(("attention", "gap"), [("sparsemax", 1.0), ("entmax15", 2.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_row_is_one_hot_exactly_when_its_gap_is_reached(attention: Name, gap: float, dtype: torch.dtype) -> None:
    weigh = block(attention)._weigh
    for others in ([], [-5.0, -5.0], [-9.0]):
        at = weigh(torch.tensor([0.5, 0.5 - gap, *others], dtype=dtype))
        assert at.tolist() == [1.0, 0.0, *(0.0 for _ in others)]
        below = weigh(torch.tensor([0.5, 0.5 - gap + 2**-6, *others], dtype=dtype))
        assert 0 < below[1] < below[0] < 1
        above = weigh(torch.tensor([0.5, 0.5 - gap - 2**-6, *others], dtype=dtype))
        assert above.tolist() == at.tolist()


@pytest.mark.parametrize("attention", ["softmax", "sparsemax", "entmax15"])
def test_two_equal_tokens_share_the_weight(attention: Name) -> None:
    weights = block(attention)._weigh(torch.tensor([3.0, 3.0, -200.0])).tolist()
    assert weights == [pytest.approx(0.5), pytest.approx(0.5), 0.0]


def weighed(z: Tensor, name: str) -> Tensor:
    """Return a row's weights in closed form on their support, found by the independent algorithms."""
    if name == "softmax":
        return z.exp() / z.exp().sum()
    independent = {"sparsemax": projected, "entmax15": bisected}[name]
    support = torch.from_numpy(independent(z.detach().numpy()) > 1e-20)
    if name == "sparsemax":
        return torch.where(support, z - (z[support].sum() - 1) / support.sum(), 0)
    half = z / 2
    mean = half[support].mean()
    tau = mean - ((1 - ((half[support] - mean) ** 2).sum()) / support.sum()).sqrt()
    return torch.where(support, (half - tau) ** 2, 0)


def logits_of(tokens: Tensor, p: Weights, name: Name) -> list[list[Tensor]]:
    """Return the logits (N,) of each head and query."""
    if name.endswith("-w"):
        return [[torch.stack([x @ W @ z for x in tokens]) for z in tokens] for W in p["W"]]
    return [
        [torch.stack([key @ query for key in k]) / math.sqrt(len(k[0])) for query in q]
        for q, k, _ in heads_of(p, tokens, 3)
    ]


def attend(name: Name) -> Callable[[Tensor, Weights], Tensor]:
    def attended(tokens: Tensor, p: Weights) -> Tensor:
        values = linear(tokens, p, "value").chunk(3, 1) if name.endswith("-w") else linear(tokens, p, "qkv").chunk(9, 1)
        mixed = [
            torch.stack([weighed(row, name.removesuffix("-w")) @ v for row in queries])
            for queries, v in zip(logits_of(tokens, p, name), values[-3:], strict=True)
        ]
        return torch.cat(mixed, 1)

    return attended


@pytest.mark.parametrize("attention", NAMES)
@pytest.mark.parametrize("is_training", [False, True])
def test_logits_and_gradients_are_those_of_the_textbook(attention: Name, is_training: bool) -> None:
    for hinge in (0.0, 0.1):
        model = build(attention, hinge=hinge).double().train(is_training)
        assert_same_logits_and_gradients(model, SMALL, attend(attention))


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_softmax_is_the_plain_vit_to_the_bit(precision: str) -> None:
    dtype = torch.float64 if precision == "float64" else torch.float32
    torch.manual_seed(1)
    plain, images = ViT(ViTConfig(**vars_of(SMALL)), SHAPE, CLASSES).to(dtype), torch.randn(4, *SHAPE, dtype=dtype)
    scramble(plain)
    ours = build("softmax").to(dtype)
    ours.load_state_dict(plain.state_dict())
    for model in (plain, ours):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model.train()(images)
        logits.float().square().sum().backward()
    assert own_term(ours).item() == 0
    assert torch.equal(plain.eval()(images), ours.eval()(images))
    theirs = {name: weight.grad for name, weight in plain.named_parameters()}
    for name, weight in ours.named_parameters():
        grad = theirs[name]
        assert grad is not None
        assert weight.grad is not None
        assert torch.equal(weight.grad, grad)


def vars_of(config: SVMViTConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in get_type_hints(ViTConfig)}


def test_under_one_seed_the_factored_models_start_as_the_plain_vit() -> None:
    torch.manual_seed(0)
    plain = ViT(ViTConfig(**vars_of(SMALL)), SHAPE, CLASSES).state_dict()
    for name in ("softmax", "sparsemax", "entmax15"):
        ours = build(name).state_dict()
        assert list(ours) == list(plain)
        assert all(torch.equal(ours[key], plain[key]) for key in plain)
    ours = build("sparsemax-w").state_dict()
    values = plain["blocks.1.attention.qkv.weight"][24:]
    assert torch.equal(ours["blocks.1.attention.value.weight"], values)


@pytest.mark.parametrize(
    ("attention", "parameters"),
    [
        *((name, 5_717_416) for name in ("softmax", "sparsemax", "entmax15")),  # ViT-T's own number
        # a layer less Q, K (D, D) and their biases, more H matrices (D, D): 2 * 192 * 193 and 3 * 192^2
        *((f"{name}-w", 5_717_416 + 12 * (3 * 192**2 - 2 * 192 * 193)) for name in ("softmax", "sparsemax")),
    ],
)
def test_the_number_of_parameters_is_that_worked_out_by_hand(attention: Name, parameters: int) -> None:
    config = SVMViTConfig(dim=192, heads=3, depth=12, patch=16, attention=attention)
    with torch.device("meta"):
        model = SVM_VIT.build(config, (3, 224, 224), 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("attention", ["softmax", "softmax-w"])
def test_logits_of_normalised_tokens_start_with_variance_one(attention: Name) -> None:
    torch.manual_seed(0)
    kind = BilinearAttention if attention == "softmax-w" else SVMAttention
    model = SVM_VIT.build(SVMViTConfig(dim=96, depth=1, heads=4, patch=4, attention=attention), (1, 8, 8), 10)
    attention_block = model.get_submodule("blocks.0.attention")
    assert isinstance(attention_block, kind)
    logits = attention_block.logits(nn.functional.layer_norm(torch.randn(8, 40, 96), (96,)))
    assert logits.var().item() == pytest.approx(1, rel=0.15)
    if isinstance(attention_block, BilinearAttention):
        assert attention_block.W.std().item() == pytest.approx(1 / 96, rel=0.02)
        assert attention_block.W.abs().max().item() == pytest.approx(math.sqrt(3) / 96, rel=0.01)


def test_the_hinge_is_the_mean_of_squared_shortfalls_of_the_gap() -> None:
    logits = torch.tensor([[1.5, 0.0, 2.0], [3.0, 1.0, 1.0], [-1.0, -1.0, -8.0]])  # gaps .5, 2 and 0
    assert hinge_on_gap(logits).item() == pytest.approx((0.25 + 0 + 1) / 3)
    logits.requires_grad_()
    hinge_on_gap(logits).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    # d/dl max(0, 1 - (l1 - l2))^2 / 3 is -2 (1 - gap) / 3 for the first and its opposite for the second
    assert logits.grad[0].tolist() == pytest.approx([1 / 3, 0, -1 / 3])
    assert not logits.grad[1].any()
    assert logits.grad[2].abs().tolist() == pytest.approx([2 / 3, 2 / 3, 0])


@pytest.mark.parametrize("attention", NAMES)
def test_the_penalty_is_the_weighted_hinge_averaged_over_queries_heads_samples_and_layers(attention: Name) -> None:
    model = build(attention, hinge=0.3).double()
    scramble(model)
    images = torch.randn(3, *SHAPE, dtype=torch.float64)
    model.train()(images)
    penalty = own_term(model)
    seen = observe(model.eval(), images, head="head", trace=SVM_VIT.trace, kinds=["attention-inputs"])
    shortfalls = []
    for layer, inputs in enumerate(seen.trace["attention-inputs"]):
        p = dict(model.get_submodule(f"blocks.{layer}.attention").named_parameters())
        for tokens in inputs:
            for head in logits_of(tokens, p, attention):
                for row in head:
                    first, second = sorted(row.tolist())[-1:-3:-1]
                    shortfalls.append(max(0, 1 - (first - second)) ** 2)
    assert len(shortfalls) == 2 * 3 * 3 * TOKENS
    assert penalty.item() == pytest.approx(0.3 * np.mean(shortfalls), rel=1e-12)
    assert penalty.requires_grad


@pytest.mark.parametrize("attention", NAMES)
def test_the_hinge_alone_trains_the_gap_to_its_margin(attention: Name) -> None:
    model = block(attention, hinge=1.0).train()
    tokens = torch.randn(2, TOKENS, 12)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(300):
        model(tokens)
        assert model.term is not None
        optimiser.zero_grad()
        model.term.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    top = model.logits(tokens).topk(2).values
    assert (top[..., 0] - top[..., 1] > 0.9).float().mean() > 0.95
    if attention.startswith("sparsemax"):
        model.hinge = 0.0
        assert (model.weights(tokens).amax(-1) > 0.9).float().mean() > 0.95


@pytest.mark.parametrize("attention", NAMES)
@pytest.mark.parametrize("hinge", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_hidden_keys_get_no_weight_and_have_no_part(attention: Name, hinge: float, precision: str) -> None:
    model = block(attention, hinge=hinge).train()
    masks = torch.stack([hide([2, 5]), hide([0]), hide([0, 1, 2, 3, 4, 5])])  # of the last, one key is left
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        assert_hidden_tokens_have_no_part(model, 12, masks)
        weights = model.weights(torch.randn(3, TOKENS, 12), masks)
        assert model.term is not None
        assert model.term.isfinite()
    hidden = masks[:, None, None, :].expand_as(weights) == -math.inf
    assert not weights[hidden].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 3, TOKENS))
    assert torch.equal(weights[2, ..., 6], torch.ones(3, TOKENS))


@pytest.mark.parametrize("attention", NAMES)
def test_hiding_tokens_is_as_good_as_leaving_them_out(attention: Name) -> None:
    model, tokens = block(attention, hinge=0.1).double().train(), torch.randn(2, TOKENS, 12, dtype=torch.float64)
    seen = [0, 1, 3, 6]
    masked = model(tokens, hide([2, 4, 5]).double().expand(2, -1))[:, seen]
    torch.testing.assert_close(masked, model(tokens[:, seen]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("attention", NAMES)
def test_what_is_traced_makes_what_the_attention_hands_on(attention: Name) -> None:
    model, images = build(attention).double().eval(), torch.randn(3, *SHAPE, dtype=torch.float64)
    scramble(model)
    assert isinstance(SVM_VIT.trace, dict)
    kinds = list(SVM_VIT.trace)
    seen = observe(model, images, head="head", trace=SVM_VIT.trace, kinds=kinds).trace
    shapes = {
        **dict.fromkeys(["tokens", "compressed", "attention-inputs"], (3, TOKENS, 12)),
        "codes": (3, TOKENS, 24),
        **dict.fromkeys(["attention-logits", "attention"], (3, 3, TOKENS, TOKENS)),
        "attention-forms": (3, 12, 13),
    }
    found = {kind: [tuple(layer.shape) for layer in layers] for kind, layers in seen.items()}
    assert found == {kind: 2 * [shape] for kind, shape in shapes.items()}
    for layer in range(2):
        module = model.get_submodule(f"blocks.{layer}.attention")
        assert isinstance(module, SVMAttention)
        inputs, weights = seen["attention-inputs"][layer], seen["attention"][layer]
        _, _, values = module.project(inputs)
        mixed = torch.cat([(weights[:, head] @ values[:, head]) for head in range(3)], dim=2)
        torch.testing.assert_close(module.out(mixed), module(inputs), rtol=1e-12, atol=1e-12)
        rows_NN = seen["attention-logits"][layer][1, 2]
        by_hand = torch.stack([weighed(row, attention.removesuffix("-w")) for row in rows_NN])
        torch.testing.assert_close(weights[1, 2], by_hand, rtol=1e-12, atol=1e-12)
    assert ((seen["attention"][0] == 0).double().mean() > 0.2) == (not attention.startswith("softmax"))


def test_logits_are_scaled_as_the_layout_says() -> None:
    assert SVM_VIT.layout is not None
    factored, full = (SVM_VIT.layout(replace(SMALL, attention=name), SHAPE) for name in ("softmax", "softmax-w"))
    assert (factored.heads, factored.scale, factored.prefix_tokens, factored.is_tied) == (3, 0.5, 1, False)
    assert (full.heads, full.scale, full.prefix_tokens) == (3, 1.0, 1)


def test_the_maps_cost_the_same_products() -> None:
    config = SVMViTConfig(patch=2, depth=1)
    with_map = {
        name: count_macs(SVM_VIT.build(replace(config, attention=name), (1, 8, 8), 10), (1, 8, 8)) for name in NAMES
    }
    assert with_map["softmax"] == with_map["sparsemax"] == with_map["entmax15"]
    # N = 17 tokens of width 64, 4 heads: W z per head instead of q and k, then logits over 64 numbers instead of 16
    assert with_map["softmax-w"] - with_map["softmax"] == 17 * 64 * 64 * (4 - 2) + 4 * 17 * 17 * (64 - 16)
    assert with_map["softmax-w"] == with_map["sparsemax-w"] == with_map["entmax15-w"]


@pytest.mark.parametrize("attention", NAMES)
@pytest.mark.parametrize("hinge", [0.0, 0.1])
def test_compiled_it_trains_as_it_does_uncompiled(attention: Name, hinge: float) -> None:
    plain, images = build(attention, hinge=hinge).train(), torch.randn(4, *SHAPE)
    twin = copy.deepcopy(plain)
    compiled: Any = torch.compile(twin, backend="eager")
    for _ in range(2):
        for model in (plain, compiled):
            (model(images).square().mean() + own_term(model)).backward()
    assert all(
        torch.equal(one.grad, two.grad)  # type: ignore[arg-type]
        for one, two in zip(plain.parameters(), twin.parameters(), strict=True)
    )
    compiled.eval()(images)
    assert all(module.term is None for module in twin.modules() if isinstance(module, SVMAttention))


@pytest.mark.parametrize("attention", NAMES)
def test_it_trains_in_bfloat16(attention: Name) -> None:
    model, images = build(attention, hinge=0.1), torch.randn(4, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.train()(images)
        penalty = own_term(model)
    (logits.float().square().sum() + penalty).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits.float(), model(images), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("attention", NAMES)
def test_every_attention_keeps_the_rules_for_models(attention: Name) -> None:
    for hinge in (0.0, 0.5):
        check_model(SVM_VIT, config=SVMViTConfig(attention=attention, hinge=hinge))
    check_model(SVM_VIT, config=SVMViTConfig(attention=attention, heads=1, depth=1, patch=8))


def test_impossible_options_are_refused_before_anything_is_built() -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"dim": 10, "heads": 4}, r"svm-vit\[dim=10,heads=4\]"),
        ({"attention": "hardmax"}, r"svm-vit\[attention=hardmax\]: choose softmax, sparsemax, entmax15"),
        ({"hinge": -0.1}, r"svm-vit\[hinge=-0.1\]"),
    )
    for options, reason in refused:
        with pytest.raises(WhitebenchError, match=reason):
            SVMViTConfig(**options)
    with pytest.raises(WhitebenchError, match=r"svm-vit: an image .* svm-vit\[patch=1\]"):
        SVM_VIT.build(SVMViTConfig(patch=3), (1, 8, 8), 10)
