"""How a broken rule is said: who breaks it, what was seen, what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def rule(condition: bool, who: str, seen: str, mend: str) -> None:  # noqa: FBT001  # reads as an assertion
    """Raise an AssertionError that says what was `seen` of `who` and how to mend it, unless `condition` holds."""
    if not condition:
        raise AssertionError(f"{who}: {seen}; {mend}")


@contextmanager
def attempt(who: str, doing: str, mend: str) -> Iterator[None]:
    """Turn whatever is raised inside into an AssertionError about `who`."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{who}: {doing} raised {type(error).__name__}: {error}; {mend}") from error


def is_close(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> bool:
    """Return whether two tensors agree up to a share of their largest entry: float32 sums differ in their order."""
    if one.shape != other.shape:
        return False
    scale = max(1e-6, float(other.detach().abs().max())) if other.numel() else 1.0
    return bool(torch.allclose(one, other, rtol=tolerance, atol=tolerance * scale))
