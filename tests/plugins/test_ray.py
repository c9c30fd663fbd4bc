"""The launcher `ray` without a cluster: what travels, what a node must have, what a berth does, how many have room."""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from whitebench import WhitebenchError
from whitebench.budget import Budget, Limits
from whitebench.catalog import load_catalog
from whitebench.events import EpochEnded
from whitebench.fit import AskTest, FitPlan
from whitebench.launching import Failure, Fitted, LaunchOptions
from whitebench.names import configured
from whitebench.recipe import Recipe, Tuned
from whitebench.suite import Contestant
from whitebench_ray import RayOptions, build
from whitebench_ray.berth import PREFIX, Berth
from whitebench_ray.likeness import differences, installation
from whitebench_ray.parcel import Heard, lay, left_in, pack, unpack


def plan_of(folder: Path, *, plugins: list[Path] | None = None, **changes: Any) -> FitPlan:
    """A ViT of one layer on digits for two epochs."""
    plan = FitPlan(
        name="s/vit/digits/0",
        purpose="cell",
        contestant=Contestant(model="vit[dim=8,depth=1,heads=1,patch=4]"),
        task="digits",
        primary="accuracy",
        metrics=("accuracy",),
        budget=Budget(epochs=2, batch_size=512, trials=0),
        recipe=Recipe(learning_rate=Tuned(value=0.01)),
        hyperparameters={"learning_rate": 0.01, "weight_decay": 0.0},
        seed=0,
        plugins=plugins or [],
        folder=folder,
    )
    return dataclasses.replace(plan, **changes)


# What travels


def test_a_plan_arrives_with_the_text_of_its_plugin_files_and_their_owners_are_those_files(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("# a model", encoding="utf-8")
    owners = [str(mine), "whitebench_tasks"]
    sent = pack(plan_of(tmp_path / "here", plugins=[mine], owners=owners))
    mine.unlink()
    there = unpack(sent, tmp_path / "node")
    [file] = there.plugins
    assert file.read_text(encoding="utf-8") == "# a model"
    assert there.owners == [str(file), "whitebench_tasks"]
    assert there.folder == tmp_path / "node" / "fit"
    assert dataclasses.replace(there, plugins=(), owners=None, folder=Path()) == dataclasses.replace(
        sent.plan, plugins=(), owners=None, folder=Path()
    )


def test_two_plugin_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    files = [tmp_path / name / "mine.py" for name in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text(file.parent.name, encoding="utf-8")
    there = unpack(pack(plan_of(tmp_path, plugins=files)), tmp_path / "node")
    assert [file.read_text(encoding="utf-8") for file in there.plugins] == ["a", "b"]


def test_what_a_fit_left_comes_back_without_checkpoints_and_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "fit" / "checkpoints").mkdir(parents=True)
    for name in ("fit.log", ".held", "checkpoints/last.ckpt"):
        (tmp_path / "fit" / name).write_bytes(name.encode())
    lay(left_in(tmp_path / "fit"), tmp_path / "home")
    assert [file.name for file in (tmp_path / "home").iterdir()] == ["fit.log"]
    assert (tmp_path / "home" / "fit.log").read_bytes() == b"fit.log"


# What a node must have


def test_what_is_installed_counts_whitebench_the_plugins_that_are_used_and_the_libraries(tmp_path: Path) -> None:
    here = installation(["whitebench_models", "whitebench_tasks", str(tmp_path / "mine.py")])
    assert {"whitebench", "whitebench_models", "whitebench_tasks", "torch", "numpy"} <= set(here)
    assert "mine" not in "".join(here)
    assert "+" not in here["torch"]
    assert differences(here, dict(here)) == ""


def test_a_node_with_another_version_or_without_a_plugin_is_told_apart() -> None:
    here = {"whitebench": "code 1", "theirs": "code 2", "torch": "2.13.0"}
    there = {"whitebench": "code 1", "theirs": "not installed", "torch": "2.12.0"}
    said = "theirs is not installed there and code 2 here, torch is 2.12.0 there and 2.13.0 here"
    assert differences(here, there) == said


# A berth, which is what runs on a node


@pytest.fixture(scope="module")
def berth() -> Iterator[Berth]:
    with pytest.MonkeyPatch.context() as patch:
        main = sys.modules["__main__"]
        if hasattr(main, "__file__"):  # which a berth takes away from a worker
            patch.setattr(main, "__file__", main.__file__)
        made = Berth(1, "node-1", [])
        yield made
        made.end()
        made._launcher.close()


def hear_out(berth: Berth) -> tuple[list[Any], Heard]:
    """Answer everything with go; return what was said, and the last that was heard."""
    said: list[Any] = []
    while True:
        heard = berth.hear(1.0)
        if heard.said is not None:
            said.append(heard.said)
        if isinstance(heard.said, Fitted | Failure) or heard.complaint:
            return said, heard
        if heard.said is not None:
            berth.answer("go")


@pytest.mark.slow
def test_a_berth_runs_a_fit_and_returns_what_it_left_behind(berth: Berth, tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "here")
    berth.start(pack(plan), installation(plan.owners))
    said, last = hear_out(berth)
    assert [type(one) for one in said] == [EpochEnded, EpochEnded, AskTest, Fitted]
    assert {"fit.log", "predictions.safetensors", "weights.safetensors"} <= set(last.files)
    assert (last.node, last.complaint) == ("node-1", "")
    assert last.seconds > 0
    assert not (tmp_path / "here").exists()
    assert not (berth._folder / "fit").exists()


@pytest.mark.slow
def test_a_berth_sees_to_the_limits_of_its_fit(berth: Berth, tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path / "here", limits=Limits(fit_minutes=0.001), budget=Budget(epochs=10_000, batch_size=512, trials=0)
    )
    berth.start(pack(plan), installation(plan.owners))
    _, last = hear_out(berth)
    assert isinstance(last.said, Failure)
    assert last.said.kind == "timeout"


def test_a_berth_takes_no_fit_where_other_code_is_installed(berth: Berth, tmp_path: Path) -> None:
    berth.start(pack(plan_of(tmp_path)), {"torch": "0.1"})
    heard = berth.hear(1.0)
    assert heard.said is None
    assert f"what is installed on {os.uname().nodename} is not what is installed here: torch is" in heard.complaint


def test_a_berth_sweeps_up_after_those_that_are_dead_and_leaves_the_living_alone(berth: Berth) -> None:
    root = Path(tempfile.gettempdir())
    dead = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    (dead / "fit").mkdir()
    other = Berth(1, "node-2", None)
    assert not dead.exists()
    assert berth._folder.exists()
    other.end()
    os.close(other._held)
    other._folder.rmdir()


# The launcher


def test_without_ray_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "whitebench_ray.fleet", raising=False)
    spec = load_catalog().launcher("ray").spec
    with pytest.raises(WhitebenchError, match=r"--launcher ray needs Ray: pip install 'whitebench\[ray\]'"):
        spec.build(RayOptions(), LaunchOptions(threads=1))


def test_where_no_cluster_is_one_is_told_at_once_what_to_give() -> None:
    pytest.importorskip("ray", reason="whitebench[ray] is not installed")
    spec = load_catalog().launcher("ray").spec
    with pytest.raises(WhitebenchError, match=r"no cluster to be had at 127\.0\.0\.1:1 .*: give the HOST:PORT"):
        spec.build(RayOptions(address="127.0.0.1:1"), LaunchOptions(threads=1))


def test_a_cluster_that_asks_for_its_token_says_so_and_ray_s_own_words_stay_off_the_screen(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="whitebench[ray] is not installed")
    from whitebench_ray import fleet

    def init(**_: Any) -> None:
        os.write(2, b"gcs_client.cc:210: Failed to get cluster ID: InvalidAuthToken: Authentication token is missing")
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr("whitebench_ray.fleet.ray_worker.print_to_stdstream", None)
    monkeypatch.setattr("ray.init", init)
    with pytest.raises(WhitebenchError, match="--launcher ray: auto: the cluster asks for its token, and got none"):
        fleet.connect("auto")
    os.write(2, b"seen")
    assert capfd.readouterr().err == "seen"


@pytest.mark.parametrize("gpus", [0.0, -1.0, 2.0])
def test_a_device_takes_a_gpu_or_a_part_of_one(gpus: float) -> None:
    with pytest.raises(WhitebenchError, match=rf"gpus={gpus:g}: 1, or a part of one, as 0\.5; --devices says how many"):
        configured("launcher", f"ray[gpus={gpus}]", RayOptions)


def test_several_devices_of_a_fit_share_no_gpu() -> None:
    with pytest.raises(WhitebenchError, match=r"ray\[gpus=0\.5\]: with --devices 2 each takes a whole GPU"):
        build(RayOptions(gpus=0.5), LaunchOptions(threads=1, devices=2))


def fleet_on(monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float], gpus: float = 1.0, **asked: Any) -> Any:
    """A launcher on a cluster of such nodes, which there is not."""
    pytest.importorskip("ray", reason="whitebench[ray] is not installed")
    from whitebench_ray import fleet

    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    has = sum(node.get("GPU", 0.0) for node in nodes)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"GPU": has} if has else {})
    return fleet.Fleet(LaunchOptions(**asked), gpus=gpus)


@pytest.mark.parametrize(
    ("asked", "places"),
    [
        ({"threads": 1}, 6),  # as many as there are GPUs
        ({"threads": 1, "devices": 2}, 3),
        ({"threads": 4, "devices": 2}, 2),  # 8 CPUs each
        ({"threads": 1, "accelerator": "cpu"}, 24),
        ({"threads": 2, "devices": 4, "accelerator": "cpu"}, 3),
    ],
)
def test_a_fit_takes_the_gpus_of_its_devices_and_the_cpus_of_their_threads(
    monkeypatch: pytest.MonkeyPatch, asked: Any, places: int
) -> None:
    assert fleet_on(monkeypatch, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 4.0}, **asked).places == places


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"threads": 1, "devices": 2},
            "a fit takes 2 CPUs and 2 GPUs, which no node of the cluster has: see `ray status`",
        ),
        ({"threads": 9, "accelerator": "cpu"}, "a fit takes 9 CPUs, which no node of the cluster has"),
    ],
)
def test_what_no_node_has_room_for_is_refused(monkeypatch: pytest.MonkeyPatch, asked: Any, message: str) -> None:
    with pytest.raises(WhitebenchError, match=message):
        fleet_on(monkeypatch, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 4.0}, **asked)
    with pytest.raises(WhitebenchError, match="--accelerator gpu: no node of the Ray cluster has a GPU"):
        fleet_on(monkeypatch, {"CPU": 8.0}, threads=1, accelerator="gpu")


def test_fits_have_room_where_a_node_has_both_their_cpus_and_their_gpus() -> None:
    pytest.importorskip("ray", reason="whitebench[ray] is not installed")
    from whitebench_ray.fleet import places_on

    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": True, "Resources": {"memory": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    assert places_on(nodes, cpus=1, gpus=0.0) == 11
    assert places_on(nodes, cpus=2, gpus=0.0) == 5
    assert places_on(nodes, cpus=1, gpus=1.0) == 2
    assert places_on(nodes, cpus=1, gpus=0.5) == 4
    assert places_on(nodes, cpus=1, gpus=0.4) == 4
    assert places_on(nodes, cpus=1, gpus=4.0) == 0


class Far:
    """What stands for a berth on a node: `up` says whether its node has room for it, `dead` whether it went."""

    def __init__(self, *, up: bool) -> None:
        self.up, self.dead = up, False
        self.start = self.hear = self.end = self
        self.begun: list[str] = []

    def remote(self, *given: Any) -> Far:
        self.begun += [one.plan.name for one in given if hasattr(one, "plan")]
        return self


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> list[Far]:
    """The berths that are made, of which a cluster with one CPU less than it had lets the first come up."""
    pytest.importorskip("ray", reason="whitebench[ray] is not installed")
    from ray.exceptions import ActorDiedError, GetTimeoutError

    made: list[Far] = []

    def make(*_: Any, **__: Any) -> Any:
        made.append(Far(up=not made))
        return made[-1]

    def get(berth: Far, timeout: float) -> None:
        if berth.dead:
            raise ActorDiedError
        if not berth.up:
            raise GetTimeoutError

    remote = type("Remote", (), {"options": lambda self, **_: self, "remote": make})
    monkeypatch.setattr("ray.remote", lambda _: remote())
    monkeypatch.setattr("ray.wait", lambda ones, timeout: ([one for one in ones if one.up], []))
    monkeypatch.setattr("ray.get", get)
    monkeypatch.setattr("ray.kill", lambda berth: setattr(berth, "dead", True))
    return made


def test_a_fit_that_waits_for_room_begins_where_another_has_ended(
    monkeypatch: pytest.MonkeyPatch, far: list[Far], tmp_path: Path
) -> None:
    fleet = fleet_on(monkeypatch, {"CPU": 2.0}, threads=1)
    first, second = (fleet.start(plan_of(tmp_path / name, name=name)) for name in ("first", "second"))
    assert (first.has_begun, second.has_begun) == (True, False)
    first._has_ended = True
    first.end()
    assert second.has_begun
    assert far[0].begun == ["first", "second"]
    third = fleet.start(plan_of(tmp_path / "third", name="third"))
    assert third.berth is far[1]  # which comes up when there is room for it
    assert len(far) == 2


def test_a_berth_that_went_with_its_node_gets_no_fit(
    monkeypatch: pytest.MonkeyPatch, far: list[Far], tmp_path: Path
) -> None:
    fleet = fleet_on(monkeypatch, {"CPU": 2.0}, threads=1)
    first = fleet.start(plan_of(tmp_path, name="first"))
    first._has_ended = True
    first.end()
    far[0].dead = True
    assert fleet.start(plan_of(tmp_path, name="second")).berth is far[1]
