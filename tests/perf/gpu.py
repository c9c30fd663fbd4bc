"""How fast and how lean the models are on a GPU in bf16, as ratios measured in one run: a part of `make perf`.

As models.py measures them on the CPU, with batches that fill a GPU: CRATE-T and CRATE-B at 224 x 224 pixels against the
textbook (textbook_crate.py) with the same weights, and ToST-T against DeiT-T by the number of tokens, each by its time
and by its peak memory. Matrices multiply in bf16 under torch's autocast, as by `precision = "bf16-mixed"` in a budget;
weights and optimiser are float32. Where there is no GPU it says so. It fails nothing.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.perf.line import Line, in_turns, print_each
from tests.perf.models import CLASSES, SHAPE, SIDES, SPECS, build, by_tokens, compiled, pair
from whitebench.cost import PeakMemory, count_macs

REPEATS, WORK = 7, 3
"""How often a thing is measured, and how often it is done for one measurement."""

BATCHES = {"neurips-tiny": 512, "neurips-base": 128}
TOST_BATCH = 16
PRODUCT = 8192
"""Side of the square matrices whose product says how fast torch multiplies here in bf16."""


def main() -> None:
    """Measure one line after the other, and print each as soon as it is known."""
    if not torch.cuda.is_available():
        print("models on a GPU: not measured, torch sees none here")
        return
    print(f"models on {torch.cuda.get_device_name()}, bf16 under autocast, torch {torch.__version__}\n")
    print_each([
        *(partial(measure_crate, preset, batch) for preset, batch in BATCHES.items()),
        *(partial(measure_compiled, preset, batch) for preset, batch in BATCHES.items()),
        measure_tost,
    ])  # fmt: skip


def measure_crate(preset: str, batch: int) -> list[Line]:
    """Take forward pass, training step and peak memory against the textbook's, and the share of the GPU's peak."""
    ours, theirs = (model.cuda() for model in copy.deepcopy(pair(preset)))
    images = torch.randn(batch, *SHAPE, device="cuda")
    apart = _apart(ours, theirs, images)  # before the steps train each of them for itself
    factor = torch.randn(PRODUCT, PRODUCT, device="cuda", dtype=torch.bfloat16)
    textbook, forward, product = measured_in_turns(
        partial(forward_pass, theirs, images), partial(forward_pass, ours, images), lambda: torch.mm(factor, factor)
    )
    at_peak = [seconds * batch * count_macs(ours, SHAPE) / PRODUCT**3 for seconds in product]
    steps = [training_step(model, images) for model in (theirs, ours)]
    textbook_step, step = measured_in_turns(*steps)
    textbook_peak, peak = ([peak_of(one)] for one in steps)
    of = f"CRATE ({preset}), {batch} images"
    return [
        Line(what=f"{of}: the textbook's forward pass / ours", aim=1.5, is_least=True, first=textbook, second=forward,
             note=f"; {batch / min(forward):.0f} images/s; {apart}"),
        Line(what=f"{of}: its multiply-accumulates at the rate of torch's square products / its forward pass",
             aim=None, first=at_peak, second=forward,
             note=f"; torch multiplies at up to {2 * PRODUCT**3 / min(product) / 1e12:.0f} TFLOP/s"),
        Line(what=f"{of}: the textbook's training step / ours", aim=1.25, is_least=True,
             first=textbook_step, second=step, note=f"; {batch / min(step):.0f} images/s"),
        Line(what=f"{of}: peak memory of the textbook's training step / of ours", aim=None,
             first=textbook_peak, second=peak, unit="GiB"),
    ]  # fmt: skip


def measure_compiled(preset: str, batch: int) -> list[Line]:
    """Take a compiled training step against the textbook's, which is plain, and against that one compiled."""
    ours, theirs = (model.cuda() for model in copy.deepcopy(pair(preset)))
    images = torch.randn(batch, *SHAPE, device="cuda")
    steps = [training_step(model, images) for model in (theirs, compiled(theirs), compiled(ours))]
    plain, theirs_compiled, ours_compiled = measured_in_turns(*steps)
    plain_peak, _, ours_peak = ([peak_of(step)] for step in steps)
    of = f"CRATE ({preset}), {batch} images"
    return [
        Line(what=f"{of}: the textbook's training step / ours compiled", aim=1.6, is_least=True,
             first=plain, second=ours_compiled, note=f"; {batch / min(ours_compiled):.0f} images/s"),
        Line(what=f"{of}: the textbook's training step compiled / ours compiled", aim=None,
             first=theirs_compiled, second=ours_compiled),
        Line(what=f"{of}: peak memory of the textbook's training step / of ours compiled", aim=None,
             first=plain_peak, second=ours_peak, unit="GiB"),
    ]  # fmt: skip


def measure_tost() -> list[Line]:
    """Take a forward pass, and the peak memory of a training step, by the number of tokens."""
    forwards, peaks = {}, {}
    for name in SPECS:
        for tokens, side in SIDES.items():
            model, images = build(name, side).cuda(), torch.randn(TOST_BATCH, 3, side, side, device="cuda")
            forwards[name, tokens] = partial(forward_pass, copy.deepcopy(model).eval(), images)
            peaks[name, tokens] = [peak_of(training_step(model, images))]
    seconds = dict(zip(forwards, measured_in_turns(*forwards.values()), strict=True))
    return [
        *by_tokens(f"forward pass of {TOST_BATCH} images", seconds, unit="s"),
        *by_tokens(f"training step of {TOST_BATCH} images", peaks, unit="GiB"),
    ]


def forward_pass(model: nn.Module, images: Tensor) -> Tensor:
    """Return logits, in bf16 and without a gradient."""
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.bfloat16):
        logits: Tensor = model(images)
        return logits


def training_step(model: nn.Module, images: Tensor) -> Callable[[], None]:
    """Return what does one step of AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    labels = torch.arange(len(images), device="cuda") % CLASSES

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def _apart(ours: nn.Module, theirs: nn.Module, images: Tensor) -> str:
    """Say how far bf16 takes either from the textbook in float64, with the same weights."""
    few = images[:8]
    with torch.inference_mode():
        exact = copy.deepcopy(theirs).double()(few.double())
        errors = [float((forward_pass(model, few) - exact).abs().max() / exact.abs().max()) for model in (ours, theirs)]
    return "largest error of a logit, of the largest logit: ours {:.1e}, the textbook's {:.1e}".format(*errors)


def measured_in_turns(*works: Callable[[], object]) -> list[list[float]]:
    """Return the seconds of one piece of each work, measured in turns after two rounds that do not count."""
    measures = [partial(_seconds_of, work) for work in works]
    in_turns(2, *measures)
    return in_turns(REPEATS, *measures)


def _seconds_of(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(WORK):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / WORK


def peak_of(work: Callable[[], object]) -> float:
    """Return the GPU memory that work takes beyond what is held before, in GiB: once it has been done before."""
    work()
    torch.cuda.empty_cache()
    peak = PeakMemory("cuda")
    work()
    return peak.above_start() / 2**30


if __name__ == "__main__":
    main()
