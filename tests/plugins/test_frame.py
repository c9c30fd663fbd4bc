"""The frame against a textbook written out in float64, around a layer that hands on what it is given."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import nn

from tests.plugins import textbook
from whitebench import WhitebenchError
from whitebench_models.frame import Frame, FrameConfig

SHAPE, CLASSES = (2, 4, 6), 5


@dataclass(frozen=True, kw_only=True)
class Config(FrameConfig):
    name: ClassVar[str] = "bare"


def build(config: Config) -> Frame:
    torch.manual_seed(0)
    return Frame(config, SHAPE, CLASSES, layer=nn.Identity)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_logits_and_gradients_are_those_of_the_textbook(pool: Literal["cls", "mean"]) -> None:
    model = build(Config(dim=12, heads=3, patch=2, pool=pool))
    textbook.unsettle(model)
    textbook.check_against(
        model, torch.randn(3, *SHAPE), lambda image, p: textbook.classify(textbook.embed(image, p, 2), p, pool)
    )


def test_it_has_as_many_layers_as_it_is_deep_each_made_anew() -> None:
    model = Frame(Config(dim=4, depth=3, patch=2), SHAPE, CLASSES, layer=lambda: nn.Linear(4, 4))
    assert len({id(layer) for layer in model.blocks}) == 3


def test_class_token_and_positions_start_standard_normal_and_all_else_as_torch_starts_it() -> None:
    model = build(Config(dim=1200, heads=3, patch=2))
    assert model.position.shape == (1, 7, 1200)
    for start in (model.position, model.cls):
        assert start.mean().item() == pytest.approx(0, abs=0.1)
        assert start.std().item() == pytest.approx(1, rel=0.1)
    for name, fan_in in (("embed.1", 8), ("head", 1200)):  # uniform within 1/sqrt(fan in)
        for part in ("weight", "bias"):
            weights = model.get_parameter(f"{name}.{part}")
            assert weights.abs().max().item() <= fan_in**-0.5
            assert weights.std().item() == pytest.approx((3 * fan_in) ** -0.5, rel=0.6 if len(weights) == 5 else 0.05)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dim": 10, "heads": 4}, r"bare\[dim=10,heads=4\]: the width does not split evenly"),
        ({"depth": 0}, r"bare\[depth=0\]"),
        ({"patch": 0}, r"bare\[patch=0\]"),
        ({"pool": "max"}, r"bare\[pool=max\]: choose pool=cls or pool=mean"),
    ],
)
def test_impossible_options_are_refused_in_the_models_name(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(WhitebenchError, match=reason):
        Config(**options)


def test_images_that_cannot_be_cut_are_refused_in_the_models_name() -> None:
    with pytest.raises(
        WhitebenchError, match=r"bare: an image of 4 x 6 pixels cannot be cut .* e\.g\. bare\[patch=1\]"
    ):
        build(Config(patch=4))
