"""CRATE against a textbook written out in float64: explicit softmax, and ISTA with its three products."""

import math
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.plugins import textbook
from tests.plugins.textbook import Parameters
from whitebench import WhitebenchError
from whitebench.names import configure
from whitebench_models.crate import CRATE, CRATE_SPEC, ISTA, MSSA, CRATEConfig

SHAPE, CLASSES = (2, 4, 6), 5
SMALL = CRATEConfig(dim=12, depth=2, heads=3, patch=2, eta=0.2, lam=0.3)
TIED = replace(SMALL, output="tied", softmax="plain", eps=0.8)
FORMS: list[dict[str, Any]] = [
    {"pool": pool, "heads": heads, "output": output, "softmax": softmax}
    for pool, heads, output, softmax in product(("cls", "mean"), (1, 3), ("learned", "tied"), ("scaled", "plain"))
]


def tied_mssa(z: Tensor, U: Tensor, config: CRATEConfig) -> Tensor:
    """Return p / (N eps^2) sum_k U_k (U_k^* Z) softmax((U_k^* Z)^* (U_k^* Z)), with tokens as columns, as published."""
    Z, width = z.T, config.dim // config.heads
    total = torch.zeros_like(Z)
    for k in range(config.heads):
        U_k = U[k * width : (k + 1) * width].T
        likeness = (U_k.T @ Z).T @ (U_k.T @ Z)
        weights = (likeness if config.softmax == "plain" else likeness / math.sqrt(width)).exp()
        total = total + U_k @ (U_k.T @ Z) @ (weights / weights.sum(0))
    return width / (Z.shape[1] * config.eps**2) * total.T


def textbook_crate(image: Tensor, p: Parameters, config: CRATEConfig) -> Tensor:
    z = textbook.embed(image, p, config.patch)
    for block in (f"blocks.{layer}" for layer in range(config.depth)):
        x = textbook.norm(z, p, f"{block}.norm1")
        if config.output == "tied":
            z = z + tied_mssa(x, p[f"{block}.mssa.project.weight"], config)
        else:
            scale = 1.0 if config.softmax == "plain" else (config.dim // config.heads) ** -0.5
            z = z + textbook.mssa(x, p, f"{block}.mssa", config.heads, scale=scale)
        x = textbook.norm(z, p, f"{block}.norm2")
        z = textbook.ista(x, p[f"{block}.ista.dictionary"], eta=config.eta, lam=config.lam)
    return textbook.classify(z, p, config.pool)


def build(config: CRATEConfig = SMALL) -> CRATE:
    torch.manual_seed(0)
    model = CRATE(config, SHAPE, CLASSES)
    textbook.unsettle(model)
    return model


def name_of(form: dict[str, Any]) -> str:
    return "-".join(map(str, form.values()))


def name_of_output(config: CRATEConfig) -> str:
    return config.output


@pytest.mark.parametrize("form", FORMS, ids=name_of)
def test_logits_and_gradients_are_those_of_the_textbook(form: dict[str, Any]) -> None:
    config = replace(SMALL, **form, eps=0.8 if form["output"] == "tied" else SMALL.eps)
    textbook.check_against(build(config), torch.randn(3, *SHAPE), lambda image, p: textbook_crate(image, p, config))


@pytest.mark.parametrize(("tokens", "products"), [(12, 2 * 12), (13, 13 + 12)])
def test_ista_takes_two_products_of_few_tokens_and_one_of_more_than_the_width_with_the_same_codes(
    tokens: int, products: int
) -> None:
    torch.manual_seed(0)
    ista = ISTA(12, eta=0.2, lam=0.3).double()
    x = torch.randn(1, tokens, 12, dtype=torch.float64, requires_grad=True)
    D = ista.dictionary.detach().clone().requires_grad_()
    expected = textbook.ista(x, D, eta=0.2, lam=0.3)
    with FlopCounterMode(display=False) as counter:
        codes = ista(x)
    assert counter.get_total_flops() == 2 * products * 12 * 12  # a product of as many rows; D^T D has 12
    torch.testing.assert_close(codes, expected, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(codes)
    ours = torch.autograd.grad((codes * direction).sum(), [x, ista.dictionary])
    theirs = torch.autograd.grad((expected * direction).sum(), [x, D])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_default_form_computes_what_the_released_code_does_to_the_bit() -> None:
    torch.manual_seed(0)
    mssa, tokens = MSSA(12, 3), torch.randn(2, 7, 12)
    w = mssa.project(tokens).unflatten(-1, (3, 4)).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(w, w, w).transpose(1, 2).flatten(2)
    expected = F.linear(mixed, mssa.get_parameter("out.weight"), mssa.get_parameter("out.bias"))
    assert torch.equal(mssa(tokens), expected)


def test_weights_are_called_what_they_always_were() -> None:
    one_layer = CRATE(CRATEConfig(depth=1), (1, 8, 8), 10)
    assert list(one_layer.state_dict()) == [
        *("cls", "position"),
        *("embed.0.weight", "embed.0.bias", "embed.1.weight", "embed.1.bias", "embed.2.weight", "embed.2.bias"),
        *("blocks.0.norm1.weight", "blocks.0.norm1.bias"),
        *("blocks.0.mssa.project.weight", "blocks.0.mssa.out.weight", "blocks.0.mssa.out.bias"),
        *("blocks.0.norm2.weight", "blocks.0.norm2.bias", "blocks.0.ista.dictionary"),
        *("norm.weight", "norm.bias", "head.weight", "head.bias"),
    ]


def test_presets_have_the_published_numbers_of_parameters() -> None:
    sizes = {}
    for preset, options in CRATE_SPEC.presets.items():
        with torch.device("meta"):
            model = CRATE_SPEC.build(configure("crate", CRATE_SPEC.config, options), (3, 224, 224), 1000)
        sizes[preset] = sum(parameter.numel() for parameter in model.parameters())
    assert sizes == {
        "neurips-tiny": 6_090_856,
        "neurips-small": 13_116_328,
        "neurips-base": 22_796_008,
        "neurips-large": 77_641_192,
    }


def test_one_head_as_wide_as_the_token_has_no_output_projection() -> None:
    model = CRATE(CRATEConfig(dim=8, depth=1, heads=1), (1, 8, 8), 10)
    assert not [name for name, _ in model.named_parameters() if "mssa.out" in name]


def test_a_tied_output_has_no_weights_of_its_own() -> None:
    learned, tied = dict(build(SMALL).named_parameters()), dict(build(TIED).named_parameters())
    missing = {name: tuple(learned[name].shape) for name in learned if name not in tied}
    assert missing == {
        f"blocks.{layer}.mssa.out.{name}": shape
        for layer in range(2)
        for name, shape in (("weight", (12, 12)), ("bias", (12,)))
    }
    assert set(tied) < set(learned)


def test_the_tied_step_is_that_of_the_coding_rates_gradient() -> None:
    """Of small tokens that are all alike the softmax says nothing, and the gradient is linear: both must agree.

    R^c(Z; U) = sum_k 1/2 logdet(I + p / (N eps^2) (U_k^* Z)^* (U_k^* Z)).
    """
    torch.manual_seed(0)
    heads, width, tokens, eps = 3, 4, 5, 0.3
    mssa = MSSA(12, heads, output="tied", softmax="plain", eps=eps).double()
    z = (1e-6 * torch.randn(12, dtype=torch.float64)).expand(tokens, -1).clone().requires_grad_()
    rate = torch.zeros((), dtype=torch.float64)
    for U in mssa.project.weight.detach().chunk(heads):
        gram = torch.eye(width, dtype=torch.float64) + width / (tokens * eps**2) * (z @ U.T).T @ (z @ U.T)
        rate = rate + torch.linalg.slogdet(gram).logabsdet / 2
    (gradient,) = torch.autograd.grad(rate, z)
    torch.testing.assert_close(mssa(z[None])[0], gradient, rtol=1e-6, atol=0)


def test_the_dictionary_starts_kaiming_uniform_and_the_subspaces_as_torch_starts_them() -> None:
    torch.manual_seed(0)
    model = CRATE(CRATEConfig(dim=96, depth=1, heads=4, patch=1), (1, 8, 8), 10)
    D = model.get_parameter("blocks.0.ista.dictionary")
    assert D.std().item() == pytest.approx(math.sqrt(2 / 96), rel=0.03)
    assert D.abs().max().item() == pytest.approx(math.sqrt(6 / 96), rel=0.01)
    U = model.get_parameter("blocks.0.mssa.project.weight")
    assert U.abs().max().item() == pytest.approx(math.sqrt(1 / 96), rel=0.01)


@pytest.mark.parametrize("config", [SMALL, TIED], ids=name_of_output)
def test_about_half_of_the_codes_are_zero_at_the_start(config: CRATEConfig) -> None:
    torch.manual_seed(0)
    wide = replace(config, dim=384, depth=1, heads=6, patch=4, eta=0.1, lam=0.1)
    codes = CRATE(wide, (3, 32, 32), 10).blocks(torch.randn(4, 65, 384))
    assert (codes > 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_a_tied_step_starts_at_a_third_of_its_size() -> None:
    """U is uniform within 1/sqrt(d), so U^T U has mean I/3; and a token that is far from all others keeps to itself."""
    torch.manual_seed(0)
    mssa = MSSA(384, 6, output="tied", softmax="plain", eps=math.sqrt(64 / 17))
    tokens = 100 * torch.randn(4, 17, 384)
    share = (mssa(tokens) * tokens).sum() / tokens.square().sum()
    assert share.item() == pytest.approx(1 / 3, rel=0.03)


@pytest.mark.parametrize("config", [SMALL, TIED], ids=name_of_output)
def test_the_spec_finds_features_projections_compressed_tokens_and_codes(config: CRATEConfig) -> None:
    model = build(config)
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


@pytest.mark.parametrize(("config", "scale"), [(SMALL, 0.5), (replace(SMALL, softmax="plain"), 1.0)])
def test_the_layout_says_how_attention_reads_the_projections(config: CRATEConfig, scale: float) -> None:
    assert CRATE_SPEC.layout is not None
    layout = CRATE_SPEC.layout(config, SHAPE)
    assert (layout.heads, layout.scale, layout.prefix_tokens, layout.is_tied) == (3, scale, 1, True)


@pytest.mark.parametrize("config", [SMALL, TIED], ids=name_of_output)
def test_a_sample_is_classified_alike_alone_and_in_company(config: CRATEConfig) -> None:
    model = build(config)
    images = torch.randn(4, *SHAPE, dtype=torch.float64)
    together = model(images)
    torch.testing.assert_close(together, torch.cat([model(image[None]) for image in images]), rtol=1e-12, atol=1e-12)
    assert torch.equal(together, model(images))


@pytest.mark.parametrize("form", FORMS, ids=name_of)
def test_it_trains_in_bfloat16(form: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = CRATE(replace(SMALL, **form), SHAPE, CLASSES)
    images = torch.randn(4, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits.float(), model(images), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("config", [SMALL, TIED], ids=name_of_output)
def test_it_compiles_as_one_graph(config: CRATEConfig) -> None:
    model, images = build(config), torch.randn(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(images), model(images))


def test_impossible_options_are_refused_before_anything_is_built() -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"dim": 10, "heads": 4}, "evenly"),
        ({"eta": 0.0}, r"crate\[eta=0.0\]"),
        ({"lam": -1.0}, r"crate\[lam=-1.0\]"),
        ({"pool": "max"}, "pool=cls or pool=mean"),
        ({"output": "free"}, "output=learned or output=tied"),
        ({"softmax": "none"}, "softmax=scaled or softmax=plain"),
        ({"output": "tied", "eps": 0.0}, r"crate\[eps=0.0\]: a distortion must be above 0"),
        ({"eps": 0.1}, r"crate\[eps=0.1\]: only a tied output has a step; add output=tied"),
    )
    for options, reason in refused:
        with pytest.raises(WhitebenchError, match=reason):
            CRATEConfig(**options)
    with pytest.raises(WhitebenchError, match=r"crate: an image .* cannot be cut"):
        CRATE(CRATEConfig(patch=3), (1, 8, 8), 10)
