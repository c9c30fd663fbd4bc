"""The footing on which every contestant computes: settings of torch that hold for a whole process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch

from whitebench.errors import WhitebenchError

Footing: TypeAlias = Mapping[str, object]
"""Settings by what people call them."""


def take(threads: int) -> Footing:
    """Set what every fit computes with, whatever a plugin has set while it was loaded; return it by name."""
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)  # noqa: FBT003  # torch's own signature
    torch.set_float32_matmul_precision("highest")
    return _now()


def check(footing: Footing, who: str) -> None:
    """See that `who` has left the footing as it was.

    Raises:
        WhitebenchError: something was changed; says what, from what and to what.
    """
    now = _now()
    changes = [f"{name} from {was} to {now[name]}" for name, was in footing.items() if now[name] != was]
    if changes:
        raise WhitebenchError(
            f"{who} changed torch's {' and '.join(changes)}, which holds for everything in the process: its numbers "
            "would not compare with others'; leave the setting alone, or put it back before you return"
        )


def _now() -> Footing:
    return {
        "default dtype": torch.get_default_dtype(),
        "number of threads": torch.get_num_threads(),
        "deterministic mode": ("off", "warn", "error")[torch.get_deterministic_debug_mode()],
        "float32 matmul precision": torch.get_float32_matmul_precision(),
    }
