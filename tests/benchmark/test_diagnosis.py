"""Where a number stopped being finite is named as the model names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from whitebench.diagnosis import find_in_gradients, find_in_step


class Root(nn.Module):
    """A layer with a function of its own: the root of what it is given, NaN below zero."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 10).sqrt()


class Pair(nn.Module):
    """Gives a tuple, as attention with its weights does."""

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, list[Tensor]]]:
        return x, {"weights": [x.long(), x.log()]}


class Model(nn.Module):
    def __init__(self, *blocks: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.blocks, self.head, self.scale = nn.ModuleList(blocks), nn.Linear(4, 3), scale

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            given = block(x)
            x = given[0] if isinstance(given, tuple) else given
        logits: Tensor = self.head(x) * self.scale
        return logits


def found(model: nn.Module, inputs: Tensor | None = None, **terms: float) -> str:
    batch = torch.zeros(2, 4) if inputs is None else inputs

    def step() -> Mapping[str, Tensor]:
        return {"objective": model(batch).sum() * terms.get("factor", 1.0), "model's penalty": torch.tensor(0.0)}

    return find_in_step(model, step)


def test_the_first_layer_in_the_order_of_execution_is_named_and_the_innermost_of_nested_ones() -> None:
    model = Model(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), Root()), Root())
    assert found(model) == "the first layer whose output is not finite is 'blocks.1.1', a Root"


def test_a_layer_that_gives_several_tensors_is_looked_through() -> None:
    assert found(Model(Pair())) == "the first layer whose output is not finite is 'blocks.0', a Pair"


def test_a_layer_whose_weights_are_broken_says_so() -> None:
    model = Model()
    nn.init.constant_(model.head.bias, float("inf"))
    expected = "the first layer whose output is not finite is 'head', a Linear: its bias is not finite already"
    assert found(model) == expected


def test_what_the_forward_itself_makes_is_told_from_its_layers() -> None:
    expected = "the output of every layer is finite, what the model's forward makes of them is not"
    assert found(Model(scale=float("nan"))) == expected


def test_inputs_that_are_broken_already_are_said_to_be() -> None:
    expected = "what the model is given is not finite already: look at the task's augmentation"
    assert found(Model(), torch.full((2, 4), float("nan"))) == expected


def test_a_term_of_the_loss_is_named_where_the_model_is_finite() -> None:
    assert found(Model(), factor=float("inf")) == "the output of every layer is finite, the objective is not"
    model = Model()
    step = {"objective": torch.tensor(1.0), "model's penalty": torch.tensor(float("inf"))}
    assert find_in_step(model, lambda: step) == "the output of every layer is finite, the model's penalty is not"


def test_a_step_that_goes_well_the_second_time_says_that() -> None:
    assert found(Model()) == "taken again, the same step is finite: it depends on more than its seed and batch"


def test_a_step_that_cannot_be_taken_again_says_why_and_is_no_error() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise MemoryError("no room")

    assert found(Model(Broken())) == "the step cannot be taken again: MemoryError: no room"
    assert found(Model(Root(), Broken())) == "the first layer whose output is not finite is 'blocks.0', a Root"


def test_a_compiled_model_is_looked_into_as_well() -> None:
    model = cast("nn.Module", torch.compile(Model(Root()), backend="eager"))
    assert found(model) == "the first layer whose output is not finite is 'blocks.0', a Root"


def test_no_hook_stays_behind() -> None:
    model = Model(Root())
    found(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_last_weight_with_a_broken_gradient_is_the_one_nearest_to_the_loss() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    weights = dict(layers.named_parameters())
    for name, weight in weights.items():
        weight.grad = torch.full_like(weight, 1.0 if name.startswith("2") else float("nan"))
    assert find_in_gradients(weights) == (
        "going backwards, the first weight whose gradient is not finite is '1.bias' (4 of 6 are not)"
    )


@pytest.mark.parametrize("gradient", [1e30, None])
def test_gradients_that_are_finite_and_too_large_together_are_said_to_be(gradient: float | None) -> None:
    weights = dict(nn.Linear(2, 2).named_parameters())
    for weight in weights.values():
        weight.grad = None if gradient is None else torch.full_like(weight, gradient)
    assert find_in_gradients(weights) == (
        "the gradient of every weight is finite, their norm is too large for a number"
    )
