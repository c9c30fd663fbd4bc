"""What attention shows makes what it hands on; and one form per head makes its logits, whatever the model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.plugins import textbook
from whitebench import ModelSpec, Trace
from whitebench.catalog import load_catalog
from whitebench.names import configure
from whitebench.tracing import observe
from whitebench_models import crate_alpha
from whitebench_models.aot import ThresholdMSSA
from whitebench_models.crate import MSSA
from whitebench_models.selection import compare, join_heads, split_heads
from whitebench_models.vit import Attention

SHAPE, CLASSES = (1, 4, 6), 5
TINY: dict[str, Any] = {"dim": 12, "depth": 2, "heads": 3, "patch": 2}

SELECTING: list[tuple[str, dict[str, Any]]] = [
    ("vit", {}),
    ("crate", {}),
    ("crate", {"softmax": "plain", "output": "tied"}),
    ("crate", {"heads": 1}),
    ("crate-alpha", {}),
    ("aot", {}),
    ("aot", {"attention": "threshold"}),
    *((name, {}) for name in ("mssa-ista", "mssa-mlp", "mhsa-ista", "mhsa-mlp")),
    *(
        ("svm-vit", {"attention": name})
        for name in ("softmax", "sparsemax", "entmax15", "softmax-w", "sparsemax-w", "entmax15-w")
    ),
]
COMPRESSING: list[tuple[str, dict[str, Any]]] = [
    *(one for one in SELECTING if one[0] in {"crate", "crate-alpha", "aot", "mssa-ista", "mssa-mlp"}),
    ("tost", {}),
]


def by_options(one: Any) -> str:
    return "-".join(map(str, one.values())) if isinstance(one, dict) else str(one)


def build(name: str, options: dict[str, Any]) -> tuple[ModelSpec, nn.Module]:
    spec = load_catalog().model(name).spec
    torch.manual_seed(0)
    model = spec.build(configure(name, spec.config, {**TINY, **options}), SHAPE, CLASSES)
    textbook.unsettle(model)
    return spec, model.eval()


def look(name: str, options: dict[str, Any]) -> tuple[nn.Module, Trace]:
    spec, model = build(name, options)
    images = torch.randn(3, *SHAPE, dtype=torch.float64)
    assert isinstance(spec.trace, dict)
    return model, observe(model, images, head=spec.head, trace=spec.trace, kinds=list(spec.trace)).trace


def test_heads_are_split_in_order_and_joined_again() -> None:
    rows = torch.arange(2 * 5 * 12).reshape(2, 5, 12)
    split = split_heads(rows, 3)
    assert split.shape == (2, 3, 5, 4)
    assert torch.equal(split[:, 1], rows[..., 4:8])
    assert torch.equal(join_heads(split), rows)


@pytest.mark.parametrize(("name", "options"), SELECTING, ids=by_options)
def test_one_form_per_head_makes_every_logit_but_for_a_constant_per_row(name: str, options: dict[str, Any]) -> None:
    """logit_st - logit_s0 = (x_t - x_0)^T W [x_s; 1], pair by pair."""
    _, seen = look(name, options)
    heads = options.get("heads", 3)
    for x_BND, logits_BHNN, forms in zip(
        seen["attention-inputs"], seen["attention-logits"], seen["attention-forms"], strict=True
    ):
        assert forms.shape == (heads, 12, 13)
        for h in range(heads):
            for s in (0, 1, 4):
                z = torch.cat([x_BND[1, s], torch.ones(1, dtype=torch.float64)])
                by_form = torch.stack([x @ forms[h] @ z for x in x_BND[1]])
                row = logits_BHNN[1, h, s]
                torch.testing.assert_close(row - row[0], by_form - by_form[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("name", "options"), SELECTING, ids=by_options)
def test_weights_are_what_the_model_s_own_map_makes_of_the_logits(name: str, options: dict[str, Any]) -> None:
    _, seen = look(name, options)
    if name == "svm-vit" or options.get("attention") == "threshold":
        return  # other maps than the softmax: shown in their own tests, and below
    for logits, weights in zip(seen["attention-logits"], seen["attention"], strict=True):
        torch.testing.assert_close(weights, logits.exp() / logits.exp().sum(-1, keepdim=True))


@pytest.mark.parametrize(
    "attention",
    [
        Attention(12, 3),
        MSSA(12, 3),
        MSSA(12, 1),
        MSSA(12, 3, softmax="plain", output="tied"),
        crate_alpha.MSSA(12, 3),
        ThresholdMSSA(12, 3, eta=0.4, tau=0.5),
    ],
    ids=["mhsa", "mssa", "mssa-one-head", "mssa-plain-tied", "alpha-mssa", "threshold"],
)
def test_weights_and_values_make_what_the_attention_hands_on(attention: nn.Module) -> None:
    torch.manual_seed(0)
    textbook.unsettle(attention)
    tokens = torch.randn(2, 7, 12, dtype=torch.float64)
    heads: Any = attention.heads
    module: Any = attention
    projected = module.project(tokens)
    values = projected[2] if isinstance(attention, Attention) else split_heads(projected, heads)
    mixed = torch.cat([module.weights(tokens)[:, h] @ values[:, h] for h in range(heads)], dim=-1)
    if isinstance(attention, ThresholdMSSA):
        expected = 0.4 * mixed @ module.project.weight
    elif isinstance(attention, MSSA) and attention.out is None:
        expected = 4 / (7 * module.eps**2) * mixed @ module.project.weight
    else:
        expected = module.out(mixed)
    torch.testing.assert_close(attention(tokens), expected, rtol=1e-10, atol=1e-10)


def test_a_threshold_gives_a_token_tau_or_nothing() -> None:
    torch.manual_seed(0)
    weights = ThresholdMSSA(12, 3, eta=0.4, tau=0.5).weights(torch.randn(2, 7, 12))
    assert set(weights.flatten().tolist()) == {0.0, 0.5}


@pytest.mark.parametrize(("name", "options"), COMPRESSING, ids=by_options)
def test_compressed_projections_are_the_step_s_outcome_seen_as_its_input_was(
    name: str, options: dict[str, Any]
) -> None:
    model, seen = look(name, options)
    for layer, after in enumerate(seen["compressed"] if "compressed" in seen else seen["tokens"]):
        block: Any = model.get_submodule(f"blocks.{layer}")
        norm = block.norm if name == "aot" else block.norm1
        attention = block.attention if hasattr(block, "attention") else block.mssa
        torch.testing.assert_close(seen["compressed-projections"][layer], attention.project(norm(after)))
        assert torch.equal(seen["subspaces"][layer], attention.project.weight)
        early, late = seen["residual-projections"][layer].unbind(dim=1)
        torch.testing.assert_close(late, attention.project(after))
        if layer > 0:
            before = seen["tokens"][layer - 1]
            torch.testing.assert_close(early, attention.project(before))
            assert torch.equal(seen["projections"][layer], attention.project(norm(before)))


def test_logits_are_summed_in_float32_where_the_model_runs_in_bfloat16() -> None:
    queries, keys = torch.randn(1, 1, 3, 64).bfloat16(), torch.randn(1, 1, 5, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits: Tensor = compare(queries, keys, 0.125)
    torch.testing.assert_close(logits, (queries.double() @ keys.double().mT / 8).float())
