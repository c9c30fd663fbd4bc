"""AoT against a textbook in float64, one token and one head at a time; and what the paper proves of its layer."""

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from tests.plugins.textbook import Parameters, check_against, classify, embed, norm
from whitebench import WhitebenchError
from whitebench.testing import check_model
from whitebench_models.aot import AOT, AoT, AoTConfig

SHAPE, CLASSES = (2, 4, 6), 5
SMALL = AoTConfig(dim=12, depth=2, heads=3, patch=2, eta=0.5, tau=0.2)


def textbook_weights(w: Tensor, n: int, scale: float) -> list[Tensor]:
    likeness = [(scale * (w[n] * other).sum()).exp() for other in w]
    return [one / torch.stack(likeness).sum() for one in likeness]


def textbook_step(z: Tensor, p: Parameters, block: str, config: AoTConfig) -> Tensor:
    is_trained = config.attention == "softmax"
    tokens = norm(z, p, f"{block}.norm") if is_trained else z
    mixed, pulled = [], torch.zeros_like(z)
    for U in p[f"{block}.attention.project.weight"].chunk(config.heads):
        w = tokens @ U.T
        rows = []
        for n in range(len(w)):
            weights = textbook_weights(w, n, len(U) ** -0.5 if is_trained else 1.0)
            if not is_trained:
                weights = [torch.tensor(config.tau if one >= config.tau else 0.0, dtype=w.dtype) for one in weights]
            rows.append(sum((one * other for one, other in zip(weights, w, strict=True)), torch.zeros_like(w[n])))
        mixed.append(torch.stack(rows))
        pulled = pulled + config.eta * torch.stack(rows) @ U
    if not is_trained:
        return pulled
    if config.heads == 1:
        return mixed[0]
    return torch.cat(mixed, 1) @ p[f"{block}.attention.out.weight"].T + p[f"{block}.attention.out.bias"]


def textbook_aot(image: Tensor, p: Parameters, config: AoTConfig) -> Tensor:
    z = embed(image, p, config.patch)
    for layer in range(config.depth):
        z = z + textbook_step(z, p, f"blocks.{layer}", config)
    return classify(z, p, config.pool)


def build(config: AoTConfig = SMALL) -> AoT:
    torch.manual_seed(0)
    model = AoT(config, SHAPE, CLASSES).double()
    for parameter in model.parameters():  # zero biases and unit gains would hide a slip
        nn.init.normal_(parameter, std=0.4)
    return model


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("attention", ["softmax", "threshold"])
def test_logits_and_gradients_are_those_of_the_textbook(
    attention: Literal["softmax", "threshold"], heads: int, pool: Literal["cls", "mean"]
) -> None:
    config = replace(SMALL, attention=attention, heads=heads, pool=pool)
    model = build(config)
    check_against(model, torch.randn(3, *SHAPE), lambda image, p: textbook_aot(image, p, config))


WIDTH, SUBSPACES, TOKENS, LAYERS = 256, 4, 30, 5


def layers(seed: int) -> tuple[nn.Sequential, list[Tensor]]:
    """Return five layers of the theory with one orthogonal U, and its parts U_k (64, 256)."""
    torch.manual_seed(seed)
    config = AoTConfig(dim=WIDTH, depth=LAYERS, heads=SUBSPACES, attention="threshold", eta=0.4, tau=0.75)
    blocks = AoT(config, (1, 8, 8), 10).double().blocks
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, dtype=torch.float64)).Q
    for block in blocks:
        block.get_parameter("attention.project.weight").data.copy_(basis.T)
    return blocks, list(basis.T.chunk(SUBSPACES))


def mixture(subspaces: list[Tensor], noise: float) -> Tensor:
    """Return 30 tokens from each subspace with noise in all others, (1, 120, 256)."""
    return torch.cat(
        [
            sum((1.0 if U is own else noise) * torch.randn(TOKENS, len(U), dtype=torch.float64) @ U for U in subspaces)  # type: ignore[misc]  # of tensors, so a tensor
            for own in subspaces
        ]
    )[None]


def split(tokens: Tensor, subspaces: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the parts of the tokens inside and outside their own subspace, (120, 256) each."""
    signal = torch.cat([z @ U.T @ U for z, U in zip(tokens[0].chunk(SUBSPACES), subspaces, strict=True)])
    return signal, tokens[0] - signal


def ratios(tokens: Tensor, subspaces: list[Tensor]) -> Tensor:
    """Return the signal-to-noise ratio of each subspace's tokens."""
    signal, noise = split(tokens, subspaces)
    return torch.stack(
        [s.norm() / n.norm() for s, n in zip(signal.chunk(SUBSPACES), noise.chunk(SUBSPACES), strict=True)]
    )


@torch.no_grad()
@pytest.mark.parametrize("seed", range(5))
def test_with_little_noise_each_layer_multiplies_the_signal_to_noise_ratio_by_one_plus_eta_tau(seed: int) -> None:
    blocks, subspaces = layers(seed)
    first = tokens = mixture(subspaces, noise=0.05)
    for block in blocks:
        before, tokens = tokens, block(tokens)
        growth = ratios(tokens, subspaces) / ratios(before, subspaces)
        torch.testing.assert_close(growth, torch.full_like(growth, 1.3), rtol=1e-12, atol=0)
    signal, noise = split(first, subspaces)
    torch.testing.assert_close(tokens[0], 1.3**LAYERS * signal + noise, rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_with_more_noise_tokens_select_strangers_and_the_ratio_falls() -> None:
    blocks, subspaces = layers(seed=0)
    tokens = mixture(subspaces, noise=0.2)
    growths = []
    for block in blocks:
        before, tokens = tokens, block(tokens)
        growths.append((ratios(tokens, subspaces) / ratios(before, subspaces)).mean().item())
    assert growths[0] > 1.25
    assert growths[1] < 1.25
    assert max(growths[2:]) < 1


@torch.no_grad()
def test_weights_kept_as_they_are_above_the_threshold_would_grow_the_ratio_by_one_plus_eta() -> None:
    _, subspaces = layers(seed=0)
    tokens = mixture(subspaces, noise=0.05)
    kept = torch.zeros_like(tokens[0])
    for U in subspaces:
        w = tokens[0] @ U.T
        weights = (w @ w.T).softmax(1)
        kept += torch.where(weights >= 0.75, weights, 0.0) @ w @ U
    growth = ratios(tokens + 0.4 * kept, subspaces) / ratios(tokens, subspaces)
    torch.testing.assert_close(growth, torch.full_like(growth, 1.4), rtol=1e-6, atol=0)


def test_weights_start_as_in_crate_and_orthogonal_where_the_theory_wants_them_so() -> None:
    torch.manual_seed(0)
    trained = AoT(AoTConfig(dim=96, depth=1, heads=4, patch=1), (1, 8, 8), 10)
    for name in ("project.weight", "out.weight", "out.bias"):
        start = trained.get_parameter(f"blocks.0.attention.{name}")
        assert start.abs().max().item() == pytest.approx(math.sqrt(1 / 96), rel=0.05)
    assert trained.position.std().item() == pytest.approx(1, rel=0.05)
    assert trained.cls.std().item() == pytest.approx(1, rel=0.3)
    analysed = AoT(AoTConfig(dim=96, depth=1, heads=4, attention="threshold"), (1, 8, 8), 10)
    U = analysed.get_parameter("blocks.0.attention.project.weight")
    torch.testing.assert_close(U @ U.T, torch.eye(96), rtol=0, atol=1e-5)


def test_a_layer_is_its_attention_and_nothing_else() -> None:
    layer = 2 * 64**2 + 64 + 2 * 64  # U and W_out, its bias, and the norm
    shallow, deep = (AoT(AoTConfig(depth=depth), (1, 8, 8), 10) for depth in (1, 2))
    assert sum(p.numel() for p in deep.parameters()) - sum(p.numel() for p in shallow.parameters()) == layer
    tied = AoT(AoTConfig(depth=1, attention="threshold"), (1, 8, 8), 10).blocks
    assert [name for name, _ in tied.named_parameters()] == ["0.attention.project.weight"]


@pytest.mark.parametrize(("attention", "scale"), [("softmax", 0.5), ("threshold", 1.0)])
def test_the_spec_finds_features_tokens_and_projections(
    attention: Literal["softmax", "threshold"], scale: float
) -> None:
    config = replace(SMALL, attention=attention)
    model = build(config)
    seen: dict[str, tuple[int, ...]] = {}
    for name in ("head", "blocks.1", "blocks.1.attention.project"):
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({f"{name}:in": inputs[0].shape, name: output.shape})
        )
    model(torch.randn(3, *SHAPE, dtype=torch.float64))
    assert seen[f"{AOT.head}:in"] == (3, 12)
    assert {seen["blocks.1"], seen["blocks.1.attention.project"]} == {(3, 7, 12)}
    assert AOT.trace == {
        "tokens": "blocks.*",
        "projections": "blocks.*.attention.project",
        "compressed-projections": "blocks.*:compressed_projections()",
        "residual-projections": "blocks.*:residual_projections()",
        "subspaces": "blocks.*.attention.project.weight:param",
        "attention-inputs": "blocks.*.attention:in",
        "attention-logits": "blocks.*.attention:logits()",
        "attention": "blocks.*.attention:weights()",
        "attention-forms": "blocks.*.attention:forms()",
    }
    assert AOT.layout is not None
    layout = AOT.layout(config, SHAPE)
    assert (layout.heads, layout.scale, layout.prefix_tokens, layout.is_tied) == (3, scale, 1, True)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 8, 8), {"heads": 1, "depth": 1}),
        ((1, 8, 8), {"pool": "mean", "patch": 2}),
        ((1, 8, 8), {"attention": "threshold"}),
        ((3, 32, 32), {"attention": "threshold", "heads": 1, "pool": "mean"}),
    ],
)
def test_it_keeps_the_rules_with_other_options_and_images_too(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    check_model(AOT, shape=shape, config=AoTConfig(**options))


@pytest.mark.parametrize("attention", ["softmax", "threshold"])
def test_compiled_in_one_graph_it_gives_the_same_logits(attention: Literal["softmax", "threshold"]) -> None:
    model, images = build(replace(SMALL, attention=attention)), torch.randn(3, *SHAPE, dtype=torch.float64)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("attention", ["softmax", "threshold"])
def test_it_trains_in_bfloat16(attention: Literal["softmax", "threshold"]) -> None:
    torch.manual_seed(0)
    model = AoT(replace(SMALL, attention=attention), SHAPE, CLASSES)
    images = torch.randn(4, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    logits.float().square().sum().backward()
    assert logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_impossible_options_are_refused_before_anything_is_built() -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"dim": 10, "heads": 4}, "evenly"),
        ({"pool": "max"}, "pool=cls or pool=mean"),
        ({"attention": "hard"}, "attention=softmax or attention=threshold"),
        ({"eta": 0.0}, r"aot\[eta=0.0\]"),
        ({"tau": 0.0}, r"aot\[tau=0.0\]"),
        ({"tau": 1.5}, r"aot\[tau=1.5\]"),
    )
    for options, reason in refused:
        with pytest.raises(WhitebenchError, match=reason):
            AoTConfig(**options)
    with pytest.raises(WhitebenchError, match="cannot be cut"):
        AoT(AoTConfig(patch=3), (1, 8, 8), 10)
