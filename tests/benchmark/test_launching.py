"""What a launcher is: ours keep to it, a stranger's is taken by its name, and a fit that one loses is done again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.test_conductor import World, numbers, world
from tests.benchmark.test_launch import outcome_of
from tests.conftest import Type
from whitebench.catalog import Catalog, load_catalog
from whitebench.cli import cli
from whitebench.commands.launchers import launcher_text
from whitebench.errors import PluginError, WhitebenchError
from whitebench.events import CellFailed, CellFinished, EpochEnded, FitLost
from whitebench.fit import FitPlan, Fitted, Lost
from whitebench.here import FitHere, Here
from whitebench.launch import Launcher, RunningFit
from whitebench.launching import AnyFit, AnyLauncher, LaunchOptions
from whitebench.provenance import usable_cores
from whitebench.specs import LauncherSpec
from whitebench.suite import Contestant

__all__ = ["world"]

WriteSuite = Callable[..., Path]
MakePlan = Callable[..., FitPlan]

MINE = """
from dataclasses import dataclass
from whitebench import LauncherSpec, WhitebenchError, hookimpl


@dataclass(frozen=True, kw_only=True)
class Options:
    partition: str = "all"


def build(options, asked):
    from whitebench.launching import Launcher

    if options.partition == "closed":
        raise WhitebenchError("partition closed takes no fits: choose another")
    return Launcher(threads=asked.threads, devices=asked.devices)


@hookimpl
def register_launchers():
    return [LauncherSpec(name="mine", summary="as everybody's", config=Options, build=build)]
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(MINE, encoding="utf-8")
    return file


def faces() -> list[AnyLauncher]:
    """Ours; that they fit is for the type checker to say."""
    return [Here(), Launcher(threads=1)]


def fits() -> list[type[AnyFit]]:
    return [FitHere, RunningFit]


def test_our_launchers_and_their_fits_have_the_face_that_the_conductor_knows() -> None:
    for launcher in faces():
        missing = [name for name in (*vars(AnyLauncher), *AnyLauncher.__annotations__) if not hasattr(launcher, name)]
        assert [name for name in missing if not name.startswith("_")] == []
        assert launcher.places >= 1
    assert len(fits()) == 2


def test_the_launcher_that_everybody_has_offers_a_place_for_as_many_fits_as_have_their_threads_each(
    catalog: Catalog,
) -> None:
    spec = catalog.launcher("local").spec
    assert spec.build(spec.config(), LaunchOptions(threads=1)).places == usable_cores()
    assert spec.build(spec.config(), LaunchOptions(threads=10_000)).places == 1
    assert spec.build(spec.config(), LaunchOptions(threads=1, devices=usable_cores())).places == 1


def test_a_launcher_is_named_as_everything_else_is() -> None:
    with pytest.raises(PluginError, match="launcher 'A B': a name is up to 64 lower-case"):
        LauncherSpec(name="A B", summary="", build=lambda config, asked: Here())


def test_one_launcher_of_two_owners_belongs_to_nobody(mine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(MINE, encoding="utf-8")
    with pytest.raises(WhitebenchError, match="launcher 'mine' has 2 owners"):
        load_catalog([mine, other]).launcher("mine")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--launcher", "mien"), r"unknown launcher 'mien', did you mean 'mine'\?"),
        (("--launcher", "mine[queue=1]"), r"launcher mine\[queue=1\]: unknown option 'queue'"),
        (("--launcher", "mine[partition=closed]"), "partition closed takes no fits: choose another"),
        (("--ray-address", "h:1"), "--ray-address is for --launcher ray, and this is --launcher local"),
        (("--launcher", "mine", "--num-nodes", "2"), "--num-nodes 2: --launcher mine keeps each fit on one machine"),
    ],
)
def test_a_launcher_that_cannot_be_is_refused_before_anything_starts(
    mine: Path, plugin: Path, write_suite: WriteSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    command = ["run", str(write_suite()), "--plugin", str(plugin), "--plugin", str(mine), *words]
    with pytest.raises(WhitebenchError, match=message):
        cli.main(command, standalone_mode=False)
    assert not (tmp_path / "whitebench.db").exists()


@pytest.mark.parametrize(
    ("launcher", "text"),
    [("ray", "ray[address=h:1]"), ("ray[]", "ray[address=h:1]"), ("ray[gpus=0.5]", "ray[gpus=0.5,address=h:1]")],
)
def test_ray_s_address_joins_its_other_options(launcher: str, text: str) -> None:
    assert launcher_text(launcher, "h:1") == text


def test_a_crew_that_shares_each_fit_has_no_other_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    started = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "h"}
    for name, value in {**started, "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        WhitebenchError, match="--launcher mine: torchrun or srun started this command 4 times, to share"
    ):
        cli.main(["run", "smoke", "--launcher", "mine"], standalone_mode=False)


@pytest.mark.slow
def test_on_the_command_line_a_launcher_is_chosen_by_name_with_options(
    mine: Path, plugin: Path, write_suite: WriteSuite, type_here: Type
) -> None:
    suite = write_suite(trials=0, seeds=1)
    launcher = ("--launcher", "mine[partition=quick]")
    done = type_here("whitebench", "run", str(suite), "--plugin", str(plugin), "--plugin", str(mine), *launcher)
    assert done.returncode == 0, done.stderr
    assert "1 cell done" in done.stdout


@dataclass(eq=False)
class Beside:
    """A fit that is under way, for all that its launcher knows."""

    plan: FitPlan
    is_over: bool = False


SEEING = """
import os
from dataclasses import dataclass
from torch import nn
from whitebench import ModelSpec, hookimpl


@dataclass(frozen=True, kw_only=True)
class Mark:
    mark: str = ""


def build(config, shape, classes):
    open(config.mark, "w").write(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    return nn.Sequential(nn.Flatten(), nn.Linear(4, classes))


@hookimpl
def register_models():
    return [ModelSpec(name="seeing", summary="says which GPUs it sees", config=Mark, build=build, head="1")]
"""


def test_several_fits_that_have_several_devices_each_see_as_many_gpus_and_no_others(
    launcher: Launcher, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_gpus", ["a", "b", "c", "d"])
    monkeypatch.setattr(launcher, "_run", Beside)
    monkeypatch.setattr(launcher, "_fits", set())
    beside = [launcher.start(make_plan(parallel=2, devices=2, folder=f"fit-{number}")) for number in range(2)]
    assert [fit.plan.gpus for fit in beside] == [("a", "b"), ("c", "d")]
    assert launcher.start(make_plan(parallel=2, devices=2, is_on_cpu=True)).plan.gpus is None


def test_several_fits_on_several_gpus_see_one_each_and_one_alone_sees_them_all(
    launcher: Launcher, make_plan: MakePlan, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "seeing.py"
    file.write_text(SEEING, encoding="utf-8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(launcher, "_gpus", None)

    def start(number: int, parallel: int) -> RunningFit:
        contestant = Contestant(label="seeing", model=f"seeing[mark={tmp_path}/{number}]")
        plan = make_plan(contestant=contestant, plugins=[plugin, file], folder=f"fit-{number}", parallel=parallel)
        return launcher.start(plan)

    beside = [start(number, parallel=3) for number in range(3)]
    for fit in beside:
        assert isinstance(outcome_of(fit), Fitted)
    alone = start(3, parallel=1)
    assert isinstance(outcome_of(alone), Fitted)
    seen = [(tmp_path / str(number)).read_text(encoding="utf-8") for number in range(4)]
    assert seen[:3] == ["3", "5", "3"]
    assert alone.plan.gpus is None


def see(plan: FitPlan) -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all")


def test_questions_asked_at_a_time_see_the_gpus_that_their_fits_would(
    launcher: Launcher, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_gpus", ["3", "5"])
    beside = [make_plan(parallel=2, folder=f"fit-{number}") for number in range(2)]
    assert launcher.ask(see, beside, seconds=60.0, at_a_time=2) == ["3", "5"]
    assert launcher.ask(see, [make_plan(is_on_cpu=True)], seconds=60.0) == [""]


def lose(monkeypatch: pytest.MonkeyPatch, *victims: str, times: int) -> None:
    """Let what each of the fits `victims` runs on be gone, so many times, when its first epoch has ended."""
    left = dict.fromkeys(victims, times)

    def attend(fit: RunningFit, heard: Callable[[Any, Any], None], idle: Callable[[], None]) -> None:
        said = fit.receive()
        if isinstance(said, EpochEnded) and left.get(fit.plan.name):
            left[fit.plan.name] -= 1
            heard(fit, Lost(reason="node 7 went up in smoke"))
        elif said is not None:
            heard(fit, said)

    monkeypatch.setattr(RunningFit, "attend", attend)


def test_a_fit_that_is_lost_is_done_again_and_nothing_else_is(
    world: World, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_store: Any
) -> None:
    undisturbed = World(store=new_store(tmp_path / "other"), catalog=world.catalog, launcher=world.launcher,
                        plugins=world.plugins)  # fmt: skip
    suite = write_suite(trials=2, seeds=2)
    undisturbed.run(suite)
    trial, cell = "blobs/tiny/blobs/trial-1", "blobs/tiny/blobs/1"
    lose(monkeypatch, trial, cell, times=2)
    summary = world.run(suite)
    assert (summary.finished, summary.failed) == (2, 0)
    assert [event.fit for event in world.told if isinstance(event, FitLost)] == [trial, trial, cell, cell]
    assert sorted(event.cell for event in world.told if isinstance(event, CellFinished)) == [
        "blobs/tiny/blobs/0", "blobs/tiny/blobs/1",
    ]  # fmt: skip
    assert numbers(world.ledger(suite)) == numbers(undisturbed.ledger(suite))
    assert world.statuses() <= {"FINISHED", "KILLED"}


def test_a_fit_that_is_lost_again_and_again_fails_and_says_why(
    world: World, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch, "blobs/tiny/blobs/0", times=100)
    summary = world.run(write_suite(trials=0, seeds=2))
    assert (summary.finished, summary.failed) == (1, 1)
    [failed] = [event for event in world.told if isinstance(event, CellFailed)]
    assert failed.kind == "killed"
    assert failed.message == "it was lost 4 times with what it ran on, the last time: node 7 went up in smoke"
