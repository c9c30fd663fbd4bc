"""Python's collector of garbage, which looks for cycles among millions of objects of a store where there is none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collecting_nothing() -> Iterator[None]:
    """Let no garbage be collected: while a ledger is read it takes half the time."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()


@contextmanager
def keeping() -> Iterator[None]:
    """Let no garbage be collected, nor ever be looked for in what was made meanwhile: it goes when nobody holds it."""
    gc.collect()
    with collecting_nothing():
        yield
        gc.freeze()
