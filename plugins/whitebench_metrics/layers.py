"""What measures of layers share: for each quantity and layer, its mean and standard deviation over samples.

All states are sums over samples, in arrays of a fixed number of layers: a process that saw no batch, and so
does not know how many layers there are, can still be added to one that did. A sum of squares in float64
leaves the standard deviation uncertain by some 1e-7 of the mean, below what float32 activations carry.

Legend: B batch, L layers, Q quantities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from whitebench import Reading, WhitebenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_LAYERS = 512
NUMBERS_AT_ONCE = 2**21
"""Bounds the float64 copies of a layer, whatever the batch: 16 MiB each, or one sample."""


class LayerStatistics(Metric):
    """Statistics over samples of several quantities per layer; children say which and how to read them."""

    full_state_update = False
    samples: Tensor  # (L,)
    counts: Tensor  # (Q, L)
    sums: Tensor  # (Q, L)
    squares: Tensor  # (Q, L)

    quantities: tuple[str, ...] = ()
    lacking: Mapping[str, str] = MappingProxyType({})
    """The quantities that a sample need not have, where NaN says so, and why a layer is unscored if none has it."""

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(len(self.quantities), MOST_LAYERS, dtype=torch.float64)
        self.add_state("samples", torch.zeros(MOST_LAYERS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("counts", zeros.long(), dist_reduce_fx="sum")
        self.add_state("sums", zeros, dist_reduce_fx="sum")
        self.add_state("squares", zeros.clone(), dist_reduce_fx="sum")

    def measure(self, *layers: Tensor) -> Mapping[str, Tensor]:
        """Return each quantity of one layer's tensors (B, …), one of each kind, per sample: (B,), float64."""
        raise NotImplementedError

    def read(self, profiles: Mapping[str, Profile]) -> dict[str, Reading]:
        """Return the readings that the quantities' profiles make."""
        raise NotImplementedError

    def update(self, *kinds: Sequence[Tensor]) -> None:
        """Add a batch: of each kind of trace, one tensor (B, …) per layer.

        Raises:
            WhitebenchError: there are too many layers, or more of one kind than of another.
        """
        depths = [len(layers) for layers in kinds]
        if max(depths) > MOST_LAYERS:
            raise WhitebenchError(
                f"{max(depths)} layers were traced; {type(self).__name__} takes at most {MOST_LAYERS}"
            )
        if len(set(depths)) > 1:
            raise WhitebenchError(f"{type(self).__name__} compares layer by layer; {depths} layers were traced")
        for place, layers in enumerate(zip(*kinds, strict=True)):
            numbers = sum(layer[0].numel() for layer in layers) if len(layers[0]) else 1
            at_once = max(1, NUMBERS_AT_ONCE // max(1, numbers))
            for parts in zip(*(torch.split(layer, at_once) for layer in layers), strict=True):
                measured = self.measure(*parts)
                self._add(place, torch.stack([measured[name] for name in self.quantities]))

    def _add(self, place: int, values_QB: Tensor) -> None:
        may_lack_Q1 = torch.tensor([[name in self.lacking] for name in self.quantities], device=values_QB.device)
        has_QB = ~(values_QB.isnan() & may_lack_Q1)
        values_QB = values_QB.where(has_QB, 0.0)
        self.samples[place] += values_QB.shape[1]
        self.counts[:, place] += has_QB.sum(dim=1)
        self.sums[:, place] += values_QB.sum(dim=1)
        self.squares[:, place] += values_QB.square().sum(dim=1)

    def compute(self) -> dict[str, Reading]:
        """Return the readings over all samples so far."""
        depth = int((self.samples > 0).sum())
        counts_QL = self.counts[:, :depth]
        means_QL = self.sums[:, :depth] / counts_QL
        scatter_QL = (self.squares[:, :depth] - counts_QL * means_QL.square()).clamp(min=0)
        stds_QL = (scatter_QL / (counts_QL - 1)).sqrt()
        return self.read(
            {
                name: Profile(
                    means=tuple(means_QL[q].tolist()),
                    stds=tuple(stds_QL[q].tolist()) if bool((counts_QL[q] > 1).all()) else (),
                    counts=tuple(counts_QL[q].tolist()),
                    lacking=self.lacking.get(name, ""),
                )
                for q, name in enumerate(self.quantities)
            }
        )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One quantity over the layers."""

    means: tuple[float, ...]
    """Per layer, the mean over samples."""
    stds: tuple[float, ...]
    """Per layer, the unbiased standard deviation over samples; empty for fewer than two samples."""
    counts: tuple[int, ...]
    """Per layer, the number of samples that have it."""
    lacking: str = ""
    """Why a sample may not have it."""

    @property
    def mean(self) -> float | None:
        """The mean over layers; None where no sample was seen."""
        return sum(self.means) / len(self.means) if self.means else None

    @property
    def missing(self) -> str | None:
        """Why there is no number; None where there is one for every layer."""
        empty = [place for place, count in enumerate(self.counts, start=1) if count == 0]
        if empty:
            return f"in layer {empty[0]} {self.lacking}"
        return None if self.means else "no sample was seen"

    def reading(self, *, null: tuple[str, Profile] | None = None, **facts: Any) -> Reading:
        """Return the reading whose headline is the mean over layers.

        `null` is the same quantity where the claim cannot hold, after its name.
        """
        if self.missing:
            return Reading(value=None, unscored=self.missing, **facts)
        nulls = {null[0]: null[1]} if null else {}
        return Reading(
            value=self.mean,
            profile=self.means,
            spread=self.stds,
            nulls={name: profile.mean for name, profile in nulls.items() if profile.mean is not None},
            null_profiles={name: profile.means for name, profile in nulls.items()},
            **facts,
        )
