"""What measures of layers share: for each quantity and layer, its mean and standard deviation over samples.

All states are sums over samples, in arrays of a fixed number of layers: a process that saw no batch, and so
does not know how many layers there are, can still be added to one that did. A sum of squares in float64
leaves the standard deviation uncertain by some 1e-7 of the mean, below what float32 activations carry.

Legend: B batch, L layers, Q quantities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from whitebench import Reading, WhitebenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_LAYERS = 512
SAMPLES_AT_ONCE = 64
"""Bounds the float64 copies of a layer, whatever the batch."""


class LayerStatistics(Metric):
    """Statistics over samples of several quantities per layer; children say which and how to read them."""

    full_state_update = False
    counts: Tensor  # (L,)
    sums: Tensor  # (Q, L)
    squares: Tensor  # (Q, L)

    quantities: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(len(self.quantities), MOST_LAYERS, dtype=torch.float64)
        self.add_state("counts", torch.zeros(MOST_LAYERS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("sums", zeros, dist_reduce_fx="sum")
        self.add_state("squares", zeros.clone(), dist_reduce_fx="sum")

    def measure(self, layer: Tensor) -> Mapping[str, Tensor]:
        """Return each quantity of one layer's tensor (B, …), per sample: (B,), float64."""
        raise NotImplementedError

    def read(self, profiles: Mapping[str, Profile]) -> dict[str, Reading]:
        """Return the readings that the quantities' profiles make."""
        raise NotImplementedError

    def update(self, layers: Sequence[Tensor]) -> None:
        """Add a batch: one tensor (B, …) per layer."""
        if len(layers) > MOST_LAYERS:
            raise WhitebenchError(
                f"{len(layers)} layers were traced; {type(self).__name__} takes at most {MOST_LAYERS}"
            )
        for place, layer in enumerate(layers):
            for part in torch.split(layer, SAMPLES_AT_ONCE):
                measured = self.measure(part)
                values_QB = torch.stack([measured[name] for name in self.quantities])
                self.counts[place] += len(part)
                self.sums[:, place] += values_QB.sum(dim=1)
                self.squares[:, place] += values_QB.square().sum(dim=1)

    def compute(self) -> dict[str, Reading]:
        """Return the readings over all samples so far."""
        depth = int((self.counts > 0).sum())
        counts_L = self.counts[:depth]
        means_QL = self.sums[:, :depth] / counts_L
        scatter_QL = (self.squares[:, :depth] - counts_L * means_QL.square()).clamp(min=0)
        has_spread = bool((counts_L > 1).all())
        stds_QL = (scatter_QL / (counts_L - 1)).sqrt() if has_spread else means_QL[:, :0]
        return self.read(
            {
                name: Profile(means=tuple(means), stds=tuple(stds))
                for name, means, stds in zip(self.quantities, means_QL.tolist(), stds_QL.tolist(), strict=True)
            }
        )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One quantity over the layers."""

    means: tuple[float, ...]
    """Per layer, the mean over samples."""
    stds: tuple[float, ...]
    """Per layer, the unbiased standard deviation over samples; empty for fewer than two samples."""

    @property
    def mean(self) -> float | None:
        """The mean over layers; None where no sample was seen."""
        return sum(self.means) / len(self.means) if self.means else None

    def reading(self, **facts: Any) -> Reading:
        """Return the reading whose headline is the mean over layers."""
        unscored = None if self.means else "no sample was seen"
        return Reading(value=self.mean, profile=self.means, spread=self.stds, unscored=unscored, **facts)
