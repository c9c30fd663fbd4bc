"""How fast the models are, as ratios measured in one run: the second part of `make perf`. It fails nothing.

CRATE-T at 224 x 224 pixels, eight images at a time, against the textbook (textbook_crate.py): the same weights, which
must give the same logits, in float32. A training step is forward, cross-entropy, backward and AdamW. ToST-T against
DeiT-T, alike in width and depth, at 256, 1024 and 4096 tokens. Torch has the threads it takes by itself;
OMP_NUM_THREADS=1 in the environment gives it one, whose figures suffer less from what else the machine does.
"""

from __future__ import annotations

import copy
import multiprocessing
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.exc import BackendCompilerFailed

from tests.perf.line import Line, in_turns, print_each
from tests.perf.textbook_crate import TextbookCRATE
from whitebench import ModelSpec
from whitebench.cost import PeakMemory, count_macs
from whitebench.names import configure
from whitebench_models.crate import CRATE, CRATE_SPEC, CRATEConfig
from whitebench_models.tost import TOST
from whitebench_models.vit import VIT

REPEATS, FEW = 9, 5

SHAPE, CLASSES, BATCH = (3, 224, 224), 1000, 8
PRODUCT = 1024
"""Side of the square matrices whose product says how fast torch multiplies here: within 4 % of 2048's."""

SIDES = {256: 256, 1024: 512, 4096: 1024}
"""Tokens of 16 x 16 pixels: an image's side."""


def main() -> None:
    """Measure one line after the other, and print each as soon as it is known."""
    print(f"models, torch with {torch.get_num_threads()} threads\n")
    print_each([measure_forward, measure_step, measure_compiled_step, measure_tost_time, measure_tost_memory])


def measure_forward() -> list[Line]:
    """Time a forward pass against the textbook's, and against a product of square matrices."""
    ours, theirs = pair()
    factor = torch.randn(PRODUCT, PRODUCT)
    textbook, forward, product = _in_turns(
        REPEATS,
        partial(_forward_seconds, theirs, images()),
        partial(_forward_seconds, ours, images()),
        partial(_seconds_of, lambda: torch.mm(factor, factor)),
    )
    macs = count_macs(_Batched(ours), SHAPE)
    at_peak = [seconds * macs / PRODUCT**3 for seconds in product]
    rate = 2 * macs / min(at_peak) / 1e9
    return [
        Line(what="CRATE-T, the textbook's forward pass / ours", aim=1.5, is_least=True, first=textbook, second=forward,
             note=f"; {_apart(ours, theirs)}"),
        Line(what="CRATE-T, its multiply-accumulates at the rate of torch's square products / its forward pass",
             aim=0.7, is_least=True, first=at_peak, second=forward,
             note=f"; {macs / BATCH / 1e9:.2f} GMAC per image, torch multiplies at up to {rate:.0f} GFLOP/s"),
    ]  # fmt: skip


def measure_step() -> list[Line]:
    """Time a training step against the textbook's."""
    ours, theirs = pair()
    textbook, step = _in_turns(FEW, *(partial(_seconds_of, training_step(model)) for model in (theirs, ours)))
    return [Line(what="CRATE-T, the textbook's training step / ours", aim=1.25, is_least=True,
                 first=textbook, second=step)]  # fmt: skip


def measure_compiled_step() -> list[Line | str]:
    """Time a compiled training step against the textbook's, which is plain; and say what compiling does for that."""
    ours, theirs = pair()
    what = "CRATE-T, the textbook's training step / ours compiled"
    textbook, *steps = (training_step(model) for model in (theirs, *map(compiled, (theirs, ours))))
    try:
        for step in steps:
            step()
    except BackendCompilerFailed as error:  # as where there is no C++ compiler
        return [f"{what}\n    not measured: {str(error).splitlines()[0]}"]
    plain, theirs_compiled, ours_compiled = _in_turns(FEW, *(partial(_seconds_of, step) for step in (textbook, *steps)))
    return [
        Line(what=what, aim=1.6, is_least=True, first=plain, second=ours_compiled),
        Line(what="CRATE-T, the textbook's training step compiled / ours compiled", aim=None,
             first=theirs_compiled, second=ours_compiled),
    ]  # fmt: skip


def measure_tost_time() -> list[Line]:
    """Time a forward pass of one image, by the number of its tokens."""
    measures = {
        (name, tokens): partial(_forward_seconds, build(name, side).eval(), torch.randn(1, 3, side, side))
        for name in SPECS
        for tokens, side in SIDES.items()
    }
    seconds = dict(zip(measures, _in_turns(FEW, *measures.values()), strict=True))
    return by_tokens("forward pass", seconds, unit="s")


def measure_tost_memory() -> list[Line]:
    """Take the peak memory of a forward and backward pass of one image, each in a process of its own."""
    peaks = {
        (name, tokens): [_in_a_process(peak_of_step, name, side)] for name in SPECS for tokens, side in SIDES.items()
    }
    return by_tokens("forward and backward pass", peaks, unit="MiB")


def by_tokens(what: str, values: dict[tuple[str, int], list[float]], *, unit: str) -> list[Line]:
    """Return what a token costs in a long sequence against a short one, and what DeiT-T costs against ToST-T."""
    few, many = min(SIDES), max(SIDES)
    quantity = "time" if unit == "s" else "memory"
    each = {(name, tokens): [one / tokens for one in values[name, tokens]] for name, tokens in values}
    growth = [
        Line(what=f"{name}, {quantity} per token of a {what}: of {many} tokens / of {few}",
             aim=1.2 if name == "ToST-T" else None, first=each[name, many], second=each[name, few], unit=unit)
        for name in SPECS
    ]  # fmt: skip
    beside = [
        Line(what=f"{quantity} of a {what} of {tokens} tokens: DeiT-T / ToST-T", aim=None,
             first=values["DeiT-T", tokens], second=values["ToST-T", tokens], unit=unit)
        for tokens in SIDES
    ]  # fmt: skip
    return [*growth, *beside]


SPECS: dict[str, tuple[ModelSpec, str]] = {"ToST-T": (TOST, "tost-tiny"), "DeiT-T": (VIT, "deit-tiny")}


def build(name: str, side: int) -> nn.Module:
    """Return a new model for square images."""
    spec, preset = SPECS[name]
    return spec.build(configure(spec.name, spec.config, spec.presets[preset]), (3, side, side), CLASSES)


@cache
def pair(preset: str = "neurips-tiny") -> tuple[CRATE, TextbookCRATE]:
    """Return CRATE and the textbook's, with the same weights."""
    torch.manual_seed(0)
    config = configure("crate", CRATEConfig, CRATE_SPEC.presets[preset])
    ours, theirs = CRATE(config, SHAPE, CLASSES), TextbookCRATE(config, SHAPE, CLASSES)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@cache
def images() -> Tensor:
    """Return one batch."""
    return torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(0))


def training_step(model: nn.Module) -> Callable[[], None]:
    """Return a step that trains the model on one batch."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    labels = torch.arange(BATCH)

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(model(images()), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def compiled(model: nn.Module) -> nn.Module:
    """Return a copy that compiles what it does."""
    twin = copy.deepcopy(model)
    twin.compile()
    return twin


def peak_of_step(name: str, side: int) -> float:
    """Return the peak memory of a forward and backward pass, in MiB above the model's own."""
    model, image = build(name, side), torch.randn(1, 3, side, side)
    peak = PeakMemory()
    loss = model(image).square().sum()
    loss.backward()
    return peak.above_start() / 2**20


class _Batched(nn.Module):
    """A model as it works on a whole batch: it may multiply less then than `BATCH` times what it does alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image_1CHW: Tensor) -> Tensor:
        logits_BC: Tensor = self.model(image_1CHW.expand(BATCH, -1, -1, -1))
        return logits_BC


def _apart(ours: nn.Module, theirs: nn.Module) -> str:
    """See that two models compute the same, to the rounding of float32, and say how nearly."""
    with torch.inference_mode():
        exact = copy.deepcopy(theirs).double()(images().double())
        errors = [float((model(images()) - exact).abs().max() / exact.abs().max()) for model in (ours, theirs)]
    assert max(errors) < 1e-5, errors
    return "largest error of a logit, of the largest logit: ours {:.1e}, the textbook's {:.1e}".format(*errors)


def _in_turns(times: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Measure in turns, after a round that does not count: torch sets up what it needs in a first pass."""
    in_turns(1, *measures)
    return in_turns(times, *measures)


def _forward_seconds(model: nn.Module, batch: Tensor) -> float:
    with torch.inference_mode():
        return _seconds_of(lambda: model(batch))


def _seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _in_a_process(measure: Callable[..., float], *arguments: Any) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


if __name__ == "__main__":
    main()
