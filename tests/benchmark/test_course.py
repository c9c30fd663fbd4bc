"""Names looked up, and the model built for the task as its options make it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from whitebench import Layout, ModelSpec, TaskSpec
from whitebench.catalog import Catalog
from whitebench.course import build, feature_width, resolve
from whitebench.fit import FitPlan


@dataclasses.dataclass(frozen=True)
class Side:
    side: int = 2


class Linear(nn.Module):
    def __init__(self, config: object, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(shape[1] * shape[2], classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.flatten(1))
        return logits


def tokens(_: object, shape: tuple[int, ...]) -> Layout:
    return Layout(prefix_tokens=shape[1])


@pytest.mark.parametrize("side", [2, 5])
def test_a_model_is_built_laid_out_and_looked_at_in_the_shape_that_the_task_s_options_give(
    side: int, make_plan: Callable[..., FitPlan], catalog: Catalog
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("no data is needed to build a model")

    task = TaskSpec(name="any", version=1, summary="", shape=lambda options: (1, options.side, options.side), classes=3,
                    config=Side, data=never)  # fmt: skip
    model = ModelSpec(name="linear", summary="", config=Side, build=Linear, head="head", layout=tokens)
    course = dataclasses.replace(
        resolve(make_plan(), catalog), model=model, model_config=Side(), task=task, task_config=Side(side=side)
    )
    subject = build(course)
    assert subject.context.shape == (1, side, side)
    assert subject.context.layout.prefix_tokens == side
    assert subject.module(torch.zeros(1, 1, side, side)).shape == (1, 3)
    assert feature_width(course, subject) == side * side
