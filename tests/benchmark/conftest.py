"""A world of three blobs and models of two layers, as a stranger's plugin file would bring it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from whitebench.budget import Budget
from whitebench.catalog import Catalog, load_catalog
from whitebench.fit import FitPlan
from whitebench.launch import Launcher
from whitebench.recipe import Recipe, Tuned
from whitebench.store import Store
from whitebench.suite import Contestant

PLUGIN = '''
import ctypes, multiprocessing, os, re, signal, subprocess, sys, time
from dataclasses import dataclass
import numpy, torch, torchmetrics
from torch import nn
from whitebench import (FloatRange, MetricSpec, ModelSpec, ObjectiveSpec, Picture, Reading, ReadoutSpec, Samples,
                        Solution, TaskSpec, WhitebenchError, hookimpl)


@dataclass(frozen=True, kw_only=True)
class Width:
    width: int = 8
    rate: float = 0.2


class Tiny(nn.Sequential):
    """Two layers with dropout, which draws from torch, and a kick of numpy's own generator."""

    def __init__(self, config, shape, classes):
        super().__init__()
        self.flat, self.hidden, self.act = nn.Flatten(), nn.Linear(4, config.width), nn.ReLU()
        self.drop, self.head = nn.Dropout(config.rate), nn.Linear(config.width, classes)

    def forward(self, x):
        kick = numpy.random.rand() * 0.01 if self.training else 0.0
        return super().forward(x) + kick


@dataclass(frozen=True, kw_only=True)
class Fault:
    how: str = "none"
    mark: str = ""


def misbehave(fault):
    how, mark = fault.how, fault.mark
    if how == "raise":
        raise RuntimeError("the model broke")
    if how == "exit":
        sys.exit(3)
    if how == "os-exit":
        os._exit(4)
    if how == "kill":
        print("last words")
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "oom":
        torch.empty(10**15)
    if how == "config":
        raise WhitebenchError("a width of 7 cannot be had")
    if how == "import":
        import a_library_nobody_has
    if how == "hang":
        time.sleep(600)
    if how == "grab":  # a regular expression gone wild holds the interpreter's lock
        re.match(r"(a+)+$", "a" * 60 + "b")
    if how == "orphan":
        child = subprocess.Popen(["sleep", "600"])
        open(mark, "w").write(str(child.pid))
    if how == "workers":  # a model or a task may want processes of its own
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.map(abs, [-1]) == [1]


class Faulty(Tiny):
    def __init__(self, config, shape, classes):
        super().__init__(Width(), shape, classes)
        self.fault, self.steps = config, 0

    def forward(self, x):
        if self.training:
            self.steps += 1
            if self.steps == 2:  # not the first: there shall be a finite loss before
                misbehave(self.fault)
            if self.steps == 2 and self.fault.how == "nan":
                return super().forward(x) * float("nan")
        return super().forward(x)


def blobs(config, split):
    size = {"train": 60, "validation": 30, "test": 30}[split]
    draw = torch.Generator().manual_seed({"train": 1, "validation": 2, "test": 3}[split])
    labels = torch.arange(size) % 3
    centres = torch.tensor([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 0]])
    inputs = centres[labels] + torch.randn(size, 4, generator=draw)
    return Samples(inputs=inputs.view(size, 1, 2, 2), labels=labels)


def jitter(config, inputs, generator):
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator, device=inputs.device)


@dataclass(frozen=True, kw_only=True)
class Nothing:
    pass


class Guesser(nn.Module):
    """Takes a share of the draws."""

    def __init__(self, config, shape, classes):
        super().__init__()
        assert (shape, classes) == ((), 0)
        self.rate = config.rate

    def guess(self, draws):
        return draws < self.rate


class Silent(nn.Module):
    def __init__(self, config, shape, classes):
        super().__init__()


def coins(fault, module, block):
    """Ten draws a block, evenly in [0, 1)."""
    misbehave(fault)
    draws = torch.rand(10, generator=torch.Generator().manual_seed(block))
    right = module.guess(draws).double()
    readings = {"right": Reading(value=right.mean()), "right-parts/draws": Reading(value=10.0, direction="none")}
    picture = Picture(kind="lines", title="draws", x="draw", y="value", series={"all": draws})
    if fault.how == "text":
        return "a lot"
    if fault.how == "mute":
        del readings["right"]
    if fault.how == "nan":
        readings["right"].value = float("nan")
    if fault.how == "short":
        right = right[:9]
    if fault.how == "number":
        readings["right"] = 0.5
    if fault.how == "none":
        readings["right"].pictures = {"draws": picture}
    return Solution(draws=10, scores=readings, per_sample={"right": right, "draws": draws})


class Share(torchmetrics.Metric):
    """The share of wrong answers; `how` says how it misbehaves."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.add_state("wrong", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, logits, labels):
        if self.how == "update":
            raise ValueError("cannot take this")
        self.wrong += (logits.argmax(1) != labels).sum()
        self.count += len(labels)

    def compute(self):
        if self.how == "compute":
            raise ValueError("cannot say")
        if self.how == "nan":
            return float("nan")
        if self.how == "parts":
            return {"one": 1.0}
        return self.wrong / self.count


def share(name, how, **more):
    return MetricSpec(name=name, version=1, summary="wrong answers", direction="lower", needs=("logits", "labels"),
                      build=lambda context: Share(how), **more)


class Depths(torchmetrics.Metric):
    """A Reading per layer, or what a careless author makes of it."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.add_state("total", torch.zeros(2), dist_reduce_fx="sum")

    def update(self, hidden):
        if self.how == "update":
            raise ValueError("no such layer")
        self.total += torch.stack([hidden[0].sum(), hidden[0].abs().sum()])

    def compute(self):
        if self.how == "hole":
            return Reading(value=1.0, profile=[1.0, float("nan")])
        if self.how == "text":
            return "a lot"
        return Reading(value=self.total[1], profile=self.total, spread=[float("nan")] * 2,
                       nulls={"noise": torch.tensor(1.5), "void": float("inf")})


def depths(name, how, needs=("hidden",), untrained=False):
    return MetricSpec(name=name, version=1, summary="inside", direction="none", needs=needs,
                      build=lambda context: Depths(how), untrained=untrained)


class Means(torchmetrics.Metric):
    """The classes' mean features; `how` says how it misbehaves."""

    def __init__(self, config, classes, width):
        super().__init__()
        self.how = config.how
        self.add_state("sums", torch.zeros(classes, width), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(classes), dist_reduce_fx="sum")

    def update(self, features, labels):
        if self.how == "raise":
            raise ValueError("cannot take this")
        self.sums.index_add_(0, labels, features)
        self.counts += torch.bincount(labels, minlength=len(self.counts))

    def compute(self):
        means = self.sums / self.counts[:, None]
        return lambda features: -torch.cdist(features, means)


class Spread(nn.Module):
    """How far features lie from the mean of their class."""

    def __init__(self, config, classes, width):
        super().__init__()
        self.strength = config.rate

    def forward(self, features, targets):
        means = targets.T @ features / targets.sum(0).clamp(min=1)[:, None]
        return self.strength * (features - targets @ means).square().sum(1).mean()


@hookimpl
def register_readouts():
    return [ReadoutSpec(name="means", version=1, summary="nearest mean", config=Fault, build=Means)]


@hookimpl
def register_objectives():
    return [ObjectiveSpec(name="spread", version=1, summary="of features", config=Width, build=Spread, readout="means",
                          needs=("features", "targets"), is_additive=False)]


HIDDEN = {"hidden": "hidden"}


@hookimpl
def register_models():
    return [
        ModelSpec(name="tiny", summary="two layers", config=Width, build=Tiny, head="head", trace=HIDDEN),
        ModelSpec(name="searching", summary="tunes its dropout", config=Width, build=Tiny, head="head",
                  search={"rate": FloatRange(low=0.0, high=0.5)}),
        ModelSpec(name="penalised", summary="with a term of its own", config=Width, build=Tiny, head="head",
                  penalty=lambda model: 10 * model.hidden.weight.square().sum()),
        ModelSpec(name="blind", summary="names a module it lacks", config=Width, build=Tiny, head="head",
                  trace={"hidden": "blocks.*"}),
        ModelSpec(name="functional", summary="says by a function", config=Width, build=Tiny, head="head",
                  trace=lambda model, inputs: {"hidden": [model.hidden(inputs.flatten(1))]}),
        ModelSpec(name="guesser", summary="guesses", config=Width, build=Guesser, head=""),
        ModelSpec(name="silent", summary="guesses nothing", config=Nothing, build=Silent, head=""),
        ModelSpec(name="faulty", summary="misbehaves as told", config=Fault, build=Faulty, head="head"),
    ]


@hookimpl
def register_tasks():
    return [TaskSpec(name="blobs", version=1, summary="three blobs", shape=(1, 2, 2), classes=3, data=blobs,
                     config=Nothing, augment=jitter),
            TaskSpec(name="coins", version=1, summary="guess", solve=coins, asks=("guess",), config=Fault)]


@hookimpl
def register_metrics():
    return [
        share("error", "", per_sample=lambda logits, labels: (logits.argmax(1) != labels).float()),
        share("error-raises", "update"), share("error-mute", "compute"), share("error-nan", "nan"),
        share("error-parts", "parts"),
        MetricSpec(name="right", version=1, summary="taken", direction="higher", needs=("solution",), unit="share"),
        MetricSpec(name="right-parts", version=1, summary="more", direction="none", needs=("solution",)),
        depths("depths", ""), depths("depths-hole", "hole"), depths("depths-text", "text"),
        depths("depths-null", "", untrained=True), depths("depths-raises", "update"),
        depths("depths-missing", "", ("codes",)),
    ]
'''

MakePlan = Callable[..., FitPlan]
WriteSuite = Callable[..., Path]
NewStore = Callable[[Path], Store]


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local plugin file: models, a task and metrics."""
    file = tmp_path_factory.mktemp("plugin") / "blobs.py"
    file.write_text(PLUGIN, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def catalog(plugin: Path) -> Catalog:
    """Everything installed, and the plugin."""
    loaded = load_catalog([plugin])
    assert not loaded.quarantined
    return loaded


@pytest.fixture
def make_plan(tmp_path: Path, plugin: Path) -> MakePlan:
    """Return a function that makes the plan of a fit on the blobs: two epochs of four steps."""

    def make(
        model: str = "tiny", folder: str = "fit", *, metrics: tuple[str, ...] = ("error",), **changes: Any
    ) -> FitPlan:
        budget = {"epochs": 2, "batch_size": 16, "trials": 0} | changes.pop("budget", {})
        recipe = {"learning_rate": Tuned(value=0.01), "augment": False} | changes.pop("recipe", {})
        purpose = changes.pop("purpose", "cell")
        (tmp_path / folder).mkdir(exist_ok=True)
        known: dict[str, Any] = {
            "name": f"blobs/{model}/blobs/0",
            "purpose": purpose,
            "contestant": Contestant(model=model),
            "task": "blobs",
            "primary": "error",
            "metrics": metrics if purpose == "cell" else (),
            "budget": Budget(**budget),
            "recipe": Recipe(**recipe),
            "hyperparameters": {"learning_rate": 0.01, "weight_decay": 0.0},
            "seed": 0,
            "plugins": [plugin],
            "folder": tmp_path / folder,
        }
        return FitPlan(**{**known, **changes})

    return make


SUITE = """
name = "{name}"
version = 1
summary = "Blobs."
primary = "{primary}"
tasks = ["blobs"]
seeds = {seeds}
metrics = ["{primary}", "accuracy"]

[budget]
epochs = {epochs}
batch_size = 16
trials = {trials}
{budget}

[tuning]
seed = 5
{tuning}

[recipes.plain]
learning_rate = {{ value = 0.01, low = 0.001, high = 0.1, log = true }}

{contestants}
"""


@pytest.fixture
def write_suite(tmp_path: Path) -> WriteSuite:
    """Return a function that writes a suite on the blobs and returns its file."""

    def write(*models: str, folder: Path = tmp_path, **changes: Any) -> Path:
        known: dict[str, Any] = {
            "name": "blobs", "primary": "error", "seeds": 2, "epochs": 2, "trials": 2, "budget": "", "tuning": "",
            "contestants": "\n".join(f'[[contestants]]\nmodel = "{model}"' for model in models or ("tiny",)),
        }  # fmt: skip
        file = folder / "blobs.toml"
        file.write_text(SUITE.format(**{**known, **changes}), encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> NewStore:
    """Return a function that makes a store in a folder: MLflow takes 1.3 s for its tables, a copy of them 0.1."""
    template = tmp_path_factory.mktemp("template") / "whitebench.db"
    Store(f"sqlite:///{template}")

    def make(folder: Path) -> Store:
        folder.mkdir(exist_ok=True)
        file = folder / "whitebench.db"
        with closing(sqlite3.connect(template)) as full, closing(sqlite3.connect(file)) as empty:
            full.backup(empty)
        return Store(f"sqlite:///{file}")

    return make


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """A launcher whose server is warm, the same for every test of a worker."""
    launcher = Launcher(threads=1)
    launcher.warm()
    yield launcher
    launcher.close()
