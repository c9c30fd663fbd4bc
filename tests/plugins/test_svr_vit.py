"""The ViT of support vector regression: centring and pooling by loops, the whole against a textbook."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

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
from whitebench.testing import check_model
from whitebench.tracing import observe
from whitebench_models.svr_vit import SVR_VIT, SVRAttention, SVRViTConfig, pool_runs, run_sizes
from whitebench_models.vit import Attention, ViT, ViTConfig

Name = Literal["bn", "sh", "bn-sh"]
NAMES: tuple[Name, ...] = get_args(Name)
SMALL = SVRViTConfig(dim=12, depth=2, heads=3, patch=2, mlp_ratio=2)
SCALES = (1, 4, 1)  # of the heads; 4 leaves a last run of 2 of the 6 patches


def config_of(attention: Name) -> SVRViTConfig:
    return replace(SMALL, attention=attention, scales="1-2" if attention == "bn" else "1-4-1")


def build(attention: Name) -> ViT:
    torch.manual_seed(0)
    model = SVR_VIT.build(config_of(attention), SHAPE, CLASSES)
    assert isinstance(model, ViT)
    return model


def block(attention: Name) -> SVRAttention:
    torch.manual_seed(0)
    return SVRAttention(Attention(12, 3), config_of(attention).run_lengths, is_centred="bn" in attention)


def mean(rows: list[Tensor]) -> Tensor:
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total / len(rows)


def runs(scale: int, seen: set[int]) -> list[list[int]]:
    """Return the places of the tokens that are seen, run by run; the class token is the first run."""
    patches = [list(range(start, min(start + scale, TOKENS))) for start in range(1, TOKENS, scale)]
    visible = [[place for place in run if place in seen] for run in ([0], *patches)]
    return [run for run in visible if run]


def attend(name: Name, hidden: tuple[int, ...] = ()) -> Callable[[Tensor, Weights], Tensor]:
    def attended(tokens: Tensor, p: Weights) -> Tensor:
        heads = []
        for head, (q, k, v) in enumerate(heads_of(p, tokens, 3)):
            of = runs(SCALES[head] if "sh" in name else 1, set(range(TOKENS)) - set(hidden))
            keys = [mean([k[place] for place in run]) for run in of]
            values = [mean([v[place] for place in run]) for run in of]
            shift = p["beta"][head] * mean(keys) if "bn" in name else torch.zeros(4)
            mixed = []
            for query in q:
                likeness = [((query - shift) @ (key - shift) / math.sqrt(4)).exp() for key in keys]
                mixed.append(sum(a * value for a, value in zip(likeness, values, strict=True)) / sum(likeness))
            heads.append(torch.stack(mixed))
        return torch.cat(heads, 1)

    return attended


@pytest.mark.parametrize("attention", NAMES)
def test_logits_and_gradients_are_those_of_the_textbook(attention: Name) -> None:
    assert_same_logits_and_gradients(build(attention).double(), config_of(attention), attend(attention))


@pytest.mark.parametrize("attention", NAMES)
@pytest.mark.parametrize("hidden", [(2,), (3, 5), (1, 2, 3, 4), (0, 6)])  # a run of four whole, the class token
def test_a_mask_is_that_of_the_textbook(attention: Name, hidden: tuple[int, ...]) -> None:
    model, tokens = block(attention).double(), torch.randn(2, TOKENS, 12, dtype=torch.float64)
    scramble(model)
    theirs = torch.stack([attend(attention, hidden)(one, dict(model.named_parameters())) for one in tokens])
    ours = model(tokens, hide(hidden).double().expand(2, -1))
    torch.testing.assert_close(ours, model.out(theirs), rtol=1e-12, atol=1e-12)


def test_runs_are_of_patches_in_their_order_and_the_class_token_stays_alone() -> None:
    rows = torch.tensor([50.0, 1, 2, 3, 4, 6, 8]).reshape(1, 7, 1, 1)
    seen = torch.tensor([[True, True, True, True, False, False, False]])
    everything = torch.ones_like(seen)
    assert pool_runs(rows, everything, 2).flatten().tolist() == [50, 1.5, 3.5, 7]
    assert pool_runs(rows, everything, 4).flatten().tolist() == [50, 2.5, 7]
    assert pool_runs(rows, everything, 100).flatten().tolist() == [50, 4]
    assert pool_runs(rows, everything, 1).flatten().tolist() == rows.flatten().tolist()
    assert pool_runs(rows, seen, 2).flatten().tolist() == [50, 1.5, 3, 0]
    assert run_sizes(seen, 2).tolist() == [[1, 2, 1, 0]]
    assert run_sizes(everything, 4).tolist() == [[1, 4, 2]]


def test_without_centring_and_pooling_it_is_the_plain_vit_to_the_bit() -> None:
    torch.manual_seed(0)
    plain = ViT(ViTConfig(**{name: getattr(SMALL, name) for name in get_type_hints(ViTConfig)}), SHAPE, CLASSES)
    torch.manual_seed(0)
    ours = SVR_VIT.build(replace(SMALL, attention="sh", scales="1"), SHAPE, CLASSES)
    images = torch.randn(4, *SHAPE)
    assert torch.equal(ours(images), plain(images))
    torch.manual_seed(0)
    centred = SVR_VIT.build(replace(SMALL, attention="bn"), SHAPE, CLASSES)
    assert not torch.allclose(centred(images), plain(images))
    for layer in range(2):
        beta = centred.get_parameter(f"blocks.{layer}.attention.beta")
        assert beta.tolist() == [1, 1, 1]
        beta.data.zero_()
    torch.testing.assert_close(centred(images), plain(images))


def test_full_centring_takes_out_what_all_queries_and_keys_have_in_common() -> None:
    # With beta = 1, q + c and k + c (of mean mu + c) are centred to the same q - mu and k - mu.
    model, tokens = block("bn").double(), torch.randn(2, TOKENS, 12, dtype=torch.float64)
    model.qkv.weight.data[12:24] = model.qkv.weight.data[:12]
    before = model(tokens)
    model.qkv.bias.data[:24] += torch.randn(12, dtype=torch.float64).repeat(2)
    torch.testing.assert_close(model(tokens), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("attention", "more"), [("bn", 12 * 3), ("sh", 0), ("bn-sh", 12 * 3)])
def test_beta_per_head_and_layer_is_all_it_has_more_than_vit(attention: Name, more: int) -> None:
    with torch.device("meta"):
        config = SVRViTConfig(dim=192, heads=3, depth=12, patch=16, attention=attention)
        model = SVR_VIT.build(config, (3, 224, 224), 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_717_416 + more


@pytest.mark.parametrize("attention", NAMES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_hidden_keys_get_no_weight_and_have_no_part(attention: Name, precision: str) -> None:
    model = block(attention)
    masks = torch.stack([hide([2, 5]), hide([1, 2, 3, 4]), hide([0]), hide([0, 1, 2, 3, 4, 5])])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        assert_hidden_tokens_have_no_part(model, 12, masks)
        weights = model.weights(torch.randn(4, TOKENS, 12), masks)
    assert not weights[masks[:, None, None, :].expand_as(weights) == -math.inf].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 3, TOKENS))


@pytest.mark.parametrize("attention", NAMES)
def test_what_is_traced_makes_what_the_attention_hands_on(attention: Name) -> None:
    model, images = build(attention).double().eval(), torch.randn(3, *SHAPE, dtype=torch.float64)
    scramble(model)
    assert isinstance(SVR_VIT.trace, dict)
    kinds = list(SVR_VIT.trace)
    assert kinds == ["tokens", "compressed", "codes", "attention-inputs", "attention-logits", "attention"]
    seen = observe(model, images, head="head", trace=SVR_VIT.trace, kinds=kinds).trace
    for layer in range(2):
        module = model.get_submodule(f"blocks.{layer}.attention")
        assert isinstance(module, SVRAttention)
        inputs, weights = seen["attention-inputs"][layer], seen["attention"][layer]
        assert weights.shape == (3, 3, TOKENS, TOKENS)
        values = module.qkv(inputs).chunk(9, dim=2)[6:]
        mixed = torch.cat([weights[:, head] @ values[head] for head in range(3)], dim=2)
        torch.testing.assert_close(module.out(mixed), module(inputs), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(seen["attention-logits"][layer].softmax(-1), weights)
        pooled = weights[:, 1, :, 1:5]  # the first run of four
        assert torch.equal(pooled, pooled[..., :1].expand_as(pooled)) == ("sh" in attention)


def test_the_heads_are_shared_out_over_the_scales_in_order() -> None:
    for heads, scales, expected in ((3, "1-2", [2, 1]), (4, "1-2", [2, 2]), (5, "3-1-2", [2, 2, 1])):
        config = SVRViTConfig(dim=60, heads=heads, scales=scales)
        model = SVR_VIT.build(config, (1, 8, 8), 10).get_submodule("blocks.0.attention")
        assert isinstance(model, SVRAttention)
        shares = model.regressions(torch.randn(2, 5, 60), torch.ones(1, 5, dtype=torch.bool))
        assert [(q.shape[1], k.shape[2]) for q, k, _ in shares] == [
            (share, 1 + math.ceil(4 / scale)) for share, scale in zip(expected, config.run_lengths, strict=True)
        ]


@pytest.mark.parametrize("attention", NAMES)
def test_compiled_it_trains_as_it_does_uncompiled(attention: Name) -> None:
    plain, images = build(attention).train(), torch.randn(4, *SHAPE)
    twin = copy.deepcopy(plain)
    for model in (plain, torch.compile(twin, backend="eager")):
        model(images).square().mean().backward()
    for one, two in zip(plain.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("attention", NAMES)
def test_it_trains_in_bfloat16(attention: Name) -> None:
    model, images = build(attention), torch.randn(4, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits.float(), model(images), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("attention", NAMES)
def test_every_attention_keeps_the_rules_for_models(attention: Name) -> None:
    check_model(SVR_VIT, config=SVRViTConfig(attention=attention))
    check_model(SVR_VIT, config=SVRViTConfig(attention=attention, heads=2, depth=1, patch=8))
    check_model(SVR_VIT, config=SVRViTConfig(attention="bn-sh", scales="3-1-100", patch=2))


def test_impossible_options_are_refused_before_anything_is_built() -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"dim": 10, "heads": 4}, r"svr-vit\[dim=10,heads=4\]"),
        ({"attention": "nb"}, r"svr-vit\[attention=nb\]: choose bn, sh or bn-sh"),
        ({"scales": "1,2"}, r"svr-vit\[scales=1,2\]: write numbers"),
        ({"scales": "0-2"}, r"svr-vit\[scales=0-2\]"),
        ({"scales": "1-2-4", "heads": 2}, r"svr-vit\[scales=1-2-4,heads=2\]: there are more scales than heads"),
    )
    for options, reason in refused:
        with pytest.raises(WhitebenchError, match=reason):
            SVRViTConfig(**options)
    with pytest.raises(WhitebenchError, match=r"svr-vit: an image"):
        SVR_VIT.build(SVRViTConfig(patch=3), (1, 8, 8), 10)
