"""Images reach a model held or streamed, and nobody can tell by the numbers which it was."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.benchmark.test_fitting import fitted
from tests.benchmark.test_launch import failure_of, outcome_of
from whitebench import group
from whitebench.budget import Limits
from whitebench.catalog import Catalog, load_catalog
from whitebench.errors import TaskDataError
from whitebench.feed import arrange, batches, scale, to_numbers
from whitebench.fit import PREDICTIONS, WEIGHTS, FitPlan, Fitted
from whitebench.launch import Launcher
from whitebench.specs import Samples, Stream

MakePlan = Callable[..., FitPlan]

PICTURES = '''
import os, signal, time
from dataclasses import dataclass
import torch
import torch.distributed as dist
from torch.utils.data import get_worker_info
from whitebench import Samples, Stream, TaskDataError, TaskSpec, hookimpl


@dataclass(frozen=True, kw_only=True)
class How:
    serve: str = "held"
    fault: str = ""
    log: str = ""


SEEDS = {"train": (60, 1), "validation": (30, 2), "test": (30, 3)}


def pictures(how, split):
    """Three classes of pictures of 2 x 2 pixels, one pixel of each being light."""
    size, seed = SEEDS[split]
    labels = torch.arange(size) % 3
    pixels = torch.randint(100, (size, 4), generator=torch.Generator().manual_seed(seed))
    pixels[torch.arange(size), labels] += 120
    pixels = pixels.to(torch.uint8).view(size, 1, 2, 2)
    if how.serve == "floats":
        return Samples(inputs=pixels.float() / 255, labels=labels)
    if how.serve == "held":
        return Samples(inputs=pixels, labels=labels)

    def read(rows):
        if how.log and get_worker_info() is not None:
            rank = dist.get_rank() if dist.is_initialized() else 0
            with open(how.log, "a") as file:
                file.write(f"{rank} {split} {' '.join(map(str, rows.tolist()))}\\n")
        if how.fault and get_worker_info() is not None and split == "train" and 7 in rows.tolist():
            if how.fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise TaskDataError("cat/7.png: cannot be read as a picture: replace the file")
        return pixels[rows]

    stream = Stream(size=size, shape_of_one=(1, 2, 2), read=read, sha256=f"{seed:064x}")
    return Samples(inputs=stream, labels=labels)


@hookimpl
def register_tasks():
    return [TaskSpec(name="pictures", version=1, summary="light pixels", shape=(1, 2, 2), classes=3, data=pictures,
                     config=How),
            TaskSpec(name="grey-pictures", version=1, summary="light pixels", shape=(1, 2, 2), classes=3,
                     data=pictures, config=How, scaling=lambda how: ((0.5,), (0.25,)))]
'''

HELD, STREAMED = Limits(data_gib=1.0), Limits(data_gib=0.0, workers=2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    file = tmp_path / "pictures.py"
    file.write_text(PICTURES, encoding="utf-8")
    return file


@pytest.fixture
def both(plugin: Path, pictures: Path) -> Catalog:
    return load_catalog([plugin, pictures])


def test_uint8_images_are_seen_as_x_over_255_and_what_is_in_numbers_already_as_it_is() -> None:
    assert to_numbers(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0.0, 0.2, 1.0])
    given = torch.tensor([3.5])
    assert to_numbers(given) is given


def test_scaling_is_by_channel() -> None:
    images = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(3, 2, 4, 4)
    scaled = scale(images, ((1.0, 0.0), (2.0, 0.5)))
    assert (set(scaled[:, 0].flatten().tolist()), set(scaled[:, 1].flatten().tolist())) == ({0.0}, {4.0})
    assert scale(images, None) is images


def stream_of(images: torch.Tensor) -> Stream:
    return Stream(size=len(images), shape_of_one=tuple(images.shape[1:]), read=lambda rows: images[rows], sha256="ab")


IMAGES = torch.arange(7 * 12, dtype=torch.uint8).view(7, 3, 2, 2)


@pytest.mark.parametrize("inputs", [IMAGES, stream_of(IMAGES)], ids=["tensor", "stream"])
@pytest.mark.parametrize(("most", "is_streamed"), [(84, False), (83, True)])
def test_images_are_held_where_they_take_no_more_than_is_allowed_however_they_are_served(
    inputs: Any, most: int, is_streamed: bool
) -> None:
    found = arrange(Samples(inputs=inputs, labels=torch.zeros(7).long()), most_bytes=most, workers=3).inputs
    assert isinstance(found, Stream) is is_streamed
    assert not is_streamed or found.workers == 3
    assert torch.equal(found[:7], IMAGES)
    assert torch.equal(found[torch.tensor([5, 1])], IMAGES[[5, 1]])


def test_samples_that_are_no_images_are_left_alone_however_large() -> None:
    samples = Samples(inputs=torch.ones(3, 2), labels=torch.zeros(3).long())
    assert arrange(samples, most_bytes=0, workers=2) is samples


@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_comes_once_and_in_order(workers: int) -> None:
    stream = arrange(Samples(inputs=IMAGES, labels=torch.zeros(7).long()), most_bytes=0, workers=workers).inputs
    found = list(batches(stream, 3))
    assert [len(one) for one in found] == [3, 3, 1]
    assert torch.equal(torch.cat(found), IMAGES)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_process_of_a_group_reads_its_own_share_and_together_every_sample_once(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def told(rows: torch.Tensor) -> torch.Tensor:
        read.extend(rows.tolist())
        return IMAGES[rows]

    stream = dataclasses.replace(stream_of(IMAGES), read=told)
    for rank in range(size):
        monkeypatch.setattr(group, "_here", [group.Place(rank=rank, size=size)])
        before = len(read)
        assert torch.equal(torch.cat(list(batches(stream, 3))), torch.cat(list(batches(IMAGES, 3))))
        assert read[before:] == list(range(rank, 7, size))
    assert sorted(read) == list(range(7))


def weights_and_predictions(plan: FitPlan, catalog: Catalog) -> list[torch.Tensor]:
    fitted(plan, catalog)
    return [one for name in (WEIGHTS, PREDICTIONS) for _, one in sorted(load_file(plan.folder / name).items())]


@pytest.mark.parametrize("changes", [{}, {"readouts": ("means",), "metrics": ("error", "depths")}], ids=["", "inside"])
def test_a_fit_comes_to_the_same_bits_held_streamed_by_processes_and_in_floats(
    make_plan: MakePlan, both: Catalog, changes: dict[str, Any]
) -> None:
    reference, *others = (
        weights_and_predictions(make_plan(folder=f"fit-{number}", task=f"pictures[serve={serve}]", limits=limits,
                                          recipe={"crop": 1, "augment": True}, **changes), both)
        for number, (serve, limits) in enumerate(
            [("floats", HELD), ("held", HELD), ("held", STREAMED), ("stream", HELD), ("stream", STREAMED),
             ("stream", Limits(data_gib=0.0, workers=0))]
        )
    )  # fmt: skip
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(reference, other, strict=True))


@pytest.mark.parametrize(
    ("devices", "recipe"), [(3, {}), (2, {"crop": 1, "mixup": 0.3})], ids=["plain", "drawn for the whole batch"]
)
def test_devices_that_share_a_streamed_fit_read_a_share_each_and_come_to_the_numbers_of_one(
    launcher: Launcher, make_plan: MakePlan, plugin: Path, pictures: Path, devices: int, recipe: dict[str, Any]
) -> None:
    def predictions(number: int, limits: Limits) -> dict[str, torch.Tensor]:
        log = pictures.with_name(f"read-by-{number}")
        plan = make_plan(
            "crate[dim=8,depth=1,heads=2,patch=1]",
            folder=f"fit-{number}",
            task=f"pictures[serve=stream,log={log}]",
            plugins=[plugin, pictures],
            devices=number,
            recipe=recipe,
            limits=limits,
        )
        outcome = outcome_of(launcher.start(plan))
        assert isinstance(outcome, Fitted), outcome
        return load_file(plan.folder / PREDICTIONS)

    expected, found = predictions(1, HELD), predictions(devices, STREAMED)
    torch.testing.assert_close(found["logits"], expected["logits"], rtol=1e-4, atol=1e-4)
    assert torch.equal(found["labels"], expected["labels"])
    read = pictures.with_name(f"read-by-{devices}").read_text(encoding="utf-8").splitlines()
    told = [(int(rank), split, rows) for rank, split, *rows in map(str.split, read)]
    assert {rank for rank, _, _ in told} == set(range(devices))
    for split, size, passes in (("train", 60, 2), ("validation", 30, 2), ("test", 30, 1)):
        rows = [int(row) for _, one, rows in told if one == split for row in rows]
        assert sorted(rows) == sorted([*range(size)] * passes), split


def test_models_see_scaled_images_in_training_and_in_the_test_alike(make_plan: MakePlan, both: Catalog) -> None:
    """Scaled by hand: the first layer takes (x - m) / s where its weights are w / s and its bias b - m w 1 / s."""
    plan = make_plan(task="grey-pictures", budget={"epochs": 1})
    fitted(plan, both)
    weights, found = load_file(plan.folder / WEIGHTS), load_file(plan.folder / PREDICTIONS)
    task = both.task("pictures").spec
    images = (to_numbers(task.data(task.config(), "test").inputs) - 0.5) / 0.25
    hidden = (images.flatten(1) @ weights["hidden.weight"].T + weights["hidden.bias"]).relu()
    logits = hidden @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(found["logits"], logits)


def test_data_that_changed_since_the_fit_was_planned_are_refused(make_plan: MakePlan, both: Catalog) -> None:
    with pytest.raises(
        TaskDataError, match=r"'validation': the data have changed since .* \(sha256 000000000000…, now"
    ):
        fitted(make_plan(task="pictures", manifest={"validation": "0" * 64}), both)


@pytest.mark.parametrize(("fault", "devices", "kind", "message"), [
    ("raise", 1, "config", r"cat/7\.png: cannot be read as a picture: replace the file$"),
    ("die", 2, "killed", r"a loader process has died \(DataLoader worker \(pid.*\), .* fewer of them, limits\.workers"),
])  # fmt: skip
def test_what_befalls_a_loader_process_is_a_failure_with_its_reason_and_no_hang(
    launcher: Launcher,
    make_plan: MakePlan,
    plugin: Path,
    pictures: Path,
    fault: str,
    devices: int,
    kind: str,
    message: str,
) -> None:
    task, plugins = f"pictures[serve=stream,fault={fault}]", [plugin, pictures]
    plan = make_plan(task=task, limits=STREAMED, recipe={"crop": 1}, devices=devices, plugins=plugins)
    failure = failure_of(launcher.start(plan))
    assert (str(failure.kind), bool(re.match(message, failure.message))) == (kind, True), failure.message


def test_a_streamed_fit_leaves_no_process_behind(
    launcher: Launcher, make_plan: MakePlan, plugin: Path, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = make_plan(task="pictures[serve=stream]", limits=STREAMED, plugins=[plugin, pictures])
    with caplog.at_level(logging.WARNING, logger="whitebench.launch"):
        assert isinstance(outcome_of(launcher.start(plan)), Fitted)
    assert caplog.messages == []
