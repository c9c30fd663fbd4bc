"""A step taken before training begins, to see whether memory holds it: else in how many pieces it does.

What is found changes a number by no more than rounding: the gradients of pieces add up to those of the whole.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from whitebench.cost import forget_peak
from whitebench.errors import WhitebenchError
from whitebench.memory import is_shortage

KEPT = 3
"""How many times the weights' memory a fit holds beside them: their gradients, and AdamW's two means."""


def pieces_that_fit(step: Callable[[int], object], samples: int, *, most: int) -> int:
    """Return in how many pieces a step has to be taken: 1, 2, 4, … and at most `most`.

    Args:
        step: takes a piece of so many samples.
        samples: of the whole step.
        most: 1 where the step cannot be taken in pieces.

    Raises:
        Exception: what `step` raised, if that is no shortage of memory or there can be no more pieces.
    """
    pieces = 1
    while not _fits(step, -(-samples // pieces), is_last=pieces >= most):
        gc.collect()  # what the step held may stand in circles
        pieces = min(2 * pieces, most)
    return pieces


def _fits(step: Callable[[int], object], samples: int, *, is_last: bool) -> bool:
    try:
        step(samples)
    except Exception as error:
        if is_last or not is_shortage(error):
            raise
        return False  # the error is let go of here, and with it what its frames hold
    return True


@contextmanager
def rehearsing(model: nn.Module, weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Hold the memory that a fit holds beside its weights; leave buffers, gradients and memory's peak as they were."""
    before = [buffer.clone() for buffer in model.buffers()]
    held: list[Tensor] = []
    try:
        held += [torch.empty_like(weight) for weight in weights for _ in range(KEPT)]
        yield
    finally:
        held.clear()
        for buffer, was in zip(model.buffers(), before, strict=True):
            buffer.copy_(was)
        for weight in weights:
            weight.grad = None
        forget_peak(weights[0].device)


def refuse_memory_of_batches(who: str, model: nn.Module, step: Callable[[], object]) -> None:
    """Refuse a model that keeps something of each batch it is trained on, as batch normalisation does.

    Raises:
        WhitebenchError: a step changes a buffer; names it.
    """
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    step()
    changed = [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]
    if changed:
        raise WhitebenchError(
            f"{who}: each training step changes {changed[0]!r}, so that several devices, or a batch in pieces, would "
            "train another model: run it with --devices 1, on a device that holds the whole batch"
        )
