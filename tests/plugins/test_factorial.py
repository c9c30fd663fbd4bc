"""The four against a textbook written out in float64, against CRATE, and against one another."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.plugins import textbook
from tests.plugins.textbook import Parameters
from whitebench import ModelSpec, WhitebenchError
from whitebench.errors import OptionError
from whitebench.names import configure
from whitebench.needs import unmet_need
from whitebench.tracing import observe, offered_kinds
from whitebench_metrics.coding_rate import METRICS
from whitebench_models.crate import CRATE, CRATEConfig
from whitebench_models.factorial import FACTORIAL

SHAPE, CLASSES = (2, 4, 6), 5
SMALL = {"dim": 12, "depth": 2, "heads": 3, "patch": 2}
BY_NAME = {spec.name: spec for spec in FACTORIAL}


def by_name(spec: ModelSpec) -> str:
    return spec.name


def build(spec: ModelSpec, *, seed: int = 0, **options: Any) -> tuple[Any, nn.Module]:
    config = configure(spec.name, spec.config, {**SMALL, **options})
    torch.manual_seed(seed)
    return config, spec.build(config, SHAPE, CLASSES)


def textbook_layer(z: Tensor, p: Parameters, block: str, name: str, config: Any) -> Tensor:
    attention, nonlinearity = name.split("-")
    x = textbook.norm(z, p, f"{block}.norm1")
    if attention == "mssa":
        scale = (config.dim // config.heads) ** -0.5
        z = z + textbook.mssa(x, p, f"{block}.attention", config.heads, scale=scale)
    else:
        z = z + textbook.mhsa(x, p, f"{block}.attention", config.heads)
    x = textbook.norm(z, p, f"{block}.norm2")
    if nonlinearity == "ista":
        return textbook.ista(x, p[f"{block}.nonlinearity.dictionary"], eta=config.eta, lam=config.lam)
    return z + textbook.mlp(x, p, f"{block}.nonlinearity")


def test_the_four_are_every_attention_with_every_nonlinearity() -> None:
    assert set(BY_NAME) == {"mssa-ista", "mssa-mlp", "mhsa-ista", "mhsa-mlp"}


@pytest.mark.parametrize(("name", "pool", "heads"), [*product(BY_NAME, ("cls", "mean"), (1, 3))])
def test_logits_and_gradients_are_those_of_the_textbook(name: str, pool: str, heads: int) -> None:
    own = {"eta": 0.2, "lam": 0.3} if name.endswith("ista") else {"mlp_ratio": 2}
    config, model = build(BY_NAME[name], pool=pool, heads=heads, **own)
    textbook.unsettle(model)

    def logits(image: Tensor, p: Parameters) -> Tensor:
        z = textbook.embed(image, p, config.patch)
        for layer in range(config.depth):
            z = textbook_layer(z, p, f"blocks.{layer}", name, config)
        return textbook.classify(z, p, pool)

    textbook.check_against(model, torch.randn(3, *SHAPE), logits)


@pytest.mark.parametrize(("pool", "heads"), [*product(("cls", "mean"), (1, 3))])
def test_mssa_ista_is_crate(pool: Any, heads: int) -> None:
    _, ours = build(BY_NAME["mssa-ista"], pool=pool, heads=heads, eta=0.2, lam=0.3)
    torch.manual_seed(0)
    crate = CRATE(CRATEConfig(dim=12, depth=2, heads=heads, patch=2, pool=pool, eta=0.2, lam=0.3), SHAPE, CLASSES)
    theirs = {
        name.replace(".mssa.", ".attention.").replace(".ista.", ".nonlinearity."): weight
        for name, weight in crate.state_dict().items()
    }
    assert list(ours.state_dict()) == list(theirs)
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.state_dict().items())
    images = torch.randn(3, *SHAPE)
    assert torch.equal(ours(images), crate(images))


def test_all_options_that_two_of_them_share_have_the_same_defaults_as_crate() -> None:
    crate = CRATEConfig()
    for spec in FACTORIAL:
        ours = vars(spec.config())
        assert {name: getattr(crate, name) for name in ours if name != "mlp_ratio"} == {
            name: value for name, value in ours.items() if name != "mlp_ratio"
        }


def test_from_one_seed_all_four_start_with_the_same_embedding() -> None:
    starts = [build(spec)[1].state_dict() for spec in FACTORIAL]
    shared = ["cls", "position", *(name for name in starts[0] if name.startswith("embed."))]
    assert len(shared) == 8
    for start in starts[1:]:
        assert all(torch.equal(start[name], starts[0][name]) for name in shared)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("mssa-ista", lambda D: 3 * D**2 + D),
        ("mssa-mlp", lambda D: 10 * D**2 + 6 * D),
        ("mhsa-ista", lambda D: 5 * D**2 + 4 * D),
        ("mhsa-mlp", lambda D: 12 * D**2 + 9 * D),
    ],
)
def test_a_layers_blocks_have_as_many_weights_as_is_said(name: str, weights: Any) -> None:
    _, model = build(BY_NAME[name], dim=48)
    own = [p.numel() for part, p in model.named_parameters() if part.startswith("blocks.0.") and ".norm" not in part]
    assert sum(own) == weights(48)


@pytest.mark.parametrize("spec", FACTORIAL, ids=by_name)
def test_linear_layers_start_as_torch_starts_them_and_the_dictionary_kaiming_uniform(spec: ModelSpec) -> None:
    _, model = build(spec, dim=96, depth=1)
    for name, weights in model.get_submodule("blocks.0").named_parameters():
        if name.startswith("norm"):
            continue
        fan_in = 384 if ".contract." in name else 96
        bound = (6 if "dictionary" in name else 1) ** 0.5 * fan_in**-0.5
        assert 0.9 * bound < weights.abs().max().item() <= bound, name
        assert weights.std().item() == pytest.approx(bound / 3**0.5, rel=0.15), name


@pytest.mark.parametrize("spec", FACTORIAL, ids=by_name)
def test_each_offers_the_traces_that_it_has(spec: ModelSpec) -> None:
    _, model = build(spec)
    has_mssa, has_ista = spec.name.startswith("mssa"), spec.name.endswith("ista")
    kinds = frozenset({"tokens", "compressed", "codes"} | ({"projections"} if has_mssa else set()))
    inside = {"attention", "attention-logits", "attention-inputs", "attention-forms"}
    within = {"compressed-projections", "residual-projections", "subspaces"} if has_mssa else set()
    assert offered_kinds(spec.trace) == kinds | inside | within
    seen = observe(model, torch.randn(3, *SHAPE), head=spec.head, trace=spec.trace, kinds=kinds)
    assert seen.features.shape == (3, 12)
    shapes = {kind: [tuple(layer.shape) for layer in layers] for kind, layers in seen.trace.items()}
    assert shapes == {kind: [(3, 7, 48 if kind == "codes" and not has_ista else 12)] * 2 for kind in kinds}
    for layer, codes in enumerate(seen.trace["codes"]):
        compressed = seen.trace["compressed"][layer]
        if has_ista:
            assert torch.equal(codes, seen.trace["tokens"][layer])
            assert codes.min() == 0
        else:
            contract = model.get_submodule(f"blocks.{layer}.nonlinearity.contract")
            torch.testing.assert_close(compressed + contract(codes), seen.trace["tokens"][layer])
    if has_mssa:
        norm, project = (model.get_submodule(f"blocks.1.{part}") for part in ("norm1", "attention.project"))
        assert torch.equal(seen.trace["projections"][1], project(norm(seen.trace["tokens"][0])))
    assert spec.layout is not None
    layout = spec.layout(configure(spec.name, spec.config, SMALL), SHAPE)
    assert (layout.heads, layout.scale, layout.prefix_tokens, layout.is_tied) == (3, 0.5, 1, has_mssa)


def test_without_subspaces_there_is_no_subspace_coding_rate() -> None:
    (metric,) = (one for one in METRICS if one.name == "subspace-coding-rate")
    assert [unmet_need(metric, BY_NAME[name]) for name in ("mssa-ista", "mssa-mlp")] == [None, None]
    for name in ("mhsa-ista", "mhsa-mlp"):
        expected = f"model {name} gives no trace of projections (it gives attention, "
        assert (unmet_need(metric, BY_NAME[name]) or "").startswith(expected)


@pytest.mark.parametrize("spec", FACTORIAL, ids=by_name)
def test_it_trains_in_bfloat16(spec: ModelSpec) -> None:
    _, model = build(spec)
    images = torch.randn(4, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits.float(), model(images), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("spec", FACTORIAL, ids=by_name)
def test_it_compiles_as_one_graph(spec: ModelSpec) -> None:
    _, model = build(spec)
    images = torch.randn(3, *SHAPE)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(images), model(images))


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("mssa-ista", {"dim": 10}, r"mssa-ista\[dim=10,heads=3\]: the width does not split evenly"),
        ("mhsa-ista", {"eta": 0.0}, r"mhsa-ista\[eta=0.0\]: a step size"),
        ("mssa-mlp", {"mlp_ratio": 0}, r"mssa-mlp\[mlp_ratio=0\]"),
        ("mhsa-mlp", {"pool": "max"}, "option pool=max"),
        ("mhsa-mlp", {"eta": 0.1}, "unknown option 'eta'"),
        ("mhsa-ista", {"mlp_ratio": 4}, "unknown option 'mlp_ratio'"),
    ],
)
def test_what_it_does_not_have_or_cannot_be_is_refused_by_name(name: str, options: Any, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        build(BY_NAME[name], **options)


def test_images_that_cannot_be_cut_are_refused_by_name() -> None:
    with pytest.raises(WhitebenchError, match=r"e\.g\. mhsa-mlp\[patch=1\]"):
        build(BY_NAME["mhsa-mlp"], patch=4)
