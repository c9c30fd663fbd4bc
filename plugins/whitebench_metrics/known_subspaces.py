"""Known subspaces: what features keep of the subspaces that the samples come from, and of the noise around them.

Where a task knows the subspace of each class, a sample of class j is a signal in it and noise beside it,

    x = s + e,     s = U_j U_j^T x,     e = x - s,

and features that compress a class to its subspace (MCR2, arXiv 2006.08558; CRATE, arXiv 2306.01129) keep s and lose e.
Both are decoded from the features by least squares, and told as

    signal, noise     1 - (1 - R^2) (N - 1) / (N - D - 1), R^2 the share of the variance of s, of e, that [z 1] B gives:
                      the adjustment takes off what D features fit by chance (Ezekiel 1930)
    angle             the same of one class alone, and of the direction of its subspace that its features tell least:
                      the angle whose squared cosine is the smallest squared canonical correlation of z and U_j^T x
                      (Hotelling 1936), adjusted likewise; the mean over classes, in degrees. At 0 a class's features
                      hold its whole subspace, at 90 they have lost a direction of it: a class that collapsed loses all

All follow from the second moments of [z 1 s e] by class, which add up.

Legend: N samples, B of a batch, D width of the features, F of [z 1], P pixels, W of [z 1 s e], R dimensions of U_j.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from whitebench import MetricSpec, Reading, Reference
from whitebench_metrics.keyed import KeyedMetric

Direction: TypeAlias = Literal["higher", "lower"]

NOTHING = 1e-10
"""Directions whose second moment is a smaller share of the largest are rounding: none is decoded from."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Second moments of [z 1 s e], of a class or of all."""

    table: Tensor
    """(W, W), float64."""
    pixels: int

    @property
    def count(self) -> float:
        """N."""
        one = len(self.table) - 2 * self.pixels - 1
        return float(self.table[one, one])

    @property
    def features(self) -> Tensor:
        """Those of [z 1], (F, F)."""
        return self.table[: -2 * self.pixels, : -2 * self.pixels]

    @property
    def sides(self) -> tuple[slice, slice]:
        """Where s and e stand."""
        return slice(-2 * self.pixels, -self.pixels), slice(-self.pixels, None)

    def crossed(self, side: slice) -> Tensor:
        """Those of [z 1] with s, or with e, (F, P)."""
        return self.table[: -2 * self.pixels, side]


class KnownSubspaces(KeyedMetric):
    """The moments by class under its label, and the true subspaces below zero."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def update(self, features_BD: Tensor, inputs: Tensor, labels_B: Tensor, true_CPR: Tensor) -> None:
        """Add a batch of features (B, D), inputs (B, …), labels (B,) and the subspaces' frames (C, P, R)."""
        with torch.autocast(features_BD.device.type, enabled=False):
            inputs_BP, true_CPR = inputs.flatten(1).double(), true_CPR.to(inputs.device, torch.float64)
            places = self.places()
            for key in sorted(set(labels_B.tolist())):
                own = labels_B == key
                signal_BP = inputs_BP[own] @ true_CPR[key] @ true_CPR[key].T
                ones_B1 = signal_BP.new_ones(len(signal_BP), 1)
                rows_BW = torch.cat([features_BD[own].double(), ones_B1, signal_BP, inputs_BP[own] - signal_BP], dim=1)
                new = (rows_BW.T @ rows_BW).flatten()
                if key in places:
                    self.put(places[key], self.rows[places[key]] + new)
                else:
                    self.keep(key, new)
                    self.keep(-1 - key, true_CPR[key].flatten())

    def compute(self) -> dict[str, Reading]:
        """Return `angle` in degrees, `signal` and `noise` as shares."""
        found = {key: [row.cpu() for row in rows] for key, rows in self.found().items()}
        by_class = {key: self._moments(rows) for key, rows in found.items() if key >= 0}
        if not by_class:
            return {name: Reading(value=None, unscored="there is no sample") for name in ("angle", "signal", "noise")}
        total = Moments(table=sum((one.table for one in by_class.values()), torch.zeros(())), pixels=self.pixels)
        true = {key: found[-1 - key][0].reshape(self.pixels, -1) for key in by_class}
        signal, noise = total.sides
        return {
            "angle": _angle([(one, true[key]) for key, one in by_class.items()]),
            "signal": _kept(total, signal, direction="higher"),
            "noise": _kept(total, noise, direction="lower"),
        }

    def _moments(self, rows: list[Tensor]) -> Moments:
        flat = sum(rows[1:], start=rows[0])
        width = math.isqrt(len(flat))
        return Moments(table=flat.reshape(width, width), pixels=self.pixels)


def _inverse(features_FF: Tensor) -> tuple[Tensor, int]:
    """Return the pseudo-inverse of the second moments of [z 1], and how many directions it is made of."""
    values_F, vectors_FF = torch.linalg.eigh(features_FF)
    is_kept_F = values_F > NOTHING * values_F[-1]
    kept_FX = vectors_FF[:, is_kept_F]
    return kept_FX / values_F[is_kept_F] @ kept_FX.T, int(is_kept_F.sum())


def _kept(total: Moments, side: slice, *, direction: Direction) -> Reading:
    """Return the adjusted share of a side's variance that is decoded."""
    count, crossed_FP = total.count, total.crossed(side)
    inverse_FF, rank = _inverse(total.features)
    if count <= rank:
        return Reading(value=None, unscored=_too_few(count, rank), direction=direction)
    energy = float(total.table[side, side].trace())
    spread = energy - float(crossed_FP[-1].square().sum()) / count
    if spread <= NOTHING * float(total.table[total.sides[0], total.sides[0]].trace()):
        return Reading(value=None, unscored="there is none", direction=direction)
    missed = energy - float((crossed_FP.T @ inverse_FF @ crossed_FP).trace())
    return Reading(value=1 - (missed / (count - rank)) / (spread / (count - 1)), direction=direction)


def _angle(classes: Sequence[tuple[Moments, Tensor]]) -> Reading:
    """Return the mean over classes of the angle to the direction that features tell least."""
    angles = []
    for own, true_PR in classes:
        count, (signal, _) = own.count, own.sides
        inverse_FF, rank = _inverse(own.features)
        if count <= rank:
            return Reading(
                value=None, unscored=f"of a class {_too_few(count, rank)}", direction="lower", unit="degrees"
            )
        crossed_FR = own.crossed(signal) @ true_PR
        middle_RR = torch.outer(crossed_FR[-1], crossed_FR[-1]) / count
        spread_RR = true_PR.T @ own.table[signal, signal] @ true_PR - middle_RR
        told_RR = crossed_FR.T @ inverse_FF @ crossed_FR - middle_RR
        factor_RR = torch.linalg.cholesky(spread_RR)
        half_RR = torch.linalg.solve_triangular(factor_RR, told_RR, upper=False)
        share_RR = torch.linalg.solve_triangular(factor_RR, half_RR.T, upper=False)
        least = float(torch.linalg.eigvalsh((share_RR + share_RR.T) / 2)[0])
        adjusted = 1 - (1 - least) * (count - 1) / (count - rank)
        angles.append(math.degrees(math.acos(math.sqrt(min(max(adjusted, 0.0), 1.0)))))
    return Reading(value=sum(angles) / len(angles), direction="lower", unit="degrees")


def _too_few(count: float, rank: int) -> str:
    return f"{count:.0f} samples do not tell what {rank - 1} directions of the features keep"


METRICS = [
    MetricSpec(
        name="known-subspaces",
        version=1,
        summary="what features keep of the subspaces that samples come from, and of the noise around them",
        direction="none",
        unit="share",
        needs=("features", "inputs", "labels", "truth:class-subspaces"),
        build=lambda context: KnownSubspaces(math.prod(context.shape)),
        untrained=True,
        reference=Reference(
            title="Learning Diverse and Discriminative Representations via Maximal Coding Rate Reduction",
            url="https://arxiv.org/abs/2006.08558",
        ),
    )
]
