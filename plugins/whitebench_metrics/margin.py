"""The margin metric: is a trained head near the maximum-margin separation of the tokens it selects?

Per layer and head, on a fixed sample of the split (those whose place has the smallest hashes), from the head's input
tokens and its bilinear form; margins.py has the definitions, after Tarzanagh et al. (arXiv 2308.16898):

    rho, kappa       of 32 of the tenth of queries with the largest gaps, the mean of 5 draws (of 1 among many tokens)
    rho-psd          the same, of one draw, against the best positive semidefinite W, where the projections are tied
    gap, gap-p5      the median and the 5th percentile of the gap over all queries, in nats
    angular          the median angular margin
    duality-gap      the largest certified gap of all solutions: how sure the best is the best
    separable        the share of heads for which a best exists

A layer is the mean over its heads. Beside it stands the same of a random W with the same singular values (a random
positive semidefinite one where the projections are tied), which selects for itself; the harness adds the untrained
network's. Trained networks are far from 1: the claim is that they are nearer than their nulls.

Legend: B batch, L layers, H heads, N tokens, D width, S samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whitebench import MetricSpec, Picture, Reading, Reference, WhitebenchError
from whitebench_metrics.keyed import KeyedMetric, sampled
from whitebench_metrics.margins import (
    QUERIES,
    SHARE,
    Chosen,
    Comparison,
    angular_margins,
    choose,
    compare,
    gaps_of,
    logits_of,
    random_form,
)

if TYPE_CHECKING:
    from torchmetrics import Metric

    from whitebench import Layout, MetricContext

DRAWS = 5
MOST_CONSTRAINTS = 1024
"""Of one draw: above it there is one draw (2 s a head of CRATE-T among 197 tokens), and no search among positive
semidefinite W (100 s)."""
FEWEST, MOST = 16, 64
"""Samples kept: enough that the queries drawn from are four times those drawn, within these bounds."""
RANDOM = "random W, same spectrum"
HEADER, FORMS = -1, -2
"""The keys of what is no sample; those of samples are their places in the split."""
MOST_GAPS = 20_000
"""In a histogram."""


def samples_kept(tokens: int) -> int:
    """Return how many samples are kept of a network with so many tokens."""
    return min(max(math.ceil(4 * QUERIES / SHARE / tokens), FEWEST), MOST)


@dataclass(kw_only=True)
class _Head:
    """What one head yields; not a number where nothing separates."""

    gaps: Tensor
    angular: float
    rho: float = math.nan
    kappa: float = math.nan
    rho_psd: float = math.nan
    certified: float = math.nan
    why: dict[str, str] = field(default_factory=dict)
    """By what is missing, why it is."""


class Margin(KeyedMetric):
    """The margins per layer and head, from a fixed sample of inputs and the forms."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.heads = layout.heads
        self.is_tied = layout.is_tied

    def update(self, index_B: Tensor, layers: Sequence[Tensor], forms: Sequence[Tensor]) -> None:
        """Add a batch: the inputs (B, N, D) of each layer's attention, and its forms (H, D, D + 1)."""
        _check(layers, forms, self.heads)
        if len(index_B) == 0:
            return
        _, tokens, width = layers[0].shape
        if HEADER not in self.places():
            self.keep(HEADER, torch.tensor([len(layers), tokens, width], dtype=torch.float64))
            self.keep(FORMS, torch.stack([form.detach().double().cpu() for form in forms]).flatten())
        batch = {int(index): place for place, index in enumerate(index_B)}
        known = {key for key in self.places() if key >= 0}
        sample = set(sampled({*known, *batch}, samples_kept(tokens)))
        self.drop(known - sample)
        for index in sample & set(batch):
            row = torch.stack([layer[batch[index]] for layer in layers])
            self.keep(index, row.detach().double().cpu().flatten())

    def compute(self) -> dict[str, Reading]:
        """Return the readings over all samples so far."""
        found = self.found()
        if HEADER not in found:
            return {name: Reading(value=None, unscored="no sample was seen") for name in ("rho", "kappa")}
        depth, tokens, width = map(int, found[HEADER][0].tolist())
        forms_LHDE = found[FORMS][0].reshape(depth, self.heads, width, width + 1)
        sample = sampled([key for key in found if key >= 0], samples_kept(tokens))
        kept = [found[key][0].reshape(depth, tokens, width) for key in sample]
        layers = [
            self._layer(torch.stack([one_LND[place] for one_LND in kept]), forms_LHDE[place], place)
            for place in range(depth)
        ]
        return _read(layers, is_tied=self.is_tied)

    def _layer(self, tokens_SND: Tensor, forms_HDE: Tensor, place: int) -> _Layer:
        generator = torch.Generator().manual_seed(place)
        return _Layer(
            heads=[self._head(tokens_SND, form) for form in forms_HDE],
            random=[
                self._head(tokens_SND, random_form(form, is_psd=self.is_tied, generator=generator))
                for form in forms_HDE
            ],
        )

    def _head(self, tokens_SND: Tensor, form_DE: Tensor) -> _Head:
        head = _Head(
            gaps=gaps_of(logits_of(tokens_SND, form_DE)).flatten(),
            angular=float(angular_margins(tokens_SND, form_DE).median()),
        )
        is_large = QUERIES * (tokens_SND.shape[1] - 1) > MOST_CONSTRAINTS
        chosen = [choose(tokens_SND, form_DE, draw=draw) for draw in range(1 if is_large else DRAWS)]
        if (best := self._compare(head, "rho", form_DE, chosen)) is not None:
            head.rho, head.kappa, head.certified = best.means
        if self.is_tied and is_large:
            head.why["rho_psd"] = f"more than {MOST_CONSTRAINTS:,} constraints, which take minutes for each head"
        elif self.is_tied and (best := self._compare(head, "rho_psd", form_DE, chosen[:1])) is not None:
            head.rho_psd, _, certified = best.means
            head.certified = max(head.certified, certified)
        return head

    def _compare(self, head: _Head, name: str, form_DE: Tensor, chosen: list[Chosen]) -> Comparison | None:
        try:
            return compare(form_DE, chosen, is_psd=name == "rho_psd")
        except WhitebenchError as error:
            head.why[name] = str(error)
            return None


@dataclass(frozen=True, kw_only=True)
class _Layer:
    heads: list[_Head] = field(default_factory=list)
    random: list[_Head] = field(default_factory=list)


def _check(layers: Sequence[Tensor], forms: Sequence[Tensor], heads: int) -> None:
    shapes = {tuple(layer.shape[1:]) for layer in layers} | {tuple(form.shape) for form in forms}
    one = layers[0] if layers else None
    fits = (
        one is not None
        and one.ndim == 3
        and one.shape[1] >= 2
        and all(layer.shape[1:] == one.shape[1:] for layer in layers)
        and all(tuple(form.shape) == (heads, one.shape[2], one.shape[2] + 1) for form in forms)
        and len(forms) == len(layers)
    )
    if not fits:
        raise WhitebenchError(
            f"a margin takes inputs (B, N, D) and forms ({heads} heads, D, D + 1) of each layer, with the same D and N "
            f"of 2 or more throughout; got {sorted(shapes)}"
        )


def _read(layers: Sequence[_Layer], *, is_tied: bool) -> dict[str, Reading]:
    fields = ["rho", "kappa", *(["rho_psd"] if is_tied else [])]
    readings = {name.replace("_", "-"): _compared(name, layers) for name in fields}
    heads = [head for layer in layers for head in layer.heads]
    certified = [head.certified for head in heads if not math.isnan(head.certified)]
    gaps = {
        "this network": torch.cat([head.gaps for head in heads]),
        RANDOM: torch.cat([head.gaps for layer in layers for head in layer.random]),
    }
    picture = Picture(
        kind="histogram", title="logit gap, all layers and heads", x="gap between the two largest logits (nats)",
        y="queries", series={name: _thinned(values) for name, values in gaps.items()},
    )  # fmt: skip
    readings["gap"] = _of_gaps(layers, 0.5, pictures={"gaps": picture})
    readings["gap-p5"] = _of_gaps(layers, 0.05)
    readings["angular"] = _profile(
        [_mean([head.angular for head in layer.heads]) for layer in layers],
        [_mean([head.angular for head in layer.random]) for layer in layers],
    )
    separable = sum(not math.isnan(head.rho) for head in heads) / len(heads)
    why = next((reason for head in heads for name, reason in head.why.items() if name == "rho"), "")
    readings["separable"] = Reading(value=separable, unit="share of heads", direction="none")
    readings["duality-gap"] = Reading(
        value=max(certified, default=None),
        direction="lower",
        unscored=why or None,
    )
    return readings


def _compared(name: str, layers: Sequence[_Layer]) -> Reading:
    profile = [_mean([getattr(head, name) for head in layer.heads]) for layer in layers]
    random = [_mean([getattr(head, name) for head in layer.random]) for layer in layers]
    for place, (value, layer) in enumerate(zip(profile, layers, strict=True), start=1):
        if math.isnan(value):
            why = layer.heads[0].why.get(name) or layer.heads[0].why["rho"]
            return Reading(value=None, unscored=f"in layer {place}, {why}")
    heads = torch.tensor([[getattr(head, name) for head in layer.heads] for layer in layers])
    picture = Picture(
        kind="matrix",
        title=f"{name.replace('_', '-')} of each head",
        x="head, from 0",
        y="layer, from 0",
        series={"heads": heads},
    )
    return _profile(profile, random, pictures={"heads": picture})


def _of_gaps(layers: Sequence[_Layer], share: float, pictures: Mapping[str, Picture] | None = None) -> Reading:
    def quantile(heads: Sequence[_Head]) -> float:
        return _mean([float(torch.quantile(head.gaps, share)) for head in heads])

    values, random = ([quantile(heads) for heads in side] for side in _sides(layers))
    return _profile(values, random, unit="nats", pictures=pictures or {})


def _sides(layers: Sequence[_Layer]) -> tuple[list[list[_Head]], list[list[_Head]]]:
    return [layer.heads for layer in layers], [layer.random for layer in layers]


def _profile(
    profile: Sequence[float], random: Sequence[float], unit: str = "", pictures: Mapping[str, Picture] | None = None
) -> Reading:
    is_known = not any(map(math.isnan, random))
    return Reading(
        value=_mean(profile),
        profile=profile,
        nulls={RANDOM: _mean(random)} if is_known else {},
        null_profiles={RANDOM: random} if is_known else {},
        unit=unit,
        pictures=pictures or {},
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _thinned(values: Tensor) -> Tensor:
    step = math.ceil(len(values) / MOST_GAPS)
    return values.sort().values[step // 2 :: step]


def _build(context: MetricContext) -> Metric:
    return Margin(context.layout)


METRICS = [
    MetricSpec(
        name="margin",
        version=1,
        summary="how near each head is to the maximum-margin separation of the tokens it selects, per layer",
        direction="higher",
        needs=("index", "attention-inputs", "attention-forms"),
        build=_build,
        untrained=True,
        reference=Reference(
            title="Tarzanagh et al., Transformers as Support Vector Machines", url="https://arxiv.org/abs/2308.16898"
        ),
    )
]
