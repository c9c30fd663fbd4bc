"""Settings of torch that hold for a whole process are the same for every contestant."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from whitebench import footing
from whitebench.errors import WhitebenchError


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    mode, threads = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    yield
    torch.set_deterministic_debug_mode(mode)
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_float32_matmul_precision("highest")


def test_the_footing_is_taken_whatever_was_set_before() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    torch.set_float32_matmul_precision("medium")
    assert footing.take(threads=1) == {
        "default dtype": torch.float32,
        "number of threads": 1,
        "deterministic mode": "warn",
        "float32 matmul precision": "highest",
    }


def test_a_footing_that_was_left_alone_is_no_error() -> None:
    footing.check(footing.take(threads=1), "model tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: torch.set_default_dtype(torch.float64), "default dtype from torch.float32 to torch.float64, which"),
        (lambda: torch.set_num_threads(2), "number of threads from 1 to 2, which"),
        (lambda: torch.use_deterministic_algorithms(False), "deterministic mode from warn to off, which"),
        (lambda: torch.set_float32_matmul_precision("high"), "float32 matmul precision from highest to high, which"),
    ],
)
def test_who_changes_the_footing_is_told_what_from_what_to_what(change: Callable[[], None], message: str) -> None:
    taken = footing.take(threads=1)
    change()
    with pytest.raises(WhitebenchError, match=f"model tiny changed torch's {message}"):
        footing.check(taken, "model tiny")
