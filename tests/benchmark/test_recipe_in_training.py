"""What a recipe promises, against the same training written out in plain torch, step by step."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lion_pytorch import Lion
from torch import Tensor, nn

from whitebench.catalog import Catalog
from whitebench.course import Course, build, resolve
from whitebench.evaluation import Subject
from whitebench.events import EpochEnded
from whitebench.fit import Answer, FitPlan, Message
from whitebench.samples import EpochSampler
from whitebench.seeds import mix
from whitebench.specs import ModelSpec, Samples, TaskSpec
from whitebench.training import train

MakePlan = Callable[..., FitPlan]

SEED, EPOCHS, BATCH, STEPS = 3, 3, 2, 3  # five samples in batches of two, two and one
RATE, DECAY, BETAS, PENALTY = 0.05, 0.1, (0.8, 0.95), 0.01


@dataclass(frozen=True, kw_only=True)
class Nothing:
    pass


@dataclass(frozen=True, kw_only=True)
class Strength:
    strength: float = 0.5


class Plain(nn.Module):
    """Two layers with dropout, so that training and evaluation differ; what the first yields is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.drop, self.head = nn.Linear(4, 6), nn.Dropout(0.2), nn.Linear(6, 3)
        self.pauses = {True: 0.0, False: 0.0}
        """Seconds that a pass takes in training and in evaluation."""

    def forward(self, inputs: Tensor) -> Tensor:
        time.sleep(self.pauses[self.training])
        logits: Tensor = self.head(self.drop(torch.tanh(self.hidden(inputs))))
        return logits


def penalty(model: nn.Module) -> Tensor:
    return PENALTY * sum((weight.square().sum() for weight in model.parameters()), torch.zeros(()))


def stretch(config: Strength, inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Make every sample longer by a share of its own."""
    return inputs * (1 + config.strength * torch.rand(len(inputs), 1, generator=generator))


def five(_config: Strength, split: str) -> Samples:
    draw = torch.Generator().manual_seed({"train": 1, "validation": 2, "test": 3}[split])
    return Samples(inputs=3 * torch.randn(5, 4, generator=draw), labels=torch.tensor([0, 1, 2, 2, 1]))


MODEL = ModelSpec(
    name="plain",
    summary="two layers",
    config=Nothing,
    build=lambda _config, _shape, _classes: Plain(),
    head="head",
    penalty=penalty,
)
TASK = TaskSpec(
    name="five", version=1, summary="five samples", shape=(4,), classes=3, data=five, config=Strength, augment=stretch
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What of a recipe and a budget is switched on; by itself nothing is."""

    optimiser: str = "adamw"
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    augment: bool = False
    precision: str = "32"

    def course(self, make_plan: MakePlan, catalog: Catalog) -> Course:
        recipe = {key: value for key, value in dataclasses.asdict(self).items() if key != "precision"}
        plan = make_plan(
            budget={"epochs": EPOCHS, "batch_size": BATCH, "precision": self.precision},
            recipe={**recipe, "betas": BETAS},
            hyperparameters={"learning_rate": RATE, "weight_decay": DECAY},
            seed=SEED,
        )
        course = resolve(plan, catalog)
        return dataclasses.replace(course, model=MODEL, model_config=Nothing(), task=TASK, task_config=Strength())

    def factor(self, step: int) -> float:
        """Return the share of the peak learning rate that step `step`, counted from 0, is taken with."""
        warmup, total = self.warmup_epochs * STEPS, EPOCHS * STEPS
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.schedule == "constant":
            return 1.0
        return (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


CASES = {
    "nothing": Case(),
    "lion": Case(optimiser="lion"),
    "smoothing": Case(label_smoothing=0.1),
    "clipping": Case(clip_norm=0.05),
    "warm-up": Case(warmup_epochs=1.0),
    "warm-up-and-a-half": Case(warmup_epochs=1.5),
    "cosine": Case(schedule="cosine"),
    "augmentation": Case(augment=True),
    "bf16": Case(precision="bf16-mixed"),
    "everything-adamw": Case(
        schedule="cosine", warmup_epochs=1.5, label_smoothing=0.1, clip_norm=0.05, augment=True, precision="bf16-mixed"
    ),
    "everything-lion": Case(
        optimiser="lion", schedule="cosine", warmup_epochs=1.0, label_smoothing=0.1, clip_norm=0.05, augment=True
    ),
}


def run(course: Course, *, pauses: dict[bool, float] | None = None) -> tuple[Sequence[EpochEnded], Subject]:
    """Train what `course` says from weights that are the same every time; return what was told and the model."""
    told: list[EpochEnded] = []

    def hear(message: Message) -> Answer:
        assert isinstance(message, EpochEnded)
        told.append(message)
        return "go"

    subject = start(course)
    assert isinstance(subject.module, Plain)
    subject.module.pauses = pauses or subject.module.pauses
    trained = train(course, subject, five(Strength(), "train"), five(Strength(), "validation"), hear)
    assert list(trained.history) == told
    return told, subject


def start(course: Course) -> Subject:
    torch.manual_seed(0)
    return build(course)


def targets_of(labels: Tensor, smoothing: float) -> Tensor:
    targets = torch.full((len(labels), 3), smoothing / 3)
    targets[torch.arange(len(labels)), labels] += 1 - smoothing
    return targets


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over samples; the softmax is taken in float32 whatever the logits are."""
    return -(targets * logits.float().log_softmax(dim=1)).sum(dim=1).mean()


def replay(case: Case, model: nn.Module) -> list[dict[str, float]]:
    """Train `model` by hand; return the numbers of every epoch by their field's name."""
    weights = list(model.parameters())
    kind: Any = {"adamw": torch.optim.AdamW, "lion": Lion}[case.optimiser]
    groups = [
        {"params": [one for one in weights if one.ndim == 2], "weight_decay": DECAY},
        {"params": [one for one in weights if one.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = kind(groups, lr=RATE, betas=BETAS)
    low = torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16-mixed")
    train_split, validation_split = five(Strength(), "train"), five(Strength(), "validation")
    sampler, step, epochs = EpochSampler(5, BATCH, SEED), 0, []
    for epoch in range(EPOCHS):
        losses, norms = [], []
        sampler.set_epoch(epoch)
        model.train()
        for index, rows in enumerate(sampler):
            inputs, labels = train_split.inputs[rows], train_split.labels[rows]
            seed = mix(SEED, epoch, index)  # all that this step may draw from
            torch.manual_seed(seed)
            if case.augment:
                shares = torch.rand(len(rows), 1, generator=torch.Generator().manual_seed(seed))
                inputs = inputs * (1 + 0.5 * shares)
            with low:
                loss = cross_entropy(model(inputs), targets_of(labels, case.label_smoothing)) + penalty(model)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch says no more
            gradients = [one.grad for one in weights if one.grad is not None]
            norm = math.sqrt(sum(float(one.square().sum()) for one in gradients))
            if case.clip_norm and norm > case.clip_norm:
                for gradient in gradients:
                    gradient.mul_(case.clip_norm / norm)
            for group in optimiser.param_groups:
                group["lr"] = RATE * case.factor(step)
            optimiser.step()
            losses.append(loss.item())
            norms.append(norm)
            step += 1
        model.eval()
        with torch.no_grad(), low:
            logits = torch.cat([model(one) for one in torch.split(validation_split.inputs, BATCH)])
        labels = validation_split.labels
        epochs.append(
            {
                "epoch": epoch + 1,
                "epochs": EPOCHS,
                "validation": float((logits.argmax(dim=1) != labels).float().mean()),
                "train_loss": sum(losses) / STEPS,
                "validation_loss": float(cross_entropy(logits, targets_of(labels, 0.0))),
                "learning_rate": RATE * case.factor(step),  # of the step that would come next
                "gradient_norm": sum(norms) / STEPS,
            }
        )
    return epochs


@pytest.mark.parametrize("name", CASES)
def test_training_is_what_the_recipe_says_step_by_step(name: str, make_plan: MakePlan, catalog: Catalog) -> None:
    case = CASES[name]
    course = case.course(make_plan, catalog)
    told, subject = run(course)
    by_hand = start(course).module
    expected = replay(case, by_hand)
    assert len(told) == EPOCHS
    for one, numbers in zip(told, expected, strict=True):
        found = dataclasses.asdict(one)
        assert (found.pop("fit"), found.pop("purpose")) == ("blobs/tiny/blobs/0", "cell")
        assert 0 < found.pop("seconds") < 60
        assert found == pytest.approx(numbers, rel=1e-6, abs=1e-6)
    for key, weight in subject.module.state_dict().items():
        torch.testing.assert_close(weight, by_hand.state_dict()[key], rtol=1e-6, atol=1e-6)


def test_every_setting_of_a_recipe_leads_to_other_weights() -> None:
    """A replay whose cases came out alike would show nothing."""
    ends = {}
    for name, case in CASES.items():
        torch.manual_seed(0)
        model = Plain()
        replay(case, model)
        ends[name] = model.hidden.weight.detach()
    for name, end in ends.items():
        assert all((end - other).abs().max() > 1e-4 for key, other in ends.items() if key != name)


@pytest.mark.parametrize(("precision", "dtype"), [("32", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_a_budgets_precision_is_what_layers_compute_in_and_weights_stay_float32(
    make_plan: MakePlan, catalog: Catalog, precision: str, dtype: torch.dtype
) -> None:
    seen: set[tuple[bool, torch.dtype]] = set()

    def note(layer: nn.Module, given: tuple[Tensor, ...], yielded: Tensor) -> None:
        if given[0].any():  # zeros are what the shapes are looked at with before training
            seen.add((layer.training, yielded.dtype))

    course = Case(precision=precision).course(make_plan, catalog)
    subject = start(course)
    subject.module.get_submodule("hidden").register_forward_hook(note)
    train(course, subject, five(Strength(), "train"), five(Strength(), "validation"), lambda _: "go")
    assert seen == {(True, dtype), (False, dtype)}
    assert {weight.dtype for weight in subject.module.parameters()} == {torch.float32}


def test_an_epochs_seconds_are_those_of_training_alone(make_plan: MakePlan, catalog: Catalog) -> None:
    told, _ = run(Case().course(make_plan, catalog), pauses={True: 0.01, False: 0.15})
    for one in told:
        assert STEPS * 0.01 <= one.seconds < STEPS * 0.15  # validation takes as many passes
