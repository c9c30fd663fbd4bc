"""Token groups: what adds up over the tokens of each true subspace, layer by layer.

A task that knows the subspace of every token (`subspaces[tokens=16]`) tells metrics the frames of the subspaces, and of
each sample which of them each of its tokens comes from. The tokens that come from one subspace are a group, and stay
one whatever a layer has made of them. Of each layer and group the number of tokens is kept, and sums over them, which
add up exactly; what is read are means over a group's tokens. Groups weigh alike, however many tokens they have. Tokens
before the patches (a class token) come from none of the subspaces, and are left out.

Legend: B batch, N samples, n tokens of a sample, X tokens of a group, D their width, V numbers that a token adds to,
G groups, Q pixels of a token, R dimensions of a true subspace.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

import torch
from torch import Tensor

from whitebench import Reading, WhitebenchError
from whitebench_metrics.keyed import KeyedMetric

TRUTH = ("index", "truth:token-subspaces", "truth:token-groups")
"""What these metrics need to be told besides the layers."""
FACTS, MISFIT, WEIGHTS = -1, -2, -3
"""Keys beside those of the layers, 0 and up: what is known of the truth; how many tokens a layer has that has not as
many as the task; and from there down, weights of each layer."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What was seen of all samples, float64 and on the CPU."""

    tokens: int
    """n."""
    dim: int
    """R."""
    layers: Sequence[Tensor]
    """Of each layer the means over the tokens of each group that has any, (G, V)."""
    weights: Sequence[Tensor]
    """Of each layer the weights that were kept, flat."""


class TokenGroups(KeyedMetric):
    """Sums over the tokens of each group; children say of what, and how to read them."""

    parts: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """What is read: by its name, the direction and the unit that its reading has."""

    def __init__(self, prefix_tokens: int) -> None:
        super().__init__()
        self.prefix_tokens = prefix_tokens

    def tally(self, tokens_XD: Tensor, places_Xn: Tensor) -> Tensor:
        """Return sums over a group's tokens, whose places in their sample are one-hot: (V,); all are float64."""
        raise NotImplementedError

    def read(self, seen: Seen) -> dict[str, Reading]:
        """Return the readings of one layer or more."""
        raise NotImplementedError

    def patches(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Return the layers without what stands before the patches.

        Raises:
            WhitebenchError: a layer is no tensor (B, N, D).
        """
        if strange := [tuple(layer.shape) for layer in layers if layer.ndim != 3]:
            raise WhitebenchError(f"tokens are (B, N, D); got a tensor of shape {strange[0]}")
        return [layer[:, self.prefix_tokens :] for layer in layers]

    def add(self, layers: Sequence[Tensor], index_B: Tensor, true_GQR: Tensor, groups_Nn: Tensor) -> None:
        """Add a batch: layers (B, n, D), and the truth of all samples; a layer of another number of tokens is noted."""
        groups_Bn = groups_Nn[index_B]
        (G, Q, R), n = true_GQR.shape, groups_Bn.shape[1]
        self._keep_once(FACTS, true_GQR.new_tensor([n, R, G, math.isqrt(Q)], dtype=torch.float64))
        places = self.places()
        for place, layer_BnD in enumerate(layers):
            if layer_BnD.shape[1] != n:
                self._keep_once(MISFIT, true_GQR.new_tensor([layer_BnD.shape[1]], dtype=torch.float64))
                continue
            new = self._sums(layer_BnD.double(), groups_Bn, G).flatten()
            if place in places:
                self.put(places[place], self.rows[places[place]] + new)
            else:
                self.keep(place, new)

    def keep_weights(self, weights: Sequence[Tensor]) -> None:
        """Keep a weight of each layer, which comes whole with every batch."""
        for place, weight in enumerate(weights):
            self._keep_once(WEIGHTS - place, weight.detach().double().flatten())

    def _keep_once(self, key: int, row: Tensor) -> None:
        if key not in self.places():
            self.keep(key, row)

    def _sums(self, layer_BnD: Tensor, groups_Bn: Tensor, groups: int) -> Tensor:
        """Return of each group the number of its tokens and their tally, (G, 1 + V)."""
        B, n, _ = layer_BnD.shape
        places_Bnn = torch.eye(n, dtype=layer_BnD.dtype, device=layer_BnD.device).expand(B, n, n)
        with torch.autocast(layer_BnD.device.type, enabled=False):
            own = [groups_Bn == group for group in range(groups)]
            tallies_GV = torch.stack([self.tally(layer_BnD[is_own], places_Bnn[is_own]) for is_own in own])
        counts_G1 = torch.stack([is_own.sum() for is_own in own])[:, None]
        return torch.cat([counts_G1.to(tallies_GV), tallies_GV], dim=1)

    def compute(self) -> dict[str, Reading]:
        """Return the readings over all samples so far, or why there are none."""
        found = {key: [row.cpu() for row in rows] for key, rows in self.found().items()}
        if FACTS not in found:
            return self.unscored("no sample was seen")
        n, R, G, patch = (int(number) for number in found[FACTS][0])
        if MISFIT in found:
            tokens = int(found[MISFIT][0])
            return self.unscored(
                f"a layer has {tokens} tokens of a sample where the task has {n}: choose patch={patch}"
            )
        layers = [_means(sum(rows[1:], start=rows[0]).reshape(G, -1)) for key, rows in found.items() if key >= 0]
        if not all(map(len, layers)):
            return self.unscored("no sample was seen")
        if not all(bool(one.isfinite().all()) for one in layers):
            return self.unscored("a token is no finite number")
        weights = [found[key][0] for key in sorted(found, reverse=True) if key <= WEIGHTS]
        return self.read(Seen(tokens=n, dim=R, layers=layers, weights=weights))

    def unscored(self, reason: str) -> dict[str, Reading]:
        """Return that there is no number, and why."""
        return {part: Reading(value=None, unscored=reason, **facts) for part, facts in self.parts.items()}

    def reading(self, part: str, profile: Sequence[float], nulls: Mapping[str, Sequence[float]]) -> Reading:
        """Return the reading whose headline is the mean over layers, beside its nulls by their names."""
        return Reading(
            value=fmean(profile),
            profile=profile,
            nulls={name: fmean(null) for name, null in nulls.items()},
            null_profiles=nulls,
            **self.parts[part],
        )


def _means(sums_GV: Tensor) -> Tensor:
    seen_GV = sums_GV[sums_GV[:, 0] > 0]
    return seen_GV[:, 1:] / seen_GV[:, :1]
