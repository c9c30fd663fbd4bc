"""How fast pictures reach a model, as ratios measured in one run: a part of `make perf`. It fails nothing.

A training step that takes its batch out of pictures held as whole numbers, crops and mirrors it, against the same step
on a batch that lies ready; and pictures that loader processes decode. On a GPU, where there is one, with a contestant
of suite `cifar10`, in bf16; on the processor with a smaller one.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tests.perf.line import Line, in_turns, print_each
from whitebench.augmentation import Augmentation, build_augmentation
from whitebench.catalog import load_catalog
from whitebench.evaluation import autocast
from whitebench.feed import arrange, batches, scale, to_numbers
from whitebench.names import configured
from whitebench.recipe import RandAugment, Recipe, Tuned
from whitebench.specs import Samples, Stream
from whitebench_tasks.images.decoding import decode
from whitebench_tasks.images.options import CIFAR10Options

SHAPE, CLASSES = (3, 32, 32), 10
HALF = ((0.5,) * 3, (0.5,) * 3)
REPEATS = 9
PLAIN = Recipe(learning_rate=Tuned(value=1e-3), crop=4, flip=True)
MODERN = Recipe(learning_rate=Tuned(value=1e-3), crop=4, flip=True, randaugment=RandAugment(), erasing=0.25)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained, where, and how much of it is one measurement."""

    model: str
    device: str
    precision: str
    batch: int
    steps: int
    size: int
    """Pictures there are."""


CPU = Case(model="vit[dim=128,depth=6,heads=4,patch=4]", device="cpu", precision="32", batch=128, steps=2, size=2_000)
GPU = Case(model="crate[dim=372,depth=12,heads=4,patch=4]", device="cuda", precision="bf16-mixed", batch=256, steps=30,
           size=50_000)  # fmt: skip


def main() -> None:
    """Measure one line after the other, and print each as soon as it is known."""
    cases = [GPU, CPU] if torch.cuda.is_available() else [CPU]
    print_each(partial(measure, case) for case in cases)
    print_each([measure_decoding])


def measure(case: Case) -> list[Line]:
    """Take training steps on pictures that are held and augmented against the same on a batch that lies ready."""
    torch.manual_seed(0)
    images = torch.randint(256, (case.size, *SHAPE), dtype=torch.uint8)
    held = arrange(Samples(inputs=images, labels=torch.arange(case.size) % CLASSES), most_bytes=2**30, workers=0)
    net = _network(case)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    ready = scale(to_numbers(images[: case.batch]), HALF).to(case.device)
    labels = (torch.arange(case.batch) % CLASSES).to(case.device)
    step = partial(_step, net, optimiser, case, labels)
    alone, plain, modern = in_turns(
        REPEATS,
        lambda: _seconds(case, step, (ready for _ in range(case.steps))),
        lambda: _seconds(case, step, _batches(case, held.inputs, PLAIN)),
        lambda: _seconds(case, step, _batches(case, held.inputs, MODERN)),
    )
    where = (
        torch.cuda.get_device_name() if case.device == "cuda" else f"the processor, {torch.get_num_threads()} threads"
    )
    of = f"{case.model} on {where}, batches of {case.batch} at 32 pixels: a step alone / one whose batch is"
    return [
        Line(what=f"{of} taken from memory, cropped and mirrored", aim=0.95, is_least=True, first=alone, second=plain,
             note=f"; {case.batch * case.steps / min(plain):.0f} images/s"),
        Line(what=f"{of} put through RandAugment and erased besides", aim=None, first=alone, second=modern,
             note=f"; {case.batch * case.steps / min(modern):.0f} images/s"),
    ]  # fmt: skip


def measure_decoding() -> list[Line]:
    """Take reading encoded pictures in the fit's own process against reading them by two loader processes."""
    files = [_png(number) for number in range(256)]
    options = CIFAR10Options(size=224)

    def read(rows: Tensor) -> Tensor:
        pictures = [decode(files[row % len(files)], "perf", options) for row in rows.tolist()]
        return torch.from_numpy(np.stack(pictures))

    stream = Stream(size=512, shape_of_one=(3, 224, 224), read=read, sha256="")
    own, two = in_turns(3, *(partial(_read_all, stream, workers) for workers in (0, 2)))
    what = "512 pictures of 256 pixels to 224, batches of 64: the fit's own process / two loader processes"
    return [Line(what=what, aim=None, first=own, second=two, note=f"; {512 / min(two):.0f} images/s")]


def _png(seed: int) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((256, 256)).save(file, "JPEG", quality=90)
    return file.getvalue()


def _read_all(stream: Stream, workers: int) -> float:
    samples = arrange(Samples(inputs=stream, labels=torch.zeros(len(stream))), most_bytes=0, workers=workers)
    began = time.perf_counter()
    assert sum(len(batch) for batch in batches(samples.inputs, 64)) == len(stream)
    return time.perf_counter() - began


def _network(case: Case) -> nn.Module:
    spec = load_catalog().model(case.model.partition("[")[0]).spec
    net: nn.Module = spec.build(configured("model", case.model, spec.config), SHAPE, CLASSES).to(case.device)
    return net.train()


def _batches(case: Case, inputs: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    augmentation: Augmentation | None = build_augmentation(recipe, SHAPE, ("flip",))
    assert augmentation is not None
    for rows in torch.split(torch.randperm(len(inputs)), case.batch)[: case.steps]:
        yield scale(augmentation(to_numbers(inputs[rows])), HALF)


def _step(net: nn.Module, optimiser: torch.optim.Optimizer, case: Case, labels: Tensor, batch: Tensor) -> None:
    with autocast(torch.device(case.device), case.precision):
        loss = F.cross_entropy(net(batch), labels)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    loss.item()  # as a fit does, which looks whether it is finite


def _seconds(case: Case, step: Callable[[Tensor], None], fed: Iterator[Tensor]) -> float:
    if case.device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for batch in fed:
        step(batch)
    if case.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
