"""States whose number and size only the first batch tells: numbers under a key, as rows that processes concatenate.

A sum needs its size before the first sample is seen, and a process that sees none would never know it. Rows under keys
need neither: where two processes have the same key, `found` gives the rows of both. All three states are flat float64,
so that what torchmetrics puts in the place of an idle process fits beside them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


def sampled(indices: Iterable[int], size: int) -> list[int]:
    """Return `size` of the samples at these places in the split, or all, in ascending order: the fixed sample.

    They are those whose place has the smallest hash: which they are depends on nothing but how many there are, and the
    fixed sample of two parts is in those of the parts.
    """
    return sorted(sorted(indices, key=lambda index: hashlib.sha256(str(index).encode()).digest())[:size])


class KeyedMetric(Metric):
    """A metric that keeps flat rows of numbers, each under a whole number."""

    full_state_update = False
    keys: list[Tensor]  # (1,) each
    sizes: list[Tensor]  # (1,) each
    rows: list[Tensor]  # (its size,) each

    def __init__(self) -> None:
        super().__init__()
        for name in ("keys", "sizes", "rows"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.set_dtype(torch.float64)

    def places(self) -> dict[int, int]:
        """Return where in `rows` this process has those of each key; there are none yet of a key that is not in it."""
        return {int(key): place for place, key in enumerate(self.keys)}

    def keep(self, key: int, row: Tensor) -> None:
        """Keep a flat row of float64 under a key that has none."""
        self.keys.append(row.new_tensor([key]))
        self.sizes.append(row.new_tensor([len(row)]))
        self.rows.append(row)

    def put(self, place: int, row: Tensor) -> None:
        """Keep another row in the place of one."""
        # Never in place: a process that was merged into this one still has the same tensor.
        self.sizes[place] = row.new_tensor([len(row)])
        self.rows[place] = row

    def drop(self, keys: Collection[int]) -> None:
        """Forget the rows under these keys."""
        kept = [place for key, place in self.places().items() if key not in keys]
        for states in (self.keys, self.sizes, self.rows):
            states[:] = [states[place] for place in kept]

    def found(self) -> dict[int, list[Tensor]]:
        """Return the rows of all processes under each key, keys in ascending order."""
        if len(self.keys) == 0:
            return {}
        keys = dim_zero_cat(self.keys)
        found: dict[int, list[Tensor]] = {int(key): [] for key in keys.sort().values}
        # Of several processes the rows come as one tensor; of this one alone as they are kept, without a copy.
        state: Tensor | list[Tensor] = self.rows
        if isinstance(state, Tensor) or len(state) != len(keys):
            state = list(torch.split(dim_zero_cat(state), dim_zero_cat(self.sizes).int().tolist()))
        for key, row in zip(keys, state, strict=True):
            found[int(key)].append(row)
        return found
