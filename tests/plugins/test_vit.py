"""The ViT against a textbook written out in float64: one sample, one head and one exponential at a time."""

import math

import pytest
import torch
from torch import Tensor, nn

from tests.plugins import textbook
from tests.plugins.textbook import Parameters
from whitebench import WhitebenchError
from whitebench.names import configure
from whitebench_models.vit import VIT, ViT, ViTConfig

SHAPE, CLASSES = (2, 4, 6), 5
SMALL = ViTConfig(dim=12, depth=2, heads=3, patch=2, mlp_ratio=2)


def textbook_vit(image: Tensor, p: Parameters) -> Tensor:
    patches = textbook.linear(textbook.patches_of(image, SMALL.patch), p, "embed")
    z = torch.cat([p["cls"][0], patches]) + p["position"][0]
    for block in (f"blocks.{layer}" for layer in range(SMALL.depth)):
        z = z + textbook.mhsa(textbook.norm(z, p, f"{block}.norm1", eps=1e-6), p, f"{block}.attention", SMALL.heads)
        z = z + textbook.mlp(textbook.norm(z, p, f"{block}.norm2", eps=1e-6), p, f"{block}.mlp")
    return textbook.linear(textbook.norm(z, p, "norm", eps=1e-6)[0], p, "head")


@pytest.fixture
def model() -> ViT:
    torch.manual_seed(0)
    model = ViT(SMALL, SHAPE, CLASSES)
    textbook.unsettle(model)
    return model


def test_logits_and_gradients_are_those_of_the_textbook(model: ViT) -> None:
    textbook.check_against(model, torch.randn(3, *SHAPE), textbook_vit)


def test_presets_have_the_published_numbers_of_parameters() -> None:
    sizes = {}
    for preset, options in VIT.presets.items():
        with torch.device("meta"):
            model = VIT.build(configure("vit", VIT.config, options), (3, 224, 224), 1000)
        sizes[preset] = sum(parameter.numel() for parameter in model.parameters())
    assert sizes == {"deit-tiny": 5_717_416, "deit-small": 22_050_664, "deit-base": 86_567_656}


def test_weights_start_xavier_uniform_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    model = ViT(ViTConfig(dim=96, depth=1, heads=4, patch=4), (1, 8, 8), 10)
    block = model.blocks[0]
    assert isinstance(block, nn.Module)
    for fan_in, fan_out, weights in (
        *((96, 96, part) for part in block.get_parameter("attention.qkv.weight").chunk(3)),
        (96, 96, block.get_parameter("attention.out.weight")),
        (96, 384, block.get_parameter("mlp.expand.weight")),
        (384, 96, block.get_parameter("mlp.contract.weight")),
        (16, 96, model.embed.weight),
        (96, 10, model.head.weight),
    ):
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert weights.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert weights.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.06)
    assert model.position.std().item() == pytest.approx(0.02, rel=0.1)
    zeros = [p for name, p in model.named_parameters() if name.endswith("bias") or name == "cls"]
    assert all(not parameter.any() for parameter in zeros)


def test_the_spec_finds_features_tokens_and_hidden_activations(model: ViT) -> None:
    seen: dict[str, tuple[int, ...]] = {}
    for name in ("head", "blocks.1", "blocks.1.mlp.activation"):
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({f"{name}:in": inputs[0].shape, name: output.shape})
        )
    model(torch.randn(3, *SHAPE, dtype=torch.float64))
    assert seen[f"{VIT.head}:in"] == (3, 12)
    assert seen["blocks.1"] == (3, 7, 12)
    assert seen["blocks.1.mlp.activation"] == (3, 7, 24)
    assert VIT.trace == {
        "tokens": "blocks.*",
        "compressed": "blocks.*.norm2:in",
        "codes": "blocks.*.mlp.activation",
        "attention-inputs": "blocks.*.attention:in",
        "attention-logits": "blocks.*.attention:logits()",
        "attention": "blocks.*.attention:weights()",
        "attention-forms": "blocks.*.attention:forms()",
    }
    assert VIT.layout is not None
    layout = VIT.layout(SMALL, SHAPE)
    assert (layout.heads, layout.scale, layout.prefix_tokens, layout.is_tied) == (3, 0.5, 1, False)


def test_a_sample_is_classified_alike_alone_and_in_company(model: ViT) -> None:
    images = torch.randn(4, *SHAPE, dtype=torch.float64)
    together = model(images)
    torch.testing.assert_close(together, torch.cat([model(image[None]) for image in images]), rtol=1e-12, atol=1e-12)
    assert torch.equal(together, model(images))


def test_it_trains_in_bfloat16() -> None:
    torch.manual_seed(0)
    model = ViT(SMALL, SHAPE, CLASSES)
    images = torch.randn(4, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits.float(), model(images), rtol=0.1, atol=0.05)


def test_it_compiles_as_one_graph(model: ViT) -> None:
    images = torch.randn(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(images), model(images))


def test_impossible_sizes_are_refused_before_anything_is_built() -> None:
    with pytest.raises(WhitebenchError, match="even"):
        ViTConfig(dim=10, heads=4)
    with pytest.raises(WhitebenchError, match=r"vit\[mlp_ratio=0\]"):
        ViTConfig(mlp_ratio=0)
    with pytest.raises(WhitebenchError, match="cannot be cut"):
        ViT(ViTConfig(patch=3), (1, 8, 8), 10)
