"""How sharply attention selects: what the weights themselves say of "one relevant token, the rest next to nothing".

For the weights a_st that the query of token s gives to the key of token t, in one head, with t* the largest of a row:

    off-mass    1 - a_st*, the mean over s and heads: what all others together get
    zeros       |{t : a_st = 0}| / N, which a softmax never makes and a sparsemax does
    self        the share of rows with t* = s: a head that selects each query's own token separates nothing else

"Very small or zero weight on the irrelevant parts" is the claim of Tarzanagh et al. (arXiv 2308.16898) in words. The
null of off-mass is uniform attention, 1 - 1/N. Rows are scaled to sum to one; a row without weight is left out.

For the eye, the maps of a few samples (those whose place has the smallest hashes): what the class token, or where there
is none the average patch, gives to each patch, the mean over heads.

Legend: B batch, H heads, N tokens, n patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whitebench import MetricSpec, Picture, Reading, Reference, WhitebenchError
from whitebench_metrics.attention_maps import grid_of
from whitebench_metrics.keyed import KeyedMetric, sampled
from whitebench_metrics.layers import LayerStatistics, Profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torchmetrics import Metric

    from whitebench import MetricContext

NULL_NAME = "uniform attention"
MAPS = 3
"""Samples whose maps are kept."""


class Selection(LayerStatistics, KeyedMetric):
    """The three shares per layer, whose headlines are means over layers, and the maps of a few samples."""

    quantities = ("off-mass", "zeros", "self", "uniform")
    lacking = dict.fromkeys(("off-mass", "zeros", "self"), "no token gives any other a weight")

    def __init__(self, context: MetricContext) -> None:
        super().__init__()
        self.shape = context.shape
        self.prefix_tokens = context.layout.prefix_tokens

    def update(self, *kinds: Sequence[Tensor] | Tensor) -> None:
        """Add a batch: one (B, H, N, N) per layer, the samples' places (B,), and the samples (B, *shape)."""
        layers, index_B, inputs = kinds
        assert not isinstance(layers, Tensor)
        super().update(layers)
        batch = {int(index): place for place, index in enumerate(index_B)}
        sample = set(sampled([*self.places(), *batch], MAPS))
        self.drop(set(self.places()) - sample)
        for index in sample & set(batch):
            if (row := self._maps(layers, inputs[batch[index]], batch[index])) is not None:
                self.keep(index, row)

    def _maps(self, layers: Sequence[Tensor], sample: Tensor, place: int) -> Tensor | None:
        grid = grid_of(self.shape, layers[0].shape[-1] - self.prefix_tokens)
        if grid is None:
            return None
        maps = [layer[place].double().mean(dim=0) for layer in layers]
        queries = slice(0, 1) if self.prefix_tokens else slice(None)
        looks = [one_NN[queries, self.prefix_tokens :].mean(dim=0) for one_NN in maps]
        picture = sample.double().mean(dim=0).flatten()
        return torch.cat([picture.new_tensor([len(layers), *grid]), picture, *looks]).cpu()

    def measure(self, *layers: Tensor) -> Mapping[str, Tensor]:
        """Return each sample's mean over rows and heads."""
        (layer,) = layers
        if layer.ndim != 4 or layer.shape[2] != layer.shape[3]:
            raise WhitebenchError(f"attention is (B, heads, N, N); got a tensor of shape {tuple(layer.shape)}")
        rows_BHNN = layer.double()
        rows_BHNN = rows_BHNN / rows_BHNN.sum(dim=-1, keepdim=True)  # a row without weight becomes NaN: left out
        largest_BHN, selected_BHN = rows_BHNN.max(dim=-1)
        is_none_BHN = largest_BHN.isnan()
        own_N = torch.arange(layer.shape[-1], device=layer.device)
        shares = {
            "off-mass": 1 - largest_BHN,
            "zeros": (rows_BHNN == 0).double().mean(dim=-1),
            "self": (selected_BHN == own_N).double(),
        }
        kept = {name: one.masked_fill(is_none_BHN, torch.nan) for name, one in shares.items()}
        means = {name: one.flatten(1).nanmean(dim=1) for name, one in kept.items()}
        return {**means, "uniform": torch.full_like(means["self"], 1 - 1 / layer.shape[-1])}

    def read(self, profiles: Mapping[str, Profile]) -> dict[str, Reading]:
        """Return the three; only the first two are claimed."""
        off_mass = profiles["off-mass"].reading(direction="lower", null=(NULL_NAME, profiles["uniform"]))
        off_mass.pictures = {**off_mass.pictures, **self._pictures()}
        return {
            "off-mass": off_mass,
            "zeros": profiles["zeros"].reading(direction="higher"),
            "self": profiles["self"].reading(direction="none"),
        }

    def _pictures(self) -> dict[str, Picture]:
        found = self.found()
        pictures = {}
        for number, key in enumerate(sampled(found, MAPS), start=1):
            row = found[key][0]
            depth, *grid = map(int, row[:3].tolist())
            looks = row[len(row) - depth * grid[0] * grid[1] :].reshape(depth, *grid)
            sample = row[3 : len(row) - looks.numel()].reshape(self.shape[1:])
            scaled = (sample - sample.min()) / (sample.max() - sample.min()).clamp(min=1e-12) / 2
            pictures[f"map-{number}"] = Picture(
                kind="matrix",
                title=f"where attention looks in sample {key}",
                x="column",
                y="row",
                series={"sample, scaled": scaled, **{f"layer {n}": look for n, look in enumerate(looks, start=1)}},
            )
        return pictures


def _build(context: MetricContext) -> Metric:
    return Selection(context)


METRICS = [
    MetricSpec(
        name="selection",
        version=1,
        summary="how sharply a token selects, per layer: weight off the selected token, exact zeros, self-selection",
        direction="lower",
        unit="share",
        needs=("attention", "index", "inputs"),
        build=_build,
        untrained=True,
        reference=Reference(
            title="Tarzanagh et al., Transformers as Support Vector Machines", url="https://arxiv.org/abs/2308.16898"
        ),
    )
]
