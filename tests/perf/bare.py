"""One fit twice, each in a process of its own: by the harness, and as a bare PyTorch loop that knows no harness."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whitebench.catalog import load_catalog
from whitebench.course import resolve
from whitebench.events import EpochEnded
from whitebench.fit import Answer, FitPlan, Message
from whitebench.seeds import mix

if TYPE_CHECKING:
    from whitebench import Samples

WEIGHTS = "bare.pt"


@dataclass(frozen=True, kw_only=True)
class Times:
    """How long a fit took."""

    whole: float
    """Seconds from plan to last epoch: data, model, training, validation, checkpoints where there are any."""
    epoch: float
    """Seconds of training, on average over the epochs after the first, validation left out."""
    cpu: float
    """CPU seconds of the whole, which other work on the machine disturbs less."""


def by_harness(plan: FitPlan) -> Times:
    """Train as a trial of a suite does, checkpoints included."""
    from whitebench.fitting import run_fit

    seconds: list[float] = []

    def hear(message: Message) -> Answer:
        if isinstance(message, EpochEnded):
            seconds.append(message.seconds)
        return "go"

    began, cpu_began = time.perf_counter(), time.process_time()
    run_fit(plan, load_catalog(), hear)
    whole, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    return Times(whole=whole, epoch=_mean(seconds[1:]), cpu=cpu)


def by_hand(plan: FitPlan) -> Times:
    """Train the same without the harness, and leave the weights in the plan's folder."""
    began, cpu_began = time.perf_counter(), time.process_time()
    course, recipe, budget = resolve(plan, load_catalog()), plan.recipe, plan.budget
    assert recipe is not None
    training, validation = (course.task.data(course.task_config, split) for split in ("train", "validation"))
    torch.manual_seed(mix(plan.seed))
    model = course.model.build(course.model_config, course.task.shape_of(course.task_config), course.classes)
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    optimiser = _optimiser(matrices, vectors, plan)
    steps = math.ceil(len(training) / budget.batch_size)
    factor = partial(_factor, warmup=recipe.warmup_epochs * steps, total=budget.epochs * steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    seconds: list[float] = []
    for epoch in range(budget.epochs):
        epoch_began = time.perf_counter()
        model.train()
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(mix(plan.seed, epoch)))
        for step, rows in enumerate(torch.split(order, budget.batch_size)):
            seed = mix(plan.seed, epoch, step)
            torch.manual_seed(seed)
            inputs = training.inputs[rows]
            if recipe.augment and course.task.augment is not None:
                inputs = course.task.augment(course.task_config, inputs, torch.Generator().manual_seed(seed))
            smoothing = recipe.label_smoothing
            one_hot = F.one_hot(training.labels[rows], course.classes).float()
            loss = _loss(model(inputs), one_hot * (1 - smoothing) + smoothing / course.classes).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            # In the harness's order, matrices first: a sum in another order has other last digits.
            nn.utils.clip_grad_norm_([*matrices, *vectors], recipe.clip_norm)
            optimiser.step()
            schedule.step()
        seconds.append(time.perf_counter() - epoch_began)
        _validate(model, validation, budget.batch_size, course.classes)
    whole, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    torch.save(model.state_dict(), plan.folder / WEIGHTS)
    return Times(whole=whole, epoch=_mean(seconds[1:]), cpu=cpu)


def difference(by_harness: Path, by_hand: Path) -> float:
    """Return the largest difference of any weight after the fits in two folders: 0 where they agree bit for bit."""
    checkpoint = torch.load(by_harness / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    ours = {name.removeprefix("model."): weight for name, weight in checkpoint.items() if name.startswith("model.")}
    theirs = torch.load(by_hand / WEIGHTS, weights_only=True)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - weight).abs().max()) for name, weight in theirs.items())


def _optimiser(matrices: list[nn.Parameter], vectors: list[nn.Parameter], plan: FitPlan) -> torch.optim.Optimizer:
    rate, decay = (float(plan.hyperparameters[name]) for name in ("learning_rate", "weight_decay"))
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    assert plan.recipe is not None
    return torch.optim.AdamW(groups, lr=rate, betas=plan.recipe.betas)


def _factor(step: int, *, warmup: float, total: int) -> float:
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (total - warmup))))


def _loss(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    return -(targets_BC * F.log_softmax(logits_BC, dim=-1)).sum(dim=-1)


@torch.no_grad()
def _validate(model: nn.Module, samples: Samples, batch_size: int, classes: int) -> tuple[float, float]:
    """Return accuracy and loss."""
    model.eval()
    right, loss = 0, 0.0
    batches = (torch.split(tensor, batch_size) for tensor in (samples.inputs, samples.labels))
    for inputs, labels in zip(*batches, strict=True):
        logits = model(inputs)
        right += int((logits.argmax(dim=1) == labels).sum())
        loss += float(_loss(logits, F.one_hot(labels, classes).float()).sum())
    return right / len(samples), loss / len(samples)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
