"""What attention looks at: how widely (entropy), and how far (distance).

For the weights a_st that the query of token s gives to the key of token t, in one head:

    entropy     -sum_t a_st log a_st in nats, the mean over s and heads: log N where all are alike, 0 where one has all
    distance    sum_t a_st |p_s - p_t|, the mean over s and heads: p is a patch's place in the grid, in patches
                (Dosovitskiy et al., arXiv 2010.11929, section 4.5, figure 7, there in pixels)

Rows are scaled to sum to one; a row that gives nothing to anybody (as a threshold makes them) is left out. Tokens
before the patches (a class token) have no place: of a distance their rows and columns are left out first. The null is
uniform attention, for entropy also the largest there is.

Legend: B batch, H heads, N tokens, n patches.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whitebench import MetricSpec, Picture, Reading, Reference, WhitebenchError
from whitebench_metrics.layers import LayerStatistics, Profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchmetrics import Metric

    from whitebench import MetricContext, Shape

NULL_NAME = "uniform attention"


def entropy(weights_BHNN: Tensor) -> Tensor:
    """Return each row's entropy in nats, (B, H, N), float64; not a number where the row has no weight."""
    rows_BHNN = weights_BHNN.double()
    entropy_BHN: Tensor = torch.special.entr(rows_BHNN / rows_BHNN.sum(dim=-1, keepdim=True)).sum(dim=-1)
    return entropy_BHN


def distance(weights_BHnn: Tensor, distances_nn: Tensor) -> Tensor:
    """Return each row's mean distance in patches, (B, H, n), float64; not a number where the row has no weight."""
    rows_BHnn = weights_BHnn.double()
    return (rows_BHnn * distances_nn).sum(dim=-1) / rows_BHnn.sum(dim=-1)


def grid_of(shape: Shape, patches: int) -> tuple[int, int] | None:
    """Return into how many rows and columns of square patches an image (channels, height, width) is cut, if it is."""
    if len(shape) != 3:
        return None
    _, height, width = shape
    side = math.isqrt(height * width // patches) if patches else 0
    fits = side > 0 and height % side == width % side == 0 and (height // side) * (width // side) == patches
    return (height // side, width // side) if fits else None


@lru_cache(maxsize=8)
def grid_distances(rows: int, columns: int) -> Tensor:
    """Return the Euclidean distance between every two places of a grid, row by row, (n, n), float64."""
    places_n2 = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    return torch.cdist(places_n2, places_n2, compute_mode="donot_use_mm_for_euclid_dist")


class AttentionStatistics(LayerStatistics):
    """A quantity of attention per layer, over all heads and in each."""

    name = ""
    title = ""
    unit = ""

    def __init__(self, heads: int) -> None:
        self.heads = heads
        self.quantities = (self.name, "uniform", *(f"head {head}" for head in range(1, heads + 1)))
        self.lacking = dict.fromkeys((self.name, *self.quantities[2:]), "no token gives any other a weight")
        super().__init__()

    def per_row(self, weights_BHNN: Tensor) -> tuple[Tensor, float]:
        """Return the quantity of each row, and that of uniform attention."""
        raise NotImplementedError

    def measure(self, *layers: Tensor) -> Mapping[str, Tensor]:
        """Return each sample's mean over rows, over all heads and in each."""
        (layer,) = layers
        if layer.ndim != 4 or layer.shape[1] != self.heads or layer.shape[2] != layer.shape[3]:
            raise WhitebenchError(
                f"attention is (B, {self.heads} heads, N, N); got a tensor of shape {tuple(layer.shape)}"
            )
        rows_BHN, uniform = self.per_row(layer)
        in_heads = {f"head {head}": one_BN.nanmean(dim=-1) for head, one_BN in enumerate(rows_BHN.unbind(1), start=1)}
        overall_B = rows_BHN.flatten(1).nanmean(dim=-1)
        return {self.name: overall_B, "uniform": torch.full_like(overall_B, uniform), **in_heads}

    def read(self, profiles: Mapping[str, Profile]) -> dict[str, Reading]:
        """Return the reading over all heads; each head's is in its picture."""
        in_heads = {
            name: torch.tensor(profile.means, dtype=torch.float64)
            for name, profile in profiles.items()
            if name.startswith("head ") and not profile.missing
        }
        drawn = Picture(kind="lines", title=f"{self.title} in each head", x="layer", y=self.unit, series=in_heads)
        pictures = {"heads": drawn} if in_heads else {}
        return {"": profiles[self.name].reading(null=(NULL_NAME, profiles["uniform"]), pictures=pictures)}


class AttentionEntropy(AttentionStatistics):
    """The mean entropy of attention's rows in nats."""

    name, title, unit = "entropy", "entropy of the attention", "nats"

    def per_row(self, weights_BHNN: Tensor) -> tuple[Tensor, float]:
        """Return each row's entropy, and log N."""
        return entropy(weights_BHNN), math.log(weights_BHNN.shape[-1])


class AttentionDistance(AttentionStatistics):
    """The mean distance in patches between who looks and what is looked at."""

    name, title, unit = "distance", "distance of the attention", "patches"

    def __init__(self, heads: int, shape: Shape, prefix_tokens: int) -> None:
        super().__init__(heads)
        self.shape = shape
        self.prefix_tokens = prefix_tokens
        self.add_state("tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="max")

    tokens: Tensor
    """How many the first layer that cannot be laid out has; 0 where every layer can."""

    def update(self, *kinds: Sequence[Tensor]) -> None:
        """Add a batch: one (B, H, N, N) per layer, if its patches form a grid."""
        (layers,) = kinds
        strange = [
            layer.shape[-1] for layer in layers if grid_of(self.shape, layer.shape[-1] - self.prefix_tokens) is None
        ]
        if strange:
            self.tokens = self.tokens.clamp(min=strange[0])
        else:
            super().update(*kinds)

    def per_row(self, weights_BHNN: Tensor) -> tuple[Tensor, float]:
        """Return each patch's distance, and that of a patch that looks at all alike."""
        patches_BHnn = weights_BHNN[..., self.prefix_tokens :, self.prefix_tokens :]
        grid = grid_of(self.shape, patches_BHnn.shape[-1])
        assert grid is not None, "update lets nothing else in"
        distances_nn = grid_distances(*grid).to(patches_BHnn.device)
        return distance(patches_BHnn, distances_nn), float(distances_nn.mean())

    def compute(self) -> dict[str, Reading]:
        """Return the reading over all samples so far."""
        if tokens := int(self.tokens):
            reason = (
                f"{tokens} tokens, {self.prefix_tokens} of them before the patches, form no grid of square patches on "
                f"samples of shape {tuple(self.shape)}"
            )
            return {"": Reading(value=None, unscored=reason)}
        return super().compute()


def _entropy(context: MetricContext) -> Metric:
    return AttentionEntropy(context.layout.heads)


def _distance(context: MetricContext) -> Metric:
    return AttentionDistance(context.layout.heads, context.shape, context.layout.prefix_tokens)


METRICS = [
    MetricSpec(
        name="attention-entropy",
        version=1,
        summary="how widely a token looks, per layer: the entropy of its attention weights",
        direction="none",
        unit="nats",
        needs=("attention",),
        build=_entropy,
        untrained=True,
    ),
    MetricSpec(
        name="attention-distance",
        version=1,
        summary="how far a patch looks, per layer: the mean distance to other patches, by their attention weights",
        direction="none",
        unit="patches",
        needs=("attention",),
        build=_distance,
        untrained=True,
        reference=Reference(
            title="Dosovitskiy et al., An Image is Worth 16x16 Words", url="https://arxiv.org/abs/2010.11929"
        ),
    ),
]
