"""Each rule catches the plugin that breaks it, and says which rule and what to do."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
import torchmetrics
from torch import Tensor, nn

from whitebench import (
    FloatRange,
    IntRange,
    Layout,
    MetricSpec,
    ModelSpec,
    ObjectiveSpec,
    Reading,
    Samples,
    Solution,
    TaskSpec,
    WhitebenchError,
)
from whitebench.samples import fingerprint_of
from whitebench.testing import check_metric, check_model, check_objective, check_task, items

# Models


class Net(nn.Module):
    """Keeps every rule."""

    def __init__(self, config: Config, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(shape[-1], config.width)
        self.blocks = nn.Sequential(nn.Linear(config.width, config.width), nn.Linear(config.width, config.width))
        self.head = nn.Linear(config.width, classes)
        self.eta = config.eta

    def forward(self, inputs: Tensor) -> Tensor:
        tokens: Tensor = self.blocks(self.embed(inputs.flatten(1, 2)))
        logits: Tensor = self.head(self.eta * tokens.mean(dim=1))
        return logits


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 4
    eta: float = 1.0


MODEL = ModelSpec(
    name="net",
    summary="",
    config=Config,
    build=Net,
    head="head",
    search={"eta": FloatRange(low=0.1, high=1.0)},
    penalty=lambda model: model.get_parameter("head.weight").square().sum(),
    trace={"tokens": "blocks.*", "weights": "blocks.*.weight:param"},
    layout=lambda _config, _shape: Layout(heads=2),
)


def test_a_model_that_keeps_the_rules_passes_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    check_model(MODEL)
    check_model(MODEL, shape=(2, 3, 5), classes=3, config=Config(width=6))
    assert torch.equal(torch.get_rng_state(), before)


def spoilt(forward: Callable[[Any, Tensor], Any], init: Callable[[Any], None] = lambda _: None) -> dict[str, Any]:
    """Return a change of the Spec to a Net with another forward, and something more in it."""

    class Spoilt(Net):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            init(self)

        def forward(self, inputs: Tensor) -> Any:
            return forward(super(), inputs)

    return {"build": Spoilt}


def refuses(*_: object) -> nn.Module:
    raise WhitebenchError("no images, please")


def state_elsewhere(net: Any) -> None:
    net.eta = float(torch.rand(()))


def unused(net: Any) -> None:
    net.spare = nn.Linear(2, 2)


def unseeded(_config: Config, shape: tuple[int, ...], classes: int) -> nn.Module:
    model = Net(Config(), shape, classes)
    model.head.bias.data = torch.randn(classes, generator=torch.Generator().manual_seed(torch.seed() % 2**32))
    return model


def returns_a_dict(net: Any, inputs: Tensor) -> object:
    return {"logits": net.forward(inputs)}


BROKEN_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "no module": ({"build": lambda *_: 3}, "build returned a int; return a torch.nn.Module"),
    "refuses the samples": ({"build": refuses}, r"build for samples of shape \(1, 8, 8\) raised .*no images, please"),
    "draws elsewhere": ({"build": unseeded}, "the same seed gave .'head.bias'. twice differently"),
    "a dict": (spoilt(returns_a_dict), r"forward gave dict; return logits \(6, 10\)"),
    "another shape": (spoilt(lambda net, x: net.forward(x)[:, :-1]), r"forward gave \(6, 9\); return logits \(6, 10\)"),
    "not finite": (spoilt(lambda net, x: net.forward(x) / 0), "logits are not all finite numbers"),
    "random": (spoilt(lambda net, x: net.forward(x) + torch.rand(())), "two evaluations differ; switch off"),
    "mixes the batch": (spoilt(lambda net, x: net.forward(x - x.mean(dim=0))), "a sample's logits depend on its batch"),
    "no such head": ({"head": "haed"}, "watching its head raised TraceError: .*did you mean 'head'"),
    "another head": ({"head": "embed"}, "watching its head raised TraceError: .*must be called once"),
    "not the last": (spoilt(lambda net, x: 2 * net.forward(x)), "head 'head' does not yield the logits"),
    "unused weight": (spoilt(lambda net, x: net.forward(x), unused), "spare.weight has no gradient; use it, or freeze"),
    "hidden state": (spoilt(lambda net, x: net.forward(x), state_elsewhere), "a copy with the same state gives other"),
    "penalty of samples": (
        {"penalty": lambda model: model.head.weight},
        r"penalty gave a tensor \(10, 4\); return a scalar tensor",
    ),
    "penalty not finite": ({"penalty": lambda model: model.head.weight.sum() / 0}, "penalty gave -?inf; mend"),
    "searches its size": (
        {"search": {"width": IntRange(low=2, high=9)}},
        "width=2: it has .* search nothing that sets",
    ),
    "searches in vain": (
        {"search": {"eta": FloatRange(low=-1, high=1)}, "config": None},
        "its config raised OptionError",
    ),
    "traces nothing": ({"trace": {"tokens": "block.*"}}, "tracing raised TraceError: .*did you mean 'blocks.*'"),
    "no layout": ({"layout": lambda *_: {"heads": 2}}, "layout gave a dict; return a Layout"),
    "heads": (
        {"trace": {"projections": "blocks.*"}, "layout": lambda *_: Layout(heads=3)},
        r"trace 'projections': it gave .* for 3 heads",
    ),
    "batch not first": (
        {"trace": lambda model, inputs: {"tokens": [torch.ones(2, len(inputs))]}},
        r"trace 'tokens': it gave \[\(2, 6\)\]; put the batch first",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Positive(Config):
    def __post_init__(self) -> None:
        if self.eta <= 0:
            raise WhitebenchError("eta must be above 0")


@pytest.mark.parametrize("broken", BROKEN_MODELS)
def test_a_model_that_breaks_a_rule_is_told_which_and_what_to_do(broken: str) -> None:
    change, message = BROKEN_MODELS[broken]
    change = {**change, "config": Positive} if "config" in change else change
    with pytest.raises(AssertionError, match=f"model 'net'.*{message}"):
        check_model(dataclasses.replace(MODEL, **change))


def test_what_is_the_same_for_any_samples_is_a_weight_and_needs_no_batch() -> None:
    check_model(dataclasses.replace(MODEL, trace=lambda model, _: {"forms": [model.get_parameter("head.weight")]}))


# Tasks


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No options."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    by: float = 1.0


def draw(_: object, split: str) -> Samples:
    generator = torch.Generator().manual_seed(len(split))
    return Samples(inputs=torch.randn(40, 1, 3, 3, generator=generator), labels=torch.arange(40) % 2)


MANIFEST: Any = {split: fingerprint_of(draw(None, split)) for split in ("train", "validation", "test")}
TASK = TaskSpec(
    name="toy", version=1, summary="", shape=(1, 3, 3), classes=2, data=draw, config=Nothing, manifest=MANIFEST,
    augment=lambda _, x, generator: x + torch.randn(x.shape, generator=generator),
)  # fmt: skip


def same_everywhere(_: object, _split: str) -> Samples:
    return draw(None, "train")


def never_twice(_: object, split: str) -> Samples:
    served = draw(None, split)
    return dataclasses.replace(served, inputs=served.inputs + torch.rand(()))


def one_class_unseen(_: object, split: str) -> Samples:
    served = draw(None, split)
    return served if split == "test" else dataclasses.replace(served, labels=torch.zeros(40, dtype=torch.int64))


def in_place(_: object, x: Tensor, generator: torch.Generator) -> Tensor:
    return x.add_(torch.randn(x.shape, generator=generator))


BROKEN_TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "shape": ({"shape": (1, 9)}, "split 'train': inputs are"),
    "bytes": ({"manifest": {**MANIFEST, "test": "0" * 64}}, "split 'test': the data served has sha256"),
    "half a manifest": (
        {"manifest": {"train": MANIFEST["train"]}},
        r"the manifest lacks .*; write manifest=\{\"train\": ",
    ),
    "no manifest": ({"manifest": {}}, "without options and without a manifest; write manifest="),
    "changing": ({"data": never_twice, "manifest": {}}, "split 'train': two calls served different bytes"),
    "test in training": (
        {"data": same_everywhere, "manifest": {}, "config": Scale},
        "40 of 40 test samples stand in another split as well",
    ),
    "unseen class": (
        {"data": one_class_unseen, "manifest": {}, "config": Scale},
        r"classes \[1\] are tested and never",
    ),
    "other shape": (
        {"augment": lambda _, x, __: x[..., :2]},
        r"augment: it made \(16, 1, 3, 2\), .* keep shape and type",
    ),
    "in place": ({"augment": in_place}, "augment: it changes the samples in place"),
    "global draws": ({"augment": lambda _, x, __: x + torch.randn(x.shape)}, "augment: it draws from elsewhere"),
}


def test_a_task_that_keeps_the_rules_passes() -> None:
    check_task(TASK)
    check_task(dataclasses.replace(TASK, manifest={}, config=Scale), config=Scale(by=2.0))
    check_task(dataclasses.replace(TASK, data=same_everywhere, manifest={}, config=Scale), most_shared=1.0)


def test_a_manifest_that_follows_from_the_options_is_whole_for_the_usual_ones() -> None:
    by_options = dataclasses.replace(TASK, config=Scale, manifest=lambda options: MANIFEST if options.by == 1 else {})
    check_task(by_options)
    check_task(by_options, config=Scale(by=2.0))
    half = dataclasses.replace(TASK, config=Scale, manifest=lambda _: {"train": MANIFEST["train"]})
    check_task(half, config=Scale(by=2.0))
    with pytest.raises(AssertionError, match=r"the manifest lacks \['validation', 'test'\]"):
        check_task(half)


@pytest.mark.parametrize("broken", BROKEN_TASKS)
def test_a_task_that_breaks_a_rule_is_told_which_and_what_to_do(broken: str) -> None:
    change, message = BROKEN_TASKS[broken]
    with pytest.raises(AssertionError, match=f"task 'toy'.*{message}"):
        check_task(dataclasses.replace(TASK, **change))


# Metrics


class Accuracy(torchmetrics.Metric):
    """Keeps every rule."""

    full_state_update = False
    right: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("right", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.right += (logits.argmax(dim=1) == labels).sum()
        self.count += len(labels)

    def compute(self) -> Any:
        return self.right / self.count


class OfWeights(torchmetrics.Metric):
    """Measures a weight, which comes with every batch, once."""

    full_state_update = False
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")

    def update(self, layers: list[Tensor]) -> None:
        self.rows = self.rows or [layer[:1] for layer in layers]

    def compute(self) -> Any:
        return sum(float(row.abs().mean()) for row in self.rows[:3])


class OfEveryWeight(OfWeights):
    """Adds up a weight as often as it comes."""

    def update(self, layers: list[Tensor]) -> None:
        self.rows += layers

    def compute(self) -> Any:
        return float(torch.cat(self.rows).abs().sum())


class OfBatches(Accuracy):
    """A mean of batches' means."""

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.right += (logits.argmax(dim=1) == labels).double().mean()
        self.count += 1


class Forgetful(Accuracy):
    """Merges nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("right", torch.zeros(()), dist_reduce_fx="max")


class Remembering(Accuracy):
    """Keeps something beside its states."""

    seen = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        super().update(logits, labels)
        self.seen += len(labels)

    def compute(self) -> Any:
        return self.right / self.seen


class Meddling(Accuracy):
    """Changes what it is given."""

    def update(self, logits: Tensor, labels: Tensor) -> None:
        logits.relu_()
        super().update(logits, labels)


class Silent(Accuracy):
    """Gives no number."""

    def compute(self) -> Any:
        return Reading(value=None, unscored="no reason to")


class Wordy(Accuracy):
    """Gives a text."""

    def compute(self) -> Any:
        return "high"


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == labels).float()


METRIC = MetricSpec(
    name="acc", version=1, summary="", direction="higher", needs=("logits", "labels"), per_sample=correct,
    build=lambda _: Accuracy(),
)  # fmt: skip

BROKEN_METRICS: dict[str, tuple[dict[str, Any], str]] = {
    "of batches": ({"build": lambda _: OfBatches()}, "in batches of 7 and at once acc differs: .*keep sums and counts"),
    "merging": ({"build": lambda _: Forgetful()}, "from two processes and from one acc differs: .*dist_reduce_fx"),
    "beside states": ({"build": lambda _: Remembering()}, "acc differs|is unscored"),
    "meddling": ({"build": lambda _: Meddling()}, "update changes what it is given"),
    "silent": ({"build": lambda _: Silent()}, "acc of random samples is unscored: no reason to"),
    "wordy": ({"build": lambda _: Wordy()}, "compute raised ValueError: .*return a number, a Reading"),
    "needs": ({"needs": ("logits",)}, "build or update raised TypeError"),
    "direction": ({"direction": "lower"}, "lower is better, but right answers give acc 1, wrong ones 0; turn its"),
    "per sample": ({"per_sample": lambda logits, _: logits.sum(dim=1)}, "per_sample's mean is .*, not"),
    "per sample's shape": ({"per_sample": lambda logits, _: logits}, r"per_sample gave \(130, 5\); return \(130,\)"),
}


def test_a_metric_that_keeps_the_rules_passes() -> None:
    check_metric(METRIC)
    check_metric(dataclasses.replace(METRIC, direction="none", per_sample=None))


def test_a_weight_comes_whole_with_every_batch_and_must_not_be_added_up() -> None:
    spec = dataclasses.replace(METRIC, needs=("subspaces",), direction="none", per_sample=None)
    check_metric(dataclasses.replace(spec, build=lambda _: OfWeights()))
    given = {"subspaces": (torch.ones(2, 3), torch.ones(4, 5), torch.ones(6, 7))}
    check_metric(dataclasses.replace(spec, build=lambda _: OfWeights()), given=given)
    with pytest.raises(AssertionError, match="in batches of 1 and at once acc differs"):
        check_metric(dataclasses.replace(spec, build=lambda _: OfEveryWeight()))


@pytest.mark.parametrize("broken", BROKEN_METRICS)
def test_a_metric_that_breaks_a_rule_is_told_which_and_what_to_do(broken: str) -> None:
    change, message = BROKEN_METRICS[broken]
    with pytest.raises(AssertionError, match=f"metric 'acc'.*({message})"):
        check_metric(dataclasses.replace(METRIC, **change))


# Objectives


class Squared(nn.Module):
    """Keeps every rule."""

    def forward(self, logits: Tensor, targets: Tensor) -> Any:
        return (logits - targets).square().sum(dim=1)


class Whole(Squared):
    def forward(self, logits: Tensor, targets: Tensor) -> Any:
        return super().forward(logits, targets).mean()


class Contrast(Squared):
    def forward(self, logits: Tensor, targets: Tensor) -> Any:
        loss = super().forward(logits, targets)
        return loss + loss.mean()


class Exponential(Squared):
    def forward(self, logits: Tensor, targets: Tensor) -> Any:
        return -(logits.exp() / logits.exp().sum(dim=1, keepdim=True) * targets).sum(dim=1).log()


class Reward(Squared):
    def forward(self, logits: Tensor, targets: Tensor) -> Any:
        return -super().forward(logits, targets)


class Constant(Squared):
    def forward(self, logits: Tensor, targets: Tensor) -> Any:
        return super().forward(logits.detach(), targets)


def objective(module: type[nn.Module], **change: Any) -> ObjectiveSpec:
    facts: dict[str, Any] = {"name": "obj", "version": 1, "summary": "", "needs": ("logits", "targets")}
    return ObjectiveSpec(**{**facts, "build": lambda _options, _classes, _width: module(), "readout": "mean", **change})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (objective(Whole), r"forward gave \(\); return \(12,\), or set is_additive to False"),
        (objective(Squared, is_additive=False), r"forward gave \(12,\); return \(\), or set is_additive to True"),
        (objective(Contrast), "a sample's loss depends on its batch; set is_additive to False"),
        (objective(Exponential), "at values of 1e4: the loss is not a finite number; compute it from logarithms"),
        (objective(Reward), "right answers cost .*, wrong ones .*; return what is to be made small"),
        (objective(Constant), "backward raised RuntimeError"),
        (objective(Squared, needs=("targets",)), "it needs nothing that the model makes"),
        (objective(Squared, needs=("features", "targets")), "forward raised RuntimeError: .*take features, targets in"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_objective_that_breaks_a_rule_is_told_which_and_what_to_do(spec: ObjectiveSpec, message: str) -> None:
    with pytest.raises(AssertionError, match=f"objective 'obj'.*{message}"):
        check_objective(spec)


def test_an_objective_that_keeps_the_rules_passes() -> None:
    check_objective(objective(Squared))
    check_objective(objective(Whole, is_additive=False))


# Tasks that solve themselves


class Thrower(nn.Module):
    def throw(self, draws: Tensor) -> Tensor:
        return draws < 0.5


def coins(_: Config, module: nn.Module, block: int) -> Solution:
    right = module.throw(torch.rand(20, generator=torch.Generator().manual_seed(block))).double()  # type: ignore[operator]
    return Solution(draws=20, scores={"right": Reading(value=right.mean())}, per_sample={"right": right})


def spoilt_coins(**change: Any) -> Callable[..., Any]:
    return lambda *given: dataclasses.replace(coins(*given), **change)


def of_the_global_generator(config: Config, module: nn.Module, _: int) -> Solution:
    return coins(config, module, int(torch.randint(100, ())))


def of_no_block(config: Config, module: nn.Module, _: int) -> Solution:
    return coins(config, module, 0)


def raising(*_: object) -> Any:
    raise ValueError("no coins")


COINS = TaskSpec(name="coins", version=1, summary="", config=Config, solve=coins, asks=("throw",))


def test_a_task_that_solves_itself_and_keeps_the_rules_passes_and_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    check_task(COINS, contestant=Thrower())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("solve", "message"),
    [
        (lambda *_: 0.5, "task 'coins': solve returned a float; it must return a Solution"),
        (spoilt_coins(draws=0), "solve drew 0 problems; it must draw one or more"),
        (spoilt_coins(draws=21), r"'right' per sample is \(20,\); it must be one number a draw, \(21,\)"),
        (spoilt_coins(scores={"right": Reading(value=0.99)}), "right is 0.99, its mean over draws 0.*by another name"),
        (
            of_the_global_generator,
            "one block was solved twice, with other numbers; draw from a generator that the block",
        ),
        (of_no_block, "blocks 0 and 1 are the same draws; let block b be draws of its own"),
        (raising, "solve raised ValueError: no coins; let it take what its contestants build"),
    ],
)
def test_one_that_breaks_a_rule_is_told_which_and_what_to_do(solve: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_task(dataclasses.replace(COINS, solve=solve), contestant=Thrower())


def test_its_contestant_is_a_registered_model_with_the_methods_it_asks_for() -> None:
    with pytest.raises(AssertionError, match="task 'coins': no model has throw; give check_task a contestant"):
        check_task(COINS)


def test_a_model_without_a_head_is_built_and_no_more() -> None:
    bare = ModelSpec(name="thrower", summary="", config=Config, build=lambda *_: Thrower(), head="")
    check_model(bare)
    with pytest.raises(AssertionError, match="build returned a int"):
        check_model(dataclasses.replace(bare, build=cast("Any", lambda *_: 3)))


def test_what_tasks_yield_is_left_to_their_check() -> None:
    check_metric(MetricSpec(name="right", version=1, summary="", direction="higher", needs=("solution",)))


# The room itself


def test_items_are_everyone_s_specs_by_name() -> None:
    assert {"crate", "vit"} <= {spec.name for spec in items("model")}
    assert {"digits"} <= {spec.name for spec in items("task")}


@pytest.mark.slow
def test_the_rules_need_neither_a_test_framework_nor_a_trainer() -> None:
    code = (
        "import sys, whitebench.testing\n"
        "print([name for name in ('pytest', 'lightning', 'mlflow', 'optuna') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
