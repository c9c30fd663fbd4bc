"""A fit's training: the same digits every time, interrupted or not."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from whitebench import pulse
from whitebench.catalog import Catalog
from whitebench.course import Course, build, resolve
from whitebench.errors import DivergedError, MetricError, TraceError
from whitebench.evaluation import Subject
from whitebench.events import EpochEnded
from whitebench.fit import Answer, FitPlan, Message
from whitebench.samples import load_samples
from whitebench.seeds import seed_everything
from whitebench.specs import Samples, Split
from whitebench.training import Trained, train

MakePlan = Callable[..., FitPlan]
FOUR = {"epochs": 4}


class StopError(Exception):
    """Stands for whatever ends a fit's process."""


def run(plan: FitPlan, catalog: Catalog, hear: Callable[[Message], Answer] = lambda _: "go") -> tuple[Trained, Subject]:
    course = resolve(plan, catalog)
    seed_everything(plan.seed)
    subject = build(course)
    return train(course, subject, split(course, "train"), split(course, "validation"), hear), subject


def split(course: Course, name: Split) -> Samples:
    return load_samples(course.task, course.task_config, name)[0]


def stop_at(epoch: int) -> Callable[[Message], Answer]:
    def hear(message: Message) -> Answer:
        assert isinstance(message, EpochEnded)
        if message.epoch == epoch:
            raise StopError
        return "go"

    return hear


def numbers(history: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in dataclasses.asdict(one).items() if key != "seconds"} for one in history]


def weights(subject: Subject) -> dict[str, list[float]]:
    return {name: weight.flatten().tolist() for name, weight in subject.module.state_dict().items()}


def test_the_same_plan_twice_gives_the_same_digits(make_plan: MakePlan, catalog: Catalog) -> None:
    torch.rand(3)  # what happened before in the process does not matter
    once, first = run(make_plan(folder="a"), catalog)
    twice, second = run(make_plan(folder="b"), catalog)
    assert weights(first) == weights(second)
    assert numbers(once.history) == numbers(twice.history)


def test_seeding_is_that_of_torch_whatever_the_machine_has() -> None:
    seed = seed_everything(3, 1, 4)
    drawn = torch.rand(5)
    torch.manual_seed(seed)
    assert torch.equal(drawn, torch.rand(5))


def test_another_seed_gives_other_digits(make_plan: MakePlan, catalog: Catalog) -> None:
    assert weights(run(make_plan(folder="a"), catalog)[1]) != weights(run(make_plan(folder="b", seed=1), catalog)[1])


@pytest.mark.parametrize("report", ["last", "chosen"])
@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_a_resumed_fit_ends_bit_identical_to_an_undisturbed_one(
    make_plan: MakePlan, catalog: Catalog, epoch: int, report: str, *, augment: bool
) -> None:
    settings: dict[str, Any] = {"budget": {**FOUR, "report": report}, "recipe": {"augment": augment}}
    whole, undisturbed = run(make_plan(folder="whole", **settings), catalog)
    with pytest.raises(StopError):
        run(make_plan(folder="broken", **settings), catalog, stop_at(epoch))
    resumed, subject = run(make_plan(folder="broken", **settings), catalog)
    assert resumed.resumed_from_epoch == epoch
    assert weights(subject) == weights(undisturbed)
    assert numbers(resumed.history) == numbers(whole.history)
    assert resumed.reported_epoch == whole.reported_epoch


def test_a_fit_interrupted_again_and_again_still_ends_the_same(make_plan: MakePlan, catalog: Catalog) -> None:
    _, undisturbed = run(make_plan(folder="whole", budget=FOUR), catalog)
    for epoch in (1, 2, 3):
        with pytest.raises(StopError):
            run(make_plan(folder="broken", budget=FOUR), catalog, stop_at(epoch))
    assert weights(run(make_plan(folder="broken", budget=FOUR), catalog)[1]) == weights(undisturbed)


def test_a_resumed_fit_tells_the_epochs_of_its_earlier_life_again(make_plan: MakePlan, catalog: Catalog) -> None:
    told: list[Message] = []

    def hear(message: Message) -> Answer:
        told.append(message)
        return "go"

    run(make_plan(), catalog)
    run(make_plan(name="blobs/renamed/blobs/0"), catalog, hear)  # at its last epoch already
    assert [(one.fit, one.epoch) for one in told if isinstance(one, EpochEnded)] == [
        ("blobs/renamed/blobs/0", 1),
        ("blobs/renamed/blobs/0", 2),
    ]


def test_a_trial_told_to_prune_stops_and_does_so_again_after_a_kill(make_plan: MakePlan, catalog: Catalog) -> None:
    def prune(message: Message) -> Answer:
        return "prune" if isinstance(message, EpochEnded) and message.epoch == 2 else "go"

    for _ in range(2):
        trained, _ = run(make_plan(budget=FOUR), catalog, prune)
        assert (trained.is_pruned, len(trained.history)) == (True, 2)


def test_a_checkpoint_that_cannot_be_read_starts_the_fit_over(make_plan: MakePlan, catalog: Catalog) -> None:
    _, undisturbed = run(make_plan(folder="whole"), catalog)
    plan = make_plan(folder="broken")
    checkpoint = plan.folder / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"half a checkpoint")
    trained, subject = run(plan, catalog)
    assert trained.resumed_from_epoch is None
    assert weights(subject) == weights(undisturbed)


def test_the_chosen_epoch_is_the_first_of_those_that_validation_likes_best(
    make_plan: MakePlan, catalog: Catalog
) -> None:
    trained, _ = run(make_plan(budget={"epochs": 8, "report": "chosen"}), catalog)
    values = [one.validation for one in trained.history]
    assert trained.reported_epoch == values.index(min(values)) + 1  # `error`: lower is better
    assert trained.reported_epoch < 8


def test_every_epoch_sees_other_batches(make_plan: MakePlan, catalog: Catalog) -> None:
    # Where weights do not move, the mean loss of the batches (16, 16, 16, 12) depends on how they were cut.
    still = {"learning_rate": 1e-30, "weight_decay": 0.0}
    plan = make_plan("tiny[rate=0.0]", budget=FOUR, hyperparameters=still)
    losses = [one.train_loss for one in run(plan, catalog)[0].history]
    assert len(set(losses)) == 4


def test_a_models_own_penalty_is_part_of_the_loss(make_plan: MakePlan, catalog: Catalog) -> None:
    def shrinkage(model: str) -> float:
        _, subject = run(make_plan(model, folder=model, budget={"epochs": 10}), catalog)
        hidden = subject.module.get_submodule("hidden").weight
        assert isinstance(hidden, torch.Tensor)
        return float(hidden.detach().norm())

    assert shrinkage("penalised") < 0.7 * shrinkage("tiny")


def test_a_loss_that_is_no_number_names_its_step_and_the_last_finite_loss(
    make_plan: MakePlan, catalog: Catalog
) -> None:
    when = r"the loss is nan in epoch 1, step 2 \(last finite loss: [0-9.]+\): "
    with pytest.raises(DivergedError, match=f"{when}taken again, the same step is finite"):  # this model counts steps
        run(make_plan("faulty[how=nan]"), catalog)


def spoil(subject: Subject, layer: str, *, step: int, training: bool = True) -> None:
    """Let a layer give NaN from its `step`-th training pass on, or whenever it is validated."""
    passes = 0

    def hook(module: torch.nn.Module, _given: object, output: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += module.training
        return output * float("nan") if module.training is training and passes >= step else output

    subject.module.get_submodule(layer).register_forward_hook(hook)


def diverge(plan: FitPlan, catalog: Catalog, layer: str, **spoiling: Any) -> str:
    course = resolve(plan, catalog)
    seed_everything(plan.seed)
    subject = build(course)
    spoil(subject, layer, **spoiling)
    with pytest.raises(DivergedError) as raised:
        train(course, subject, split(course, "train"), split(course, "validation"), lambda _: "go")
    return str(raised.value)


def test_a_loss_that_is_no_number_names_the_layer_it_came_from(make_plan: MakePlan, catalog: Catalog) -> None:
    said = diverge(make_plan(), catalog, "act", step=6)
    assert said.startswith("the loss is nan in epoch 2, step 6 (last finite loss: ")
    assert said.endswith("): the first layer whose output is not finite is 'act', a ReLU")


def test_a_validation_loss_that_is_no_number_names_its_epoch_and_the_layer(
    make_plan: MakePlan, catalog: Catalog
) -> None:
    said = diverge(make_plan(), catalog, "hidden", step=8, training=False)
    assert said.startswith("the validation loss is nan after epoch 2 (last finite loss: ")
    assert said.endswith("): the first layer whose output is not finite is 'hidden', a Linear")


def test_a_penalty_that_is_no_number_is_named(make_plan: MakePlan, catalog: Catalog) -> None:
    course = resolve(make_plan("penalised"), catalog)
    spec = dataclasses.replace(course.model, penalty=lambda model: next(model.parameters()).sum() * float("inf"))
    course = dataclasses.replace(course, model=spec)
    subject = build(course)
    with pytest.raises(DivergedError, match="the output of every layer is finite, the model's penalty is not"):
        train(course, subject, split(course, "train"), split(course, "validation"), lambda _: "go")


def test_inputs_that_their_augmentation_spoilt_are_named(make_plan: MakePlan, catalog: Catalog) -> None:
    course = resolve(make_plan(recipe={"augment": True}), catalog)
    task = dataclasses.replace(course.task, augment=lambda config, inputs, generator: inputs / 0)
    course = dataclasses.replace(course, task=task)
    subject = build(course)
    with pytest.raises(DivergedError, match="what the model is given is not finite already: look at the task's"):
        train(course, subject, split(course, "train"), split(course, "validation"), lambda _: "go")


def test_a_step_that_would_make_every_weight_nan_is_seen_at_the_last_step_too(
    make_plan: MakePlan, catalog: Catalog
) -> None:
    plan = make_plan(budget={"epochs": 1, "batch_size": 60})  # a single step
    course = resolve(plan, catalog)
    subject = build(course)
    weight = next(subject.module.get_submodule("head").parameters())
    weight.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[no-untyped-call]  # torch says no more
    with pytest.raises(DivergedError, match=r"the gradient norm is inf in epoch 1, step 1 .*'head.weight' \(1 of 4"):
        train(course, subject, split(course, "train"), split(course, "validation"), lambda _: "go")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("error-raises", "metric 'error-raises' raised ValueError: cannot take this"),
        ("error-mute", "metric 'error-mute' raised ValueError: cannot say"),
        ("error-nan", "metric 'error-nan' gives nothing to rank by: the value is nan"),
        (
            "error-parts",
            "metric 'error-parts' gives nothing to rank by: it computes error-parts/one, none called by its name",
        ),
    ],
)
def test_a_primary_metric_that_gives_no_number_ends_the_fit(
    make_plan: MakePlan, catalog: Catalog, metric: str, message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        run(make_plan(primary=metric), catalog)


def test_a_trace_that_names_no_module_is_refused_before_training(make_plan: MakePlan, catalog: Catalog) -> None:
    def never(_: Message) -> Answer:
        raise AssertionError("it trained")

    with pytest.raises(TraceError, match=r"no module matches 'blocks\.\*'"):
        run(make_plan("blind", metrics=("depths",)), catalog, never)


def test_every_step_and_every_validation_batch_is_a_sign_of_life(
    make_plan: MakePlan, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[int] = []
    monkeypatch.setattr(pulse, "_listeners", [lambda: beats.append(1)])
    run(make_plan(), catalog)
    assert len(beats) == 2 * (4 + 2)  # two epochs of 60 and 30 samples in batches of 16


def test_training_leaves_the_handlers_of_signals_as_they_are(make_plan: MakePlan, catalog: Catalog) -> None:
    seen: list[Any] = []
    before = signal.getsignal(signal.SIGTERM)

    def look(_: Message) -> Answer:
        seen.append(signal.getsignal(signal.SIGTERM))
        return "go"

    run(make_plan(), catalog, look)
    assert [*seen, signal.getsignal(signal.SIGTERM)] == [before] * 3


def test_an_epoch_that_was_told_is_on_disk(make_plan: MakePlan, catalog: Catalog) -> None:
    plan = make_plan()

    def look(message: Message) -> Answer:
        assert isinstance(message, EpochEnded)
        state = torch.load(plan.folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert [one["epoch"] for one in state["history"]] == list(range(1, message.epoch + 1))
        json.dumps(state["history"], allow_nan=False)
        return "go"

    run(plan, catalog, look)
    assert Path(plan.folder / "checkpoints" / "chosen.ckpt").exists()


def test_a_fit_with_erasing_and_mixup_resumes_to_the_same_digits(make_plan: MakePlan, catalog: Catalog) -> None:
    changes: dict[str, Any] = {"recipe": {"erasing": 0.5, "mixup": 0.2}, "budget": {"epochs": 4}}
    undisturbed, model = run(make_plan(folder="whole", **changes), catalog)
    plan = make_plan(folder="cut", **changes)
    with pytest.raises(StopError):
        run(plan, catalog, stop_at(2))
    resumed, again = run(plan, catalog)
    assert numbers(resumed.history) == numbers(undisturbed.history)
    assert weights(again) == weights(model)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU: install g++")
def test_compiled_steps_train_as_others_do_up_to_rounding(make_plan: MakePlan, catalog: Catalog) -> None:
    plain, model = run(make_plan(folder="plain", model="tiny[rate=0]"), catalog)
    compiled, other = run(make_plan(folder="compiled", model="tiny[rate=0]", budget={"compile": True}), catalog)
    assert compiled.history[-1].train_loss == pytest.approx(plain.history[-1].train_loss, rel=1e-4)
    for name, weight in model.module.state_dict().items():
        torch.testing.assert_close(other.module.state_dict()[name], weight, rtol=1e-3, atol=1e-4)
