"""ToST against a textbook in float64, one pixel, token and head at a time; its attention where one knows the answer."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from whitebench import WhitebenchError
from whitebench.names import configure
from whitebench.testing import check_model
from whitebench_models.tost import TOST, TSSA, ToST, ToSTConfig, fourier_waves

SHAPE, CLASSES = (2, 8, 12), 5
SMALL = ToSTConfig(dim=12, depth=2, heads=3, patch=4, mlp_ratio=2)


def textbook_norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / ((centred**2).mean(-1, keepdim=True) + 1e-6).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


def textbook_linear(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def textbook_halving(image: Tensor, weight: Tensor) -> Tensor:
    """Convolve with 3 x 3 windows around every second pixel, zeros outside."""
    channels, height, width = image.shape
    framed = torch.zeros(channels, height + 2, width + 2, dtype=image.dtype)
    framed = framed.index_put(
        tuple(torch.meshgrid(torch.arange(channels), torch.arange(height) + 1, torch.arange(width) + 1, indexing="ij")),
        image,
    )
    pixels = [
        [(weight * framed[:, i : i + 3, j : j + 3]).sum((1, 2, 3)) for j in range(0, width, 2)]
        for i in range(0, height, 2)
    ]
    return torch.stack([torch.stack(row, -1) for row in pixels], 1)


def textbook_batch_norm(maps: list[Tensor], p: dict[str, Tensor], name: str, *, training: bool) -> list[Tensor]:
    if training:
        pixels = torch.cat([one.flatten(1) for one in maps], 1)
        mean, variance = pixels.mean(1), ((pixels - pixels.mean(1, keepdim=True)) ** 2).mean(1)
    else:
        mean, variance = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    gain = p[f"{name}.weight"] / (variance + 1e-5).sqrt()
    return [(one - mean[:, None, None]) * gain[:, None, None] + p[f"{name}.bias"][:, None, None] for one in maps]


def textbook_stem(images: Tensor, p: dict[str, Tensor], config: ToSTConfig, *, training: bool) -> list[Tensor]:
    """Return each image's tokens (N, D), row by row."""
    if config.stem == "conv":
        maps = list(images)
        for halving in range(int(math.log2(config.patch))):
            maps = [gelu(one) for one in maps] if halving else maps
            maps = [textbook_halving(one, p[f"stem.{3 * halving}.weight"]) for one in maps]
            maps = textbook_batch_norm(maps, p, f"stem.{3 * halving + 1}", training=training)
        return [one.flatten(1).T for one in maps]
    side = config.patch
    return [
        torch.stack(
            [
                (p["stem.weight"] * image[:, i : i + side, j : j + side]).sum((1, 2, 3)) + p["stem.bias"]
                for i in range(0, image.shape[1], side)
                for j in range(0, image.shape[2], side)
            ]
        )
        for image in images
    ]


def textbook_tssa(z: Tensor, p: dict[str, Tensor], name: str, heads: int) -> Tensor:
    w = textbook_linear(z, p, f"{name}.project").chunk(heads, 1)
    scores = torch.stack(
        [
            p[f"{name}.temperature"][k] * ((w[k] / (w[k] ** 2).sum(0).sqrt().clamp(min=1e-12)) ** 2).sum(1)
            for k in range(heads)
        ]
    )
    membership = scores.exp() / scores.exp().sum(0)
    steps = []
    for k in range(heads):
        share = membership[k] / (membership[k].sum() + 1e-8)
        moment = sum((share[n] * w[k][n] ** 2 for n in range(len(z))), torch.zeros_like(w[k][0]))
        steps.append(torch.stack([-membership[k][n] * w[k][n] / (1 + moment) for n in range(len(z))]))
    return textbook_linear(torch.cat(steps, 1), p, f"{name}.out")


def textbook_mlp(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    return textbook_linear(gelu(textbook_linear(x, p, f"{name}.expand")), p, f"{name}.contract")


def textbook_class_layer(z: Tensor, p: dict[str, Tensor], block: str, heads: int) -> Tensor:
    """Return the class token, in front, and the patches; these only pass the norms and residuals."""
    normed = textbook_norm(z, p, f"{block}.norm1")
    q = textbook_linear(normed[0], p, f"{block}.attention.query")
    k, v = textbook_linear(normed, p, f"{block}.attention.key_value").chunk(2, 1)
    heard = []
    for own in torch.arange(len(q)).chunk(heads):
        likeness = (k[:, own] @ q[own] / math.sqrt(len(own))).exp()
        heard.append(likeness / likeness.sum() @ v[:, own])
    said = textbook_linear(torch.cat(heard), p, f"{block}.attention.out")
    g1, g2 = p[f"{block}.scale1"], p[f"{block}.scale2"]
    cls = textbook_norm(z[0] + g1 * said, p, f"{block}.norm2")
    patches = [
        2 * textbook_norm(one + g1 * own, p, f"{block}.norm2") for one, own in zip(z[1:], normed[1:], strict=True)
    ]
    return torch.stack([cls + g2 * textbook_mlp(cls, p, f"{block}.mlp"), *patches])


def textbook_layers(z: Tensor, p: dict[str, Tensor], config: ToSTConfig) -> Tensor:
    """Return the logits (C,) of one image's tokens as they leave the stem."""
    z = z + textbook_linear(p["waves"], p, "locate")
    for layer in range(config.depth):
        block = f"blocks.{layer}"
        step = textbook_tssa(textbook_norm(z, p, f"{block}.norm1"), p, f"{block}.attention", config.heads)
        z = z + p[f"{block}.scale1"] * step
        z = z + p[f"{block}.scale2"] * textbook_mlp(textbook_norm(z, p, f"{block}.norm2"), p, f"{block}.mlp")
    pooled = z.sum(0) / len(z)
    if config.class_layers:
        z = torch.cat([p["cls"][0], z])
        for layer in range(config.class_layers):
            z = textbook_class_layer(z, p, f"class_blocks.{layer}", config.heads)
        pooled = z[0]
    return textbook_linear(textbook_norm(pooled, p, "norm"), p, "head")


def textbook_tost(images: Tensor, p: dict[str, Tensor], config: ToSTConfig, *, training: bool = False) -> Tensor:
    return torch.stack([textbook_layers(z, p, config) for z in textbook_stem(images, p, config, training=training)])


def textbook_waves(rows: int, columns: int) -> Tensor:
    places = []
    for row in range(1, rows + 1):
        for column in range(1, columns + 1):
            waves = []
            for turn in (2 * math.pi * row / rows, 2 * math.pi * column / columns):
                for i in range(16):
                    waves += [math.sin(turn / 10000 ** (i / 16)), math.cos(turn / 10000 ** (i / 16))]
            places.append(waves)
    return torch.tensor(places, dtype=torch.float64)


def build(config: ToSTConfig = SMALL) -> ToST:
    torch.manual_seed(0)
    model = ToST(config, SHAPE, CLASSES).double()
    model.waves = textbook_waves(SHAPE[1] // config.patch, SHAPE[2] // config.patch)
    for parameter in model.parameters():  # zero biases and unit gains would hide a slip
        nn.init.normal_(parameter, std=0.5)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            nn.init.uniform_(buffer, 0.5, 2)
    return model.eval()


def agree(model: ToST, textbook: Callable[[Tensor, dict[str, Tensor]], Tensor]) -> None:
    images = torch.randn(3, *SHAPE, dtype=torch.float64, requires_grad=True)
    parameters = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    theirs = textbook(images, {**{name: b.clone() for name, b in model.named_buffers()}, **parameters})
    ours = model(images)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(ours)
    for mine, expected in zip(
        torch.autograd.grad((ours * direction).sum(), [images, *model.parameters()]),
        torch.autograd.grad((theirs * direction).sum(), [images, *parameters.values()]),
        strict=True,
    ):
        torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("class_layers", [0, 1, 2])
@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_logits_and_gradients_are_those_of_the_textbook(
    stem: Literal["linear", "conv"], class_layers: int, heads: int
) -> None:
    config = replace(SMALL, stem=stem, class_layers=class_layers, heads=heads)
    agree(build(config), lambda images, p: textbook_tost(images, p, config))


def test_in_training_the_convolutions_are_normed_over_the_batch() -> None:
    config = replace(SMALL, stem="conv")
    agree(build(config).train(), lambda images, p: textbook_tost(images, p, config, training=True))


def test_places_are_told_by_sines_and_cosines_of_row_and_column() -> None:
    torch.testing.assert_close(fourier_waves(2, 3).double(), textbook_waves(2, 3), rtol=0, atol=1e-6)


def test_tokens_that_are_all_alike_belong_to_all_heads_alike() -> None:
    torch.manual_seed(0)
    attention = TSSA(dim=12, heads=3).double()
    seen: list[Tensor] = []
    attention.out.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
    token = torch.randn(12, dtype=torch.float64)
    attention(token.expand(2, 7, 12))
    w = attention.project(token)  # each token has 1/7 of every direction's energy, so Pi is 1/3 and the moment w^2
    torch.testing.assert_close(seen[0], (-w / 3 / (1 + w**2)).expand(2, 7, 12), rtol=1e-7, atol=1e-9)


def test_tokens_without_energy_stay_where_they_are_and_have_gradients() -> None:
    attention = TSSA(dim=12, heads=3)
    nn.init.zeros_(attention.project.bias)
    for tokens in (torch.zeros(2, 7, 12), torch.cat([torch.zeros(2, 1, 12), torch.randn(2, 6, 12)], dim=1)):
        tokens.requires_grad_()
        attention.zero_grad()
        out = attention(tokens)
        torch.testing.assert_close(out[:, 0], attention.out.bias.expand(2, 12))
        out.square().sum().backward()
        gradients = [tokens.grad, *(parameter.grad for parameter in attention.parameters())]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_nothing_is_as_large_as_tokens_times_tokens() -> None:
    attention = TSSA(dim=8, heads=2)
    tokens = torch.randn(1, 1000, 8, requires_grad=True)
    largest = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attention(tokens).sum().backward()
    assert 0 < largest <= 1000 * 8


@pytest.mark.parametrize(("preset", "released"), [("tost-tiny", 5_769_328), ("tost-small", 22_589_944)])
def test_the_released_sizes_have_the_released_number_of_parameters(preset: str, released: int) -> None:
    config = configure(preset, ToSTConfig, TOST.presets[preset])
    with torch.device("meta"):
        model = ToST(config, (3, 224, 224), 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == released


def test_weights_start_as_released() -> None:
    torch.manual_seed(0)
    model = ToST(ToSTConfig(dim=96, depth=1, heads=4, patch=4, layer_scale=0.3), (3, 8, 8), 10)
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    assert len(layers) == 4 + 2 * 5 + 2
    for name, layer in layers:
        if name != "locate":
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.08)
            assert not layer.bias.any()
    assert model.locate.weight.abs().max().item() == pytest.approx(1 / 8, rel=0.01)  # 64 waves: 1/sqrt(64)
    assert model.stem.get_parameter("weight").abs().max().item() == pytest.approx(math.sqrt(1 / 48), rel=0.01)
    assert model.get_parameter("cls").std().item() == pytest.approx(0.02, rel=0.2)
    ones = [p for name, p in model.named_parameters() if name.endswith("temperature")]
    scales = [p for name, p in model.named_parameters() if "scale" in name]
    assert (len(ones), len(scales)) == (1, 6)
    assert all((parameter == 1).all() for parameter in ones)
    assert all((parameter == 0.3).all() for parameter in scales)


def test_the_convolutions_double_their_width_up_to_that_of_a_token() -> None:
    model = ToST(ToSTConfig(dim=64, heads=4, patch=16, depth=1, stem="conv"), (3, 32, 32), 10)
    widths = [layer.out_channels for layer in model.stem.modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [8, 16, 32, 64]
    assert model.stem(torch.randn(2, 3, 32, 32)).shape == (2, 64, 2, 2)
    assert isinstance(list(model.stem)[-1], nn.BatchNorm2d)  # type: ignore[call-overload]  # a Sequential


def test_the_spec_finds_features_tokens_projections_and_codes_and_no_class_token_among_them() -> None:
    model = build()
    seen: dict[str, tuple[int, ...]] = {}
    for name in ("head", "blocks.1", "blocks.1.attention.project", "blocks.1.norm2", "blocks.1.mlp.activation"):
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({f"{name}:in": inputs[0].shape, name: output.shape})
        )
    model(torch.randn(3, *SHAPE, dtype=torch.float64))
    assert seen[f"{TOST.head}:in"] == (3, 12)
    assert {seen[name] for name in ("blocks.1", "blocks.1.norm2:in", "blocks.1.attention.project")} == {(3, 6, 12)}
    assert seen["blocks.1.mlp.activation"] == (3, 6, 24)
    assert TOST.trace == {
        "tokens": "blocks.*",
        "compressed": "blocks.*.norm2:in",
        "codes": "blocks.*.mlp.activation",
        "projections": "blocks.*.attention.project",
        "compressed-projections": "blocks.*:compressed_projections()",
        "residual-projections": "blocks.*:residual_projections()",
        "subspaces": "blocks.*.attention.project.weight:param",
    }
    assert TOST.layout is not None
    layout = TOST.layout(SMALL, SHAPE)
    assert (layout.heads, layout.prefix_tokens, layout.is_tied) == (3, 0, False)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 8, 8), {"heads": 1, "depth": 1}),
        ((1, 8, 8), {"class_layers": 0}),
        ((1, 8, 8), {"stem": "conv"}),
        ((1, 24, 24), {"patch": 3, "layer_scale": 1e-5}),
        ((3, 32, 32), {"stem": "conv", "patch": 8, "class_layers": 1}),
    ],
)
def test_it_keeps_the_rules_with_other_options_and_images_too(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    check_model(TOST, shape=shape, config=ToSTConfig(**options))


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_compiled_in_one_graph_it_gives_the_same_logits(stem: Literal["linear", "conv"]) -> None:
    model, images = build(replace(SMALL, stem=stem)), torch.randn(3, *SHAPE, dtype=torch.float64)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), model(images), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_it_trains_in_bfloat16(stem: Literal["linear", "conv"]) -> None:
    torch.manual_seed(0)
    model = ToST(replace(SMALL, stem=stem), SHAPE, CLASSES)
    images = torch.randn(4, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(logits.float(), model(images), rtol=0.1, atol=0.05)


def test_impossible_options_are_refused_before_anything_is_built() -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"dim": 10, "heads": 4}, "evenly"),
        ({"class_layers": -1}, r"tost\[class_layers=-1\]"),
        ({"stem": "patch"}, "stem=linear or stem=conv"),
        ({"stem": "conv", "patch": 1}, "patches of 2, 4, 8, 16"),
        ({"stem": "conv", "patch": 12}, "patches of 2, 4, 8, 16"),
        ({"stem": "conv", "patch": 16, "dim": 12}, "multiple of 8"),
    )
    for options, reason in refused:
        with pytest.raises(WhitebenchError, match=reason):
            ToSTConfig(**options)
    with pytest.raises(WhitebenchError, match="cannot be cut"):
        ToST(ToSTConfig(patch=3), (1, 8, 8), 10)
