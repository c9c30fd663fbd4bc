"""Several devices in one fit: the numbers of one, each sample exactly once, one voice, one end."""

from __future__ import annotations

import dataclasses
import itertools
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.benchmark.test_launch import wait_until
from tests.conftest import person
from whitebench import group
from whitebench.budget import Budget, Limits
from whitebench.devices import refuse_idle, refuse_missing
from whitebench.errors import WhitebenchError
from whitebench.events import EpochEnded
from whitebench.feasibility import attempt
from whitebench.fit import PREDICTIONS, WEIGHTS, FitPlan, Fitted, Outcome, Pruned
from whitebench.kin import is_group_gone
from whitebench.launch import Launcher, wait_for
from whitebench.muster import Muster
from whitebench.rehearsal import pieces_that_fit, refuse_memory_of_batches, rehearsing
from whitebench.result import Failure, FailureKind, Score
from whitebench.store import Store
from whitebench.suite import Contestant

MakePlan = Callable[..., FitPlan]
Type = Callable[..., "subprocess.CompletedProcess[str]"]

GRAINS = '''
import os, signal, time
from dataclasses import dataclass
import torch
import torch.distributed as dist
from torch import nn
from whitebench import ModelSpec, NoOptions, ObjectiveSpec, Samples, TaskSpec, hookimpl


@dataclass(frozen=True, kw_only=True)
class Sizes:
    train: int = 97
    test: int = 361


def grains(config, split):
    """Noisy corners: class c is bright in one quarter of an 8 x 8 image."""
    size = {"train": config.train, "validation": 53, "test": config.test}[split]
    draw = torch.Generator().manual_seed({"train": 1, "validation": 2, "test": 3}[split])
    labels = torch.arange(size) % 4
    images = 0.3 * torch.rand(size, 1, 8, 8, generator=draw)
    for label, (row, column) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        images[labels == label, :, row:row + 4, column:column + 4] += 0.3
    return Samples(inputs=images, labels=labels)


def jitter(config, inputs, generator):
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator, device=inputs.device)


@dataclass(frozen=True, kw_only=True)
class Options:
    how: str = "none"
    most: int = 1_000


class Exact(nn.Module):
    """Two layers in float64; `how` says what befalls it, `most` how many samples its memory holds in training."""

    def __init__(self, config, shape, classes):
        super().__init__()
        self.config, self.steps = config, 0
        self.flat, self.hidden, self.act = nn.Flatten(), nn.Linear(64, 12), nn.Tanh()
        self.head = nn.Linear(12, classes)
        self.double()
        if config.how == "norm":
            self.norm = nn.BatchNorm1d(12)
        if config.how == "counts":
            self.register_buffer("seen", torch.zeros(()))

    def forward(self, images):
        assert len(images) > 0, "a stranger's model may not like this"
        if self.training:
            if len(images) > self.config.most:
                raise torch.OutOfMemoryError(f"{len(images)} samples")
            self.steps += 1
            if self.steps == 4 and dist.is_initialized() and dist.get_rank() == 1:
                self.befall()
            if self.config.how == "counts":
                self.seen += len(images)
        return self.head(self.act(self.hidden(self.flat(images.double()))))

    def befall(self):
        if self.config.how != "none":
            print("befell at", time.monotonic(), flush=True)
        if self.config.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config.how == "exit":
            os._exit(4)
        if self.config.how == "raise":
            raise RuntimeError("the second device broke")
        if self.config.how == "hang":
            time.sleep(600)


class Scatter(nn.Module):
    """How far features lie from the mean of their class: of the whole batch, whatever device its samples are on."""

    def __init__(self, config, classes, width):
        super().__init__()

    def forward(self, features, targets):
        targets = targets.to(features.dtype)
        means = targets.T @ features / targets.sum(0).clamp(min=1)[:, None]
        return (features - targets @ means).square().sum(1).mean() - means.square().sum()


def own(model):
    return 0.01 * model.hidden.weight.square().sum()


@hookimpl
def register_objectives():
    return [ObjectiveSpec(name="scatter", version=1, summary="of features", config=NoOptions, build=Scatter,
                          readout="nearest-subspace", needs=("features", "targets"), is_additive=False)]


@hookimpl
def register_tasks():
    return [TaskSpec(name="grains", version=1, summary="corners", shape=(1, 8, 8), classes=4, data=grains, config=Sizes,
                     augment=jitter)]


@hookimpl
def register_models():
    return [ModelSpec(name="exact", summary="float64", config=Options, build=Exact, head="head", penalty=own),
            ModelSpec(name="plain", summary="float64", config=Options, build=Exact, head="head"),
            ModelSpec(name="odd", summary="a penalty of the whole batch", config=Options, build=Exact, head="head",
                      penalty=own, is_penalty_additive=False)]
'''

SEEN = ("accuracy", "cross-entropy", "calibration-error", "coding-rate", "rate-reduction", "sparsity", "margin")
"""Of predictions, and of a look inside."""


@pytest.fixture(scope="module")
def grains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("grains") / "grains.py"
    file.write_text(GRAINS, encoding="utf-8")
    return file


@pytest.fixture
def plan_of(make_plan: MakePlan, plugin: Path, grains: Path) -> MakePlan:
    """Return a function that makes the plan of a fit: five epochs of two steps, of 24 samples and of one."""

    def plan(model: str = "exact", devices: int = 1, **changes: Any) -> FitPlan:
        given: dict[str, Any] = {
            "task": "grains[train=25]",
            "primary": "accuracy",
            "metrics": ("accuracy",),
            "budget": {"epochs": 5, "batch_size": 24},
            "contestant": Contestant(model=model, objective=changes.pop("objective", "cross-entropy")),
            "folder": f"{model}-{devices}",
        }
        return make_plan(model, plugins=[plugin, grains], devices=devices, **{**given, **changes})

    return plan


def run(launcher: Launcher, plan: FitPlan, stop_after: int | None = None) -> tuple[list[EpochEnded], Outcome | None]:
    """Run a fit to its end, or until it has told of so many epochs; return these and how it ended."""
    fit = launcher.start(plan)
    epochs: list[EpochEnded] = []
    try:
        while True:
            wait_for([fit], 1.0)
            said = fit.receive()
            if isinstance(said, Fitted | Pruned | Failure):
                return epochs, said
            if isinstance(said, EpochEnded):
                epochs.append(said)
                if len(epochs) == stop_after:
                    return epochs, None
            if said is not None:
                fit.answer("go")
    finally:
        fit.end()
        assert is_group_gone(fit.pid)


def fitted(launcher: Launcher, plan: FitPlan) -> tuple[list[EpochEnded], Fitted]:
    epochs, outcome = run(launcher, plan)
    assert isinstance(outcome, Fitted), outcome
    return epochs, outcome


def curve(epochs: Sequence[EpochEnded]) -> list[tuple[float, ...]]:
    return [(one.train_loss, one.validation_loss, one.validation, one.gradient_norm) for one in epochs]


def assert_same_training(plan: FitPlan, other: FitPlan, ours: list[EpochEnded], theirs: list[EpochEnded]) -> None:
    """Ten steps in float64: only the order of sums may differ."""
    for one, two in zip(curve(ours), curve(theirs), strict=True):
        assert one == pytest.approx(two, rel=1e-5, abs=1e-12)
    weights, expected = load_file(plan.folder / WEIGHTS), load_file(other.folder / WEIGHTS)
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-9, atol=1e-9)


def by_name(scores: Sequence[Score]) -> dict[str, Score]:
    return {one.name: one for one in scores}


def test_two_and_three_processes_measure_what_one_does_on_361_samples(launcher: Launcher, plan_of: MakePlan) -> None:
    given: dict[str, Any] = {
        "task": "grains", "metrics": SEEN, "budget": {"epochs": 1, "batch_size": 32}, "readouts": ("linear-probe",),
    }  # fmt: skip
    plans = {devices: plan_of("crate[dim=16,depth=2,heads=2,patch=4]", devices, **given) for devices in (1, 2, 3)}
    outcomes = {devices: fitted(launcher, plan)[1] for devices, plan in plans.items()}
    expected = by_name(outcomes[1].scores)
    predicted = load_file(plans[1].folder / PREDICTIONS)
    assert sum(bool(one.profile) for one in expected.values()) >= 4
    assert "accuracy/linear-probe" in expected
    for devices in (2, 3):
        found = by_name(outcomes[devices].scores)
        assert list(found) == list(expected)
        for name, score in expected.items():
            assert found[name].unscored == score.unscored
            assert found[name].value == pytest.approx(score.value, rel=1e-6, abs=1e-6)
            assert found[name].profile == pytest.approx(score.profile, rel=1e-6, abs=1e-6)
            assert found[name].nulls == pytest.approx(score.nulls, rel=1e-6, abs=1e-6)
        theirs = load_file(plans[devices].folder / PREDICTIONS)
        assert torch.equal(theirs["index"], torch.arange(361))
        assert torch.equal(theirs["labels"], predicted["labels"])
        torch.testing.assert_close(theirs["logits"], predicted["logits"], rtol=1e-5, atol=1e-5)
        assert outcomes[devices].test_samples == 361
        assert outcomes[devices].provenance.devices == devices
        costs = by_name(outcomes[devices].costs)
        hours, seconds = costs["device-hours"].value, costs["training-time"].value
        assert hours == pytest.approx((seconds or 0) * devices / 3600)


RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "augmented": {"augment": True, "mixup": 0.3, "label_smoothing": 0.1, "clip_norm": 0.2},
    "lion": {"optimiser": "lion"},
}


@pytest.mark.parametrize(
    ("recipe", "objective"),
    [("plain", "cross-entropy"), ("augmented", "cross-entropy"), ("lion", "cross-entropy"),
     ("plain", "mcr2"), ("augmented", "scatter")],
)  # fmt: skip
def test_two_processes_train_as_one_does(launcher: Launcher, plan_of: MakePlan, recipe: str, objective: str) -> None:
    one, two = (plan_of(devices=devices, recipe=RECIPES[recipe], objective=objective) for devices in (1, 2))
    assert_same_training(two, one, fitted(launcher, two)[0], fitted(launcher, one)[0])


@pytest.mark.parametrize(("begun", "ended"), [(2, 1), (1, 2)])
def test_a_fit_begun_on_some_devices_goes_on_with_others(
    launcher: Launcher, plan_of: MakePlan, begun: int, ended: int
) -> None:
    stopped, whole = plan_of(devices=begun), plan_of(folder="whole")
    run(launcher, stopped, stop_after=2)
    epochs, outcome = fitted(launcher, dataclasses.replace(stopped, devices=ended))
    assert outcome.provenance.resumed_from_epoch in (2, 3)  # it may have ended another epoch before it was stopped
    assert_same_training(stopped, whole, epochs, fitted(launcher, whole)[0])


def test_the_chosen_epoch_s_weights_are_those_that_all_processes_test(launcher: Launcher, plan_of: MakePlan) -> None:
    chosen = {"epochs": 5, "batch_size": 24, "report": "chosen"}
    one, two = (plan_of(devices=devices, budget=chosen) for devices in (1, 2))
    expected, found = fitted(launcher, one)[1], fitted(launcher, two)[1]
    assert found.reported_epoch == expected.reported_epoch
    assert by_name(found.scores)["accuracy"].value == by_name(expected.scores)["accuracy"].value
    torch.testing.assert_close(load_file(two.folder / WEIGHTS), load_file(one.folder / WEIGHTS), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kinds", list(itertools.permutations([torch.float64, torch.bfloat16, torch.float32])))
def test_gradients_of_several_types_are_added_up_in_an_order_that_all_processes_share(
    kinds: Sequence[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[torch.dtype] = []
    monkeypatch.setattr(group, "size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda total: met.append(total.dtype))
    group.add_up_gradients([torch.nn.Parameter(torch.zeros(2, dtype=kind)) for kind in kinds])
    assert met == list(kinds)


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("kill", FailureKind.KILLED, "process 1 of the fit's 2 was ended by SIGKILL"),
        ("exit", FailureKind.EXIT, "process 1 of the fit's 2 exited with code 4 before it was done"),
        ("raise", FailureKind.ERROR, "RuntimeError: the second device broke"),
    ],
)
def test_a_process_that_dies_takes_its_group_along_within_ten_seconds(
    launcher: Launcher, plan_of: MakePlan, how: str, kind: FailureKind, message: str
) -> None:
    plan = plan_of(f"exact[how={how}]", 2)
    _, outcome = run(launcher, plan)
    assert time.monotonic() - float(told_in(plan, r"befell at (\S+)")) < 10.0
    assert isinstance(outcome, Failure)
    assert outcome.kind is kind
    assert outcome.message.startswith(message)


def test_a_process_that_hangs_stalls_its_group_and_the_log_says_where(launcher: Launcher, plan_of: MakePlan) -> None:
    plan = plan_of("exact[how=hang]", 2, limits=Limits(stall_minutes=1 / 60))
    fit = launcher.start(plan)
    while not told_in(plan, r"befell at (\S+)"):
        if fit.receive() is not None:
            fit.answer("go")
        time.sleep(0.05)
    while (failure := fit.fault()) is None:
        time.sleep(0.05)
    fit.end()
    assert failure.kind is FailureKind.STALLED
    assert "in befall" in plan.log.read_text(encoding="utf-8")
    assert is_group_gone(fit.pid)


def told_in(plan: FitPlan, pattern: str) -> str:
    found = re.search(pattern, plan.log.read_text(encoding="utf-8")) if plan.log.exists() else None
    return found[1] if found else ""


def test_pruning_stops_all_processes_together(launcher: Launcher, plan_of: MakePlan) -> None:
    fit = launcher.start(plan_of(devices=2, purpose="trial"))
    while not isinstance(fit.receive(), EpochEnded):
        wait_for([fit], 1.0)
    fit.answer("prune")
    outcome = None
    while outcome is None:
        wait_for([fit], 1.0)
        outcome = fit.receive()
    fit.end()
    assert outcome == Pruned(epoch=1)
    assert is_group_gone(fit.pid)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_share_that_memory_does_not_hold_is_taken_in_pieces_and_this_is_recorded(
    launcher: Launcher, plan_of: MakePlan, devices: int
) -> None:
    limits = Limits(memory_gib=64.0)
    small = plan_of("exact[most=5]", devices, limits=limits)
    epochs, outcome = fitted(launcher, small)
    assert outcome.provenance.pieces == {1: 8, 2: 4}[devices]  # of 24 and 12 samples: three at a time
    large = plan_of()
    assert_same_training(small, large, epochs, fitted(launcher, large)[0])


@pytest.mark.parametrize(
    ("model", "objective", "kind", "message"),
    [
        ("exact[most=0]", "cross-entropy", FailureKind.OOM, "OutOfMemoryError: 1 samples"),
        ("exact[most=5]", "scatter", FailureKind.OOM, "OutOfMemoryError: 24 samples"),
        ("exact[how=counts]", "cross-entropy", None, ""),
        (
            "exact[how=counts,most=5]",
            "cross-entropy",
            FailureKind.CONFIG,
            "model .*: each training step changes 'seen'",
        ),
        (
            "exact[how=norm,most=5]",
            "cross-entropy",
            FailureKind.CONFIG,
            "model .*: 'norm' normalises by the statistics",
        ),
    ],
)
def test_what_cannot_be_taken_in_pieces_is_not(
    launcher: Launcher, plan_of: MakePlan, model: str, objective: str, kind: FailureKind | None, message: str
) -> None:
    _, outcome = run(launcher, plan_of(model, objective=objective, limits=Limits(memory_gib=64.0), purpose="trial"))
    if kind is None:
        assert isinstance(outcome, Fitted)
        return
    assert isinstance(outcome, Failure)
    assert outcome.kind is kind
    assert re.match(message, outcome.message)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "exact[how=norm]",
            "model exact.* on task grains.*: 'norm' normalises by the statistics of the whole batch, so",
        ),
        (
            "odd",
            "model odd on task grains.*: its penalty is of the whole batch and no mean over samples, so that several",
        ),
        ("exact[how=counts]", "model exact.*: each training step changes 'seen', so that several devices"),
    ],
)
def test_what_several_devices_would_train_otherwise_is_refused_before_the_first_step(
    launcher: Launcher, plan_of: MakePlan, model: str, message: str
) -> None:
    epochs, outcome = run(launcher, plan_of(model, 2))
    assert isinstance(outcome, Failure)
    assert (epochs, outcome.kind) == ([], FailureKind.CONFIG)
    assert re.match(message, outcome.message)


def test_what_cannot_be_shared_is_refused_before_anything_is_started(launcher: Launcher, plan_of: MakePlan) -> None:
    plans = [plan_of("exact[how=norm]", devices, folder=f"asked-{devices}") for devices in (1, 2)]
    alone, shared = launcher.ask(attempt, plans, seconds=60)
    assert alone is None
    assert shared is not None
    assert shared.message.endswith("run it with --devices 1, and the others with -m")


def test_more_devices_than_samples_are_refused_by_the_split_s_name(launcher: Launcher, plan_of: MakePlan) -> None:
    _, outcome = run(launcher, plan_of(devices=3, task="grains[train=25,test=2]"))
    assert isinstance(outcome, Failure)
    assert outcome.message == (
        "task grains[train=25,test=2] serves 2 samples for test, fewer than the 3 devices: take fewer"
    )


BUDGET = Budget(epochs=1, batch_size=8, trials=0)


def gpus(patch: pytest.MonkeyPatch, count: int) -> None:
    for module, name in ((torch.cuda, "is_available"), (torch.accelerator, "is_available")):
        patch.setattr(module, name, lambda: count > 0)
    patch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "devices", "accelerator", "message"),
    [
        (0, 1, "gpu", "--accelerator gpu: torch sees no GPU here; `whitebench doctor` says why"),
        (2, 3, "auto", "--devices 3: torch sees 2 GPUs here; take as many, or train on the processor with"),
        (1, 2, "gpu", "--devices 2: torch sees 1 GPU here; take as many"),
    ],
)
def test_devices_that_are_not_here_are_refused(
    monkeypatch: pytest.MonkeyPatch, count: int, devices: int, accelerator: Any, message: str
) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(WhitebenchError, match=message):
        refuse_missing(devices, accelerator)


def test_devices_that_would_have_no_sample_of_a_batch_are_refused() -> None:
    refuse_idle(8, BUDGET)
    with pytest.raises(WhitebenchError, match="9 devices: the suite's batches of 8 samples leave some without any"):
        refuse_idle(9, BUDGET)


@pytest.mark.parametrize(
    ("count", "devices", "accelerator"),
    [(0, 1, "auto"), (0, 8, "auto"), (0, 2, "cpu"), (1, 2, "cpu"), (1, 1, "gpu"), (2, 2, "auto"), (4, 2, "gpu")],
)
def test_devices_that_are_here_are_taken(
    monkeypatch: pytest.MonkeyPatch, count: int, devices: int, accelerator: Any
) -> None:
    gpus(monkeypatch, count)
    refuse_missing(devices, accelerator)


TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "first",
    "MASTER_PORT": "29500",
}  # fmt: skip
SRUN = {
    "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "6", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
    "SLURM_STEP_NODELIST": "gpu[03-04,11],login", "SLURM_JOB_ID": "123456",
}  # fmt: skip


def test_torchrun_s_and_slurm_s_words_are_understood() -> None:
    assert Muster.read(TORCHRUN) == Muster(
        member=5, members=8, local_member=1, local_members=4, address="first", port=29500
    )
    assert Muster.read(SRUN) == Muster(
        member=3, members=6, local_member=1, local_members=2, address="gpu03", port=23456
    )
    assert Muster.read({**SRUN, "SLURM_STEP_NODELIST": "a1,a2"}) is not None


@pytest.mark.parametrize(
    "environment",
    [{}, {**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}, {"RANK": "1"}, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}],
)
def test_who_was_started_alone_is_no_crew(environment: dict[str, str]) -> None:
    assert Muster.read(environment) is None


def test_a_crew_s_devices_are_those_that_were_started() -> None:
    each, machine = Muster.read(TORCHRUN), Muster.read({**TORCHRUN, "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"})
    assert each is not None
    assert machine is not None
    assert [each.devices_each(*asked) for asked in ((None, None), (4, None), (4, 2))] == [1, 1, 1]
    assert [machine.devices_each(*asked) for asked in ((None, None), (2, None), (2, 8))] == [1, 2, 2]
    with pytest.raises(WhitebenchError, match="--devices 3: 4 processes were started on each machine"):
        each.devices_each(3, None)
    with pytest.raises(WhitebenchError, match="--num-nodes 4: the command was started on 2"):
        each.devices_each(None, 4)
    with pytest.raises(WhitebenchError, match="SLURM has started 2,1 processes on its machines"):
        Muster.read({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "2,1"})


def short_of_memory_above(most: int, taken: list[int]) -> Callable[[int], None]:
    def step(samples: int) -> None:
        taken.append(samples)
        if samples > most:
            raise torch.OutOfMemoryError(f"{samples} samples")

    return step


def test_pieces_are_halved_until_they_fit() -> None:
    taken: list[int] = []
    assert pieces_that_fit(short_of_memory_above(3, taken), 10, most=10) == 4
    assert taken == [10, 5, 3]
    assert pieces_that_fit(short_of_memory_above(1, []), 5, most=5) == 5
    assert pieces_that_fit(short_of_memory_above(5, []), 5, most=1) == 1
    with pytest.raises(torch.OutOfMemoryError, match="1 samples"):
        pieces_that_fit(short_of_memory_above(0, []), 5, most=5)
    with pytest.raises(ZeroDivisionError):
        pieces_that_fit(lambda samples: samples // 0, 5, most=5)


def test_a_rehearsal_leaves_no_trace() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with rehearsing(model, list(model.parameters())):
        model(torch.randn(5, 3)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    with pytest.raises(WhitebenchError, match=r"net: each training step changes '1\.running_mean'"):
        refuse_memory_of_batches("net", model, lambda: model(torch.randn(5, 3)))


def test_alone_everything_is_one_s_own() -> None:
    samples = torch.arange(10).reshape(5, 2)
    assert group.share(samples) is samples
    assert group.whole(samples, 5) is samples
    assert group.whole_with_gradient(samples, 5) is samples
    assert [batch.tolist() for batch in group.batches(samples[:, 0], 2)] == [[0, 2], [4, 6], [8]]
    assert (group.share_of(5), group.largest_share(5), group.rows(2, 2)) == (5, 5, slice(2, 4, 1))
    assert group.add_up(1.5, 2.0) == (1.5, 2.0)
    assert (group.first_says(lambda: 3), group.everyone_says("x"), group.is_first()) == (3, ["x"], True)
    with pytest.raises(KeyError), group.all_or_none():
        raise KeyError


GRID = """
name = "grains"
version = 1
summary = "Corners."
primary = "accuracy"
tasks = ["grains[train=25]"]
seeds = 1
metrics = ["accuracy"]

[budget]
epochs = 5
batch_size = 24
trials = 0

[recipes.plain]
learning_rate = { value = 0.01 }

[[contestants]]
label = "ill"
model = "exact[how=kill]"

[[contestants]]
label = "well"
model = "exact"
"""


@pytest.mark.slow
def test_under_torchrun_the_same_command_joins_its_group_and_outlives_a_fit_that_dies(
    type_in: Type, grains: Path, tmp_path: Path
) -> None:
    (tmp_path / "grains.toml").write_text(GRID, encoding="utf-8")
    command = ("whitebench", "run", "grains.toml", "--plugin", str(grains), "--devices", "2", "--accelerator", "cpu")
    done = type_in("torchrun", "--nproc-per-node", "2", "--no-python", *command)
    assert "grains/ill/grains[train=25]/0: failed: killed: the fit's process was ended by SIGKILL" in done.stdout
    assert done.stdout.count("1 of 2 cells done") == 1  # one speaks
    ill, well = sorted(Store(f"sqlite:///{tmp_path}/whitebench.db").cells("grains", ""), key=lambda one: one.state)
    assert (ill.state, well.state) == ("failed", "finished")


@pytest.mark.slow
def test_a_job_s_end_that_tells_every_process_lets_the_shared_fit_end_its_epoch_and_fails_nothing(
    grains: Path, tmp_path: Path
) -> None:
    (tmp_path / "grains.toml").write_text(GRID, encoding="utf-8")
    whitebench = str(Path(sys.executable).with_name("whitebench"))
    command = [whitebench, "run", "grains.toml", "--plugin", str(grains), "-m", "well", "--accelerator", "cpu"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    runs = []
    for rank in ("0", "1"):
        place = {**meeting, "LOCAL_WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}
        with (tmp_path / f"said-{rank}").open("w") as said:
            runs.append(
                subprocess.Popen(
                    [*command, "--set", "budget.epochs=2000"], cwd=tmp_path, env=person(place), stdout=said, stderr=said
                )
            )
    wait_until(lambda: "/0: started" in (tmp_path / "said-0").read_text(encoding="utf-8"), 120.0)
    time.sleep(3.0)
    for run in runs[::-1]:
        run.terminate()
    codes = [run.wait(60.0) for run in runs]
    assert codes == [130, 0], (tmp_path / "said-0").read_text(encoding="utf-8")
    [cell] = Store(f"sqlite:///{tmp_path}/whitebench.db").cells("grains", "budget.epochs=2000")
    assert cell.state == "interrupted"
