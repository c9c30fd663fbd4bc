"""Verdicts: whether a layer's two steps do what they are said to do, each a comparison of what went in and came out.

compression    attention lowers the coding rate of the tokens in this layer's own subspaces,
               R^c(Z'; U) < R^c(Z; U)
sparsification the step after it makes the tokens sparser, by all three measures of sparsity.py

Per sample, the change is what comes out less what goes in. A layer obeys if the mean change lies on the claimed side of
zero by more than two of its standard errors over samples. One that lies within them is undecided, and does not obey.
Each verdict's value is the share of layers that obey, its profile the share of samples in which the layer did. The
changes themselves, with their spread over samples, and the share of layers left undecided stand beside.

Which rate decides the verdict is disputed (arXiv 2411.17182), so there are three. `normalised` and `raw`, as
coding_rate.py tells them apart, are of LN(Z) U^T and LN(Z') U^T: the layer's own norm before both, for that is where
the layer's attention takes Z, and where U was learnt. `residual` is the raw rate of Z U^T and Z' U^T, past the norm:
what the formula says of the residual stream. There a longer token has a larger rate, and adding makes tokens longer: in
CRATEs trained on digits (three seeds) most layers obey by the first two, and none by the last.

The sparsifying step takes Z', the tokens between the two steps (`compressed`), and yields the codes. Z' is a sum in
which no entry is exactly zero, so any ReLU obeys by `nonzero`: that is the claim in its own words, but says nothing of
how well it is kept. A GELU makes zeros where float32 rounds its tail to them, below -5.55: a ViT trained on characters
has 0.3 % of them and so obeys in every layer, an untrained one has none. The two other measures can go either way, but
as a rule an untrained layer obeys by them too: what training adds is in the changes, beside those of the untrained
network. Where codes are wider than tokens, as in an MLP, codes without structure would change by what random ones of
the two widths differ in (0.02 from 64 to 256).

Legend: B batch, N tokens, K heads, P head width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from whitebench import MetricSpec, Reading, Reference
from whitebench_metrics.coding_rate import normalised_rate, rate, split_heads
from whitebench_metrics.layers import LayerStatistics, Profile
from whitebench_metrics.sparsity import SPARSER, sparsity_of

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

    from whitebench import MetricContext

Way: TypeAlias = Literal["lower", "higher"]

STANDARD_ERRORS = 2.0


class Verdicts(LayerStatistics):
    """The change of several measures across a step of each layer, and whether it has the claimed sign."""

    claims: ClassVar[Mapping[str, Literal["lower", "higher"]]]
    """What is measured, and which way the step claims to move it."""
    unit: ClassVar[str]

    def __init__(self) -> None:
        self.quantities = tuple(f"{name} {what}" for name in self.claims for what in ("change", "obeys"))
        super().__init__()

    def changes(self, *layers: Tensor) -> Mapping[str, Tensor]:
        """Return each measure of what comes out of a layer's step less that of what goes in, per sample: (B,)."""
        raise NotImplementedError

    def measure(self, *layers: Tensor) -> Mapping[str, Tensor]:
        """Return each sample's changes, and 1 where they have the claimed sign."""
        found = {}
        for name, change_B in self.changes(*layers).items():
            found[f"{name} change"] = change_B
            found[f"{name} obeys"] = ((change_B < 0) if self.claims[name] == "lower" else (change_B > 0)).double()
        return found

    def read(self, profiles: Mapping[str, Profile]) -> dict[str, Reading]:
        """Return for each measure the share of layers that obey, then the changes and the shares left undecided."""
        obeying, changes, undecided = {}, {}, {}
        for name, way in self.claims.items():
            change, obeys = profiles[f"{name} change"], profiles[f"{name} obeys"]
            changes[f"{name}-change"] = change.reading(direction=way, unit=self.unit)
            if missing := change.missing or (None if change.stds else "one sample has no standard error"):
                obeying[name] = Reading(value=None, unscored=missing)
                undecided[f"{name}-undecided"] = Reading(value=None, unscored=missing, direction="none")
                continue
            verdicts = [verdict(layer, way) for layer in zip(change.means, change.stds, change.counts, strict=True)]
            share = {one: verdicts.count(one) / len(verdicts) for one in ("obeys", "undecided")}
            obeying[name] = Reading(value=share["obeys"], profile=obeys.means)
            undecided[f"{name}-undecided"] = Reading(value=share["undecided"], direction="none")
        return {**obeying, **changes, **undecided}


def verdict(layer: tuple[float, float, int], way: Way) -> Literal["obeys", "undecided", "disobeys"]:
    """Return what a layer does, from the mean, the standard deviation and the number of samples of its change."""
    mean, std, count = layer
    if abs(mean) <= STANDARD_ERRORS * std / count**0.5:
        return "undecided"
    return "obeys" if (mean < 0) == (way == "lower") else "disobeys"


class CompressionVerdicts(Verdicts):
    """Whether attention lowers the coding rate in the heads' subspaces."""

    claims: ClassVar[Mapping[str, Way]] = {"normalised": "lower", "raw": "lower", "residual": "lower"}
    unit = "nats"

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def changes(self, *layers: Tensor) -> Mapping[str, Tensor]:
        """Return how the three rates change, of tokens (B, N, K·P) twice, and (B, 2, N, K·P) past the norm."""
        before, after, past = layers
        old, new = split_heads(before, self.heads), split_heads(after, self.heads)
        old_residual, new_residual = (split_heads(each, self.heads) for each in past.unbind(dim=1))
        return {
            "normalised": normalised_rate(new) - normalised_rate(old),
            "raw": rate(new) - rate(old),
            "residual": rate(new_residual) - rate(old_residual),
        }


class SparsificationVerdicts(Verdicts):
    """Whether the step after attention makes the tokens sparser."""

    # The first is the headline: one that can go either way.
    claims: ClassVar[Mapping[str, Way]] = {name: SPARSER[name] for name in ("above-threshold", "hoyer", "nonzero")}
    unit = ""

    def changes(self, *layers: Tensor) -> Mapping[str, Tensor]:
        """Return how the three measures of sparsity change, of tokens (B, …, n) and codes."""
        before, after = layers
        old, new = sparsity_of(before), sparsity_of(after)
        return {name: new[name] - old[name] for name in self.claims}


def _compression(context: MetricContext) -> Metric:
    return CompressionVerdicts(context.layout.heads)


def _sparsification(_: MetricContext) -> Metric:
    return SparsificationVerdicts()


_CRATE = Reference(
    title="Yu et al., White-Box Transformers via Sparse Rate Reduction", url="https://arxiv.org/abs/2306.01129"
)

METRICS = [
    MetricSpec(
        name="compression-verdicts",
        version=1,
        summary="share of layers whose attention lowers the coding rate in their own subspaces, by three forms of it",
        direction="higher",
        unit="share",
        needs=("projections", "compressed-projections", "residual-projections"),
        build=_compression,
        untrained=True,
        reference=_CRATE,
    ),
    MetricSpec(
        name="sparsification-verdicts",
        version=1,
        summary="share of layers whose second step makes the tokens sparser, by three measures of sparsity",
        direction="higher",
        unit="share",
        needs=("compressed", "codes"),
        build=_sparsification,
        untrained=True,
        reference=_CRATE,
    ),
]
