"""CRATE-alpha against a textbook in float64: explicit softmax, and proximal gradient steps one token at a time."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.plugins.textbook import Parameters, check_against, linear, norm, patches_of
from whitebench import WhitebenchError
from whitebench.names import configure
from whitebench.testing import check_model
from whitebench_models.crate_alpha import CRATE_ALPHA, ISTA, CRATEAlpha, CRATEAlphaConfig

SHAPE, CLASSES, EPS = (2, 4, 6), 5, 1e-6
SMALL = CRATEAlphaConfig(dim=12, depth=2, heads=3, patch=2, overcomplete=3, eta=0.2, lam=0.3)


def textbook_mssa(z: Tensor, p: Parameters, block: str, heads: int) -> Tensor:
    mixed = []
    for U in p[f"{block}.mssa.project.weight"].chunk(heads):
        W = z @ U.T
        likeness = (W @ W.T / math.sqrt(len(U))).exp()
        mixed.append(likeness / likeness.sum(1, keepdim=True) @ W)
    return torch.cat(mixed, 1) @ p[f"{block}.mssa.out.weight"].T


def textbook_code(x: Tensor, D: Tensor, eta: float, lam: float) -> Tensor:
    z = torch.zeros(D.shape[1], dtype=x.dtype)
    for _ in range(2):
        gradient = D.T @ (D @ z - x)
        z = (z - eta * gradient - eta * lam).clamp(min=0)
    return z


def textbook_crate_alpha(image: Tensor, p: Parameters, config: CRATEAlphaConfig) -> Tensor:
    embedded = linear(patches_of(image, config.patch), p, "embed")
    z = torch.cat([p["cls"][0], embedded]) + p["position"][0]
    for layer in range(config.depth):
        block = f"blocks.{layer}"
        z = z + textbook_mssa(norm(z, p, f"{block}.norm1", eps=EPS), p, block, config.heads)
        D, D1 = p[f"{block}.ista.dictionary"], p[f"{block}.decode.weight"]
        codes = [textbook_code(x, D, config.eta, config.lam) for x in norm(z, p, f"{block}.norm2", eps=EPS)]
        z = z + torch.stack([D1 @ code for code in codes])
    return linear(norm(z[0], p, "norm", eps=EPS), p, "head")


def build(config: CRATEAlphaConfig = SMALL) -> CRATEAlpha:
    torch.manual_seed(0)
    model = CRATEAlpha(config, SHAPE, CLASSES).double()
    for parameter in model.parameters():  # zero biases and unit gains would hide a slip
        nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("heads", [1, 3])
def test_logits_and_gradients_are_those_of_the_textbook(heads: int) -> None:
    config = replace(SMALL, heads=heads)
    model = build(config)
    check_against(model, torch.randn(3, *SHAPE), lambda image, p: textbook_crate_alpha(image, p, config))


def test_each_step_of_a_size_that_the_dictionary_allows_lowers_the_lasso() -> None:
    torch.manual_seed(0)
    ista = ISTA(dim=8, atoms=32, eta=1.0, lam=0.1).double()
    D = ista.dictionary.detach()
    ista.eta = 1 / float(torch.linalg.matrix_norm(D, 2) ** 2)  # proximal gradient descends from 1/|D|^2 downwards
    x = torch.randn(5, 8, dtype=torch.float64)
    z1 = (ista.eta * x @ D - ista.eta * ista.lam).clamp(min=0)
    at_zero, after_one, after_two = (
        ((x - z @ D.T) ** 2).sum(1) / 2 + ista.lam * z.abs().sum(1) for z in (torch.zeros_like(z1), z1, ista(x))
    )
    assert (after_one < at_zero).all()
    assert (after_two < after_one).all()


@pytest.mark.parametrize(
    ("preset", "millions"),
    [("alpha-tiny-16", 4.81), ("alpha-small-16", 40.98), ("alpha-base-16", 72.33), ("alpha-large-14", 253.65)],
)
def test_the_published_sizes_have_the_published_number_of_parameters(preset: str, millions: float) -> None:
    config = configure(preset, CRATEAlphaConfig, CRATE_ALPHA.presets[preset])
    with torch.device("meta"):
        model = CRATEAlpha(config, (3, 224, 224), 1000)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == millions


def test_weights_start_as_in_the_jax_code() -> None:
    torch.manual_seed(0)
    model = CRATEAlpha(CRATEAlphaConfig(dim=96, depth=1, heads=4, patch=1), (3, 16, 16), 100)
    for name in ("blocks.0.ista.dictionary", "blocks.0.decode.weight"):
        atoms = model.get_parameter(name)
        assert atoms.shape == (96, 384)
        assert atoms.std().item() == pytest.approx(math.sqrt(2 / 96), rel=0.02)
        assert atoms.abs().max().item() == pytest.approx(math.sqrt(6 / 96), rel=0.01)
    for name in ("blocks.0.mssa.project.weight", "blocks.0.mssa.out.weight", "head.weight", "position"):
        assert model.get_parameter(name).std().item() == pytest.approx(0.02, rel=0.05)
    assert model.embed.weight.std().item() == pytest.approx(math.sqrt(2 / 3), rel=0.1)
    assert model.embed.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 3), rel=0.05)
    assert model.cls.std().item() == pytest.approx(1e-6, rel=0.3)
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_the_spec_finds_features_projections_compressed_tokens_and_codes() -> None:
    model = build()
    seen: dict[str, Tensor] = {}
    for name in ("head", "blocks.1", "blocks.1.mssa.project", "blocks.1.norm2", "blocks.1.ista"):
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({f"{name}:in": inputs[0], name: output})
        )
    model(torch.randn(3, *SHAPE, dtype=torch.float64))
    assert seen[f"{CRATE_ALPHA.head}:in"].shape == (3, 12)
    assert {seen[name].shape for name in ("blocks.1", "blocks.1.norm2:in", "blocks.1.mssa.project")} == {(3, 7, 12)}
    codes = seen["blocks.1.ista"]
    assert codes.shape == (3, 7, 36)
    assert codes.min() == 0
    assert 0 < (codes > 0).float().mean() < 1
    decoded = codes @ model.get_parameter("blocks.1.decode.weight").T
    torch.testing.assert_close(seen["blocks.1"], seen["blocks.1.norm2:in"] + decoded)
    assert CRATE_ALPHA.trace == {
        "tokens": "blocks.*",
        "compressed": "blocks.*.norm2:in",
        "codes": "blocks.*.ista",
        "projections": "blocks.*.mssa.project",
        "compressed-projections": "blocks.*:compressed_projections()",
        "residual-projections": "blocks.*:residual_projections()",
        "subspaces": "blocks.*.mssa.project.weight:param",
        "attention-inputs": "blocks.*.mssa:in",
        "attention-logits": "blocks.*.mssa:logits()",
        "attention": "blocks.*.mssa:weights()",
        "attention-forms": "blocks.*.mssa:forms()",
    }
    assert CRATE_ALPHA.layout is not None
    layout = CRATE_ALPHA.layout(SMALL, SHAPE)
    assert (layout.heads, layout.scale, layout.prefix_tokens, layout.is_tied) == (3, 0.5, 1, True)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 8, 8), {"heads": 1, "depth": 1}),
        ((1, 8, 8), {"patch": 8, "overcomplete": 1}),
        ((3, 32, 32), {"eta": 0.5, "lam": 0.0}),
    ],
)
def test_it_keeps_the_rules_with_other_options_and_images_too(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    check_model(CRATE_ALPHA, shape=shape, config=CRATEAlphaConfig(**options))


def test_compiled_in_one_graph_it_gives_the_same_logits() -> None:
    model, images = build(), torch.randn(3, *SHAPE, dtype=torch.float64)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-12, atol=1e-12)


def test_it_trains_in_bfloat16() -> None:
    torch.manual_seed(0)
    model = CRATEAlpha(SMALL, SHAPE, CLASSES)
    images = torch.randn(4, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits.float(), model(images), rtol=0.1, atol=0.05)


def test_impossible_options_are_refused_before_anything_is_built() -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"dim": 10, "heads": 4}, "evenly"),
        ({"overcomplete": 0}, r"crate-alpha\[overcomplete=0\]"),
        ({"eta": 0.0}, r"crate-alpha\[eta=0.0\]"),
        ({"lam": -1.0}, r"crate-alpha\[lam=-1.0\]"),
    )
    for options, reason in refused:
        with pytest.raises(WhitebenchError, match=reason):
            CRATEAlphaConfig(**options)
    with pytest.raises(WhitebenchError, match="cannot be cut"):
        CRATEAlpha(CRATEAlphaConfig(patch=3), (1, 8, 8), 10)
