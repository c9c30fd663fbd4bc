"""CRATE against a textbook written out in float64: explicit softmax, and ISTA with its three products."""

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from whitebench import WhitebenchError
from whitebench_models.crate import CRATE, CRATE_SPEC, CRATEConfig

SHAPE, CLASSES = (2, 4, 6), 5
SMALL = CRATEConfig(dim=12, depth=2, heads=3, patch=2, eta=0.2, lam=0.3)


def textbook_norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred**2).mean(-1, keepdim=True) + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


def textbook_mssa(z: Tensor, p: dict[str, Tensor], block: str, heads: int) -> Tensor:
    mixed = []
    for U in p[f"{block}.mssa.project.weight"].chunk(heads):
        W = z @ U.T
        likeness = (W @ W.T / math.sqrt(len(U))).exp()
        mixed.append(likeness / likeness.sum(1, keepdim=True) @ W)
    return torch.cat(mixed, 1) @ p[f"{block}.mssa.out.weight"].T + p[f"{block}.mssa.out.bias"]


def textbook_crate(image: Tensor, p: dict[str, Tensor], config: CRATEConfig) -> Tensor:
    side = config.patch
    _, height, breadth = image.shape
    patches = torch.stack(
        [
            image[:, i : i + side, j : j + side].permute(1, 2, 0).reshape(-1)
            for i in range(0, height, side)
            for j in range(0, breadth, side)
        ]
    )
    embedded = textbook_norm(patches, p, "embed.0") @ p["embed.1.weight"].T + p["embed.1.bias"]
    z = torch.cat([p["cls"][0], textbook_norm(embedded, p, "embed.2")]) + p["position"][0]
    for layer in range(config.depth):
        block = f"blocks.{layer}"
        z = z + textbook_mssa(textbook_norm(z, p, f"{block}.norm1"), p, block, config.heads)
        x, D = textbook_norm(z, p, f"{block}.norm2"), p[f"{block}.ista.dictionary"]
        z = (x + config.eta * (x @ D - x @ D.T @ D) - config.eta * config.lam).clamp(min=0)
    pooled = z[0] if config.pool == "cls" else z.sum(0) / len(z)
    return textbook_norm(pooled, p, "norm") @ p["head.weight"].T + p["head.bias"]


def build(config: CRATEConfig = SMALL) -> CRATE:
    torch.manual_seed(0)
    model = CRATE(config, SHAPE, CLASSES).double()
    for parameter in model.parameters():  # zero biases and unit gains would hide a slip
        nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_logits_and_gradients_are_those_of_the_textbook(pool: Literal["cls", "mean"]) -> None:
    config = replace(SMALL, pool=pool)
    model = build(config)
    images = torch.randn(3, *SHAPE, dtype=torch.float64, requires_grad=True)
    parameters = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    theirs = torch.stack([textbook_crate(image, parameters, config) for image in images])
    ours = model(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(ours)
    for mine, textbook in zip(
        torch.autograd.grad((ours * direction).sum(), [images, *model.parameters()]),
        torch.autograd.grad((theirs * direction).sum(), [images, *parameters.values()]),
        strict=True,
    ):
        torch.testing.assert_close(mine, textbook, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("dim", "depth", "heads", "published"),
    [(384, 12, 6, 6_090_856), (576, 12, 12, 13_116_328), (768, 12, 12, 22_796_008), (1024, 24, 16, 77_641_192)],
)
def test_the_published_sizes_have_the_published_number_of_parameters(
    dim: int, depth: int, heads: int, published: int
) -> None:
    with torch.device("meta"):
        model = CRATE(CRATEConfig(dim=dim, depth=depth, heads=heads, patch=16), (3, 224, 224), 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


def test_one_head_as_wide_as_the_token_has_no_output_projection() -> None:
    model = CRATE(CRATEConfig(dim=8, depth=1, heads=1), (1, 8, 8), 10)
    assert not [name for name, _ in model.named_parameters() if "mssa.out" in name]


def test_the_dictionary_starts_kaiming_uniform_and_the_embeddings_standard_normal() -> None:
    torch.manual_seed(0)
    model = CRATE(CRATEConfig(dim=96, depth=1, heads=4, patch=1), (1, 8, 8), 10)
    D = model.get_parameter("blocks.0.ista.dictionary")
    assert D.std().item() == pytest.approx(math.sqrt(2 / 96), rel=0.03)
    assert D.abs().max().item() == pytest.approx(math.sqrt(6 / 96), rel=0.01)
    assert model.position.std().item() == pytest.approx(1, rel=0.05)
    assert model.cls.std().item() == pytest.approx(1, rel=0.3)
    U = model.get_parameter("blocks.0.mssa.project.weight")
    assert U.abs().max().item() == pytest.approx(math.sqrt(1 / 96), rel=0.01)


def test_about_half_of_the_codes_are_zero_at_the_start() -> None:
    torch.manual_seed(0)
    config = CRATEConfig(dim=384, depth=1, heads=6, patch=4)
    codes = CRATE(config, (3, 32, 32), 10).blocks(torch.randn(4, 65, 384))
    assert (codes > 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_spec_finds_features_projections_compressed_tokens_and_codes() -> None:
    model = build()
    seen: dict[str, Tensor] = {}
    for name in ("head", "blocks.1", "blocks.1.mssa.project", "blocks.1.norm2", "blocks.1.ista"):
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({f"{name}:in": inputs[0], name: output})
        )
    model(torch.randn(3, *SHAPE, dtype=torch.float64))
    assert seen[f"{CRATE_SPEC.head}:in"].shape == (3, 12)
    assert {seen[name].shape for name in ("blocks.1", "blocks.1.norm2:in", "blocks.1.mssa.project")} == {(3, 7, 12)}
    assert torch.equal(seen["blocks.1.ista"], seen["blocks.1"])
    assert (seen["blocks.1.ista"] == 0).any()
    assert seen["blocks.1.ista"].min() == 0
    assert CRATE_SPEC.trace == {
        "tokens": "blocks.*",
        "projections": "blocks.*.mssa.project",
        "compressed": "blocks.*.norm2:in",
        "codes": "blocks.*.ista",
    }
    assert CRATE_SPEC.layout is not None
    layout = CRATE_SPEC.layout(SMALL, SHAPE)
    assert (layout.heads, layout.scale, layout.prefix_tokens, layout.is_tied) == (3, 0.5, 1, True)


def test_a_sample_is_classified_alike_alone_and_in_company() -> None:
    model = build()
    images = torch.randn(4, *SHAPE, dtype=torch.float64)
    together = model(images)
    torch.testing.assert_close(together, torch.cat([model(image[None]) for image in images]), rtol=1e-12, atol=1e-12)
    assert torch.equal(together, model(images))


def test_it_trains_in_bfloat16() -> None:
    torch.manual_seed(0)
    model = CRATE(SMALL, SHAPE, CLASSES)
    images = torch.randn(4, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits.float(), model(images), rtol=0.1, atol=0.05)


def test_impossible_options_are_refused_before_anything_is_built() -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"dim": 10, "heads": 4}, "evenly"),
        ({"eta": 0.0}, r"crate\[eta=0.0\]"),
        ({"lam": -1.0}, r"crate\[lam=-1.0\]"),
        ({"pool": "max"}, "pool=cls or pool=mean"),
    )
    for options, reason in refused:
        with pytest.raises(WhitebenchError, match=reason):
            CRATEConfig(**options)
    with pytest.raises(WhitebenchError, match="cannot be cut"):
        CRATE(CRATEConfig(patch=3), (1, 8, 8), 10)
