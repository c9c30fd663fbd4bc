"""What all randomness follows from: seeds made of numbers, and the generators that are set by them."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def mix(*numbers: int) -> int:
    """Return a seed below 2^63 that depends on every one of `numbers` and their order."""
    return int.from_bytes(hashlib.sha256(repr(tuple(map(int, numbers))).encode()).digest()[:8], "little") >> 1


def seed_everything(*numbers: int) -> int:
    """Seed torch, numpy and Python's own generator from all of `numbers`; return the seed."""
    seed = mix(*numbers)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # the same, but for 0.3 ms in which it notes from where it was called, for devices that are not here
        torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # the global one, which strangers' models may draw from
    random.seed(seed)
    return seed
