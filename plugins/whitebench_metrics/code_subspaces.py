"""Code subspaces: whether a layer's codes are as few as the truth, and those of one true subspace no other's.

A token in one of G subspaces of R dimensions has R coefficients that are not zero, of G·R that there are, and each of
them belongs to one subspace: that is what sparse codes are to find (CRATE: Yu et al., arXiv 2306.01129, section 2.3).
With the codes x of a group's tokens, those that come from one true subspace (token_groups.py),

nonzero    mean number of codes of a token that are not exactly zero, over R: 1 is the truth. Less cannot hold the
           signal; codes that are never negative hold it from R on, if there are two of them to a coefficient. A GELU
           makes hardly any zeros: `dense codes` are the number of codes over R
own        sum_i max_g E_g[x_i^2] / sum_i sum_g E_g[x_i^2], the share of the codes' energy that is in the group where
           each is most at work: 1 where no code serves two groups. `uniform codes` serve all alike: 1 / G

Legend: X tokens of a group, K codes of a token, G groups, R dimensions of a true subspace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from whitebench import MetricSpec, Reading, Reference
from whitebench_metrics.token_groups import TRUTH, Seen, TokenGroups

if TYPE_CHECKING:
    from torchmetrics import Metric

    from whitebench import MetricContext


class CodeSubspaces(TokenGroups):
    """Number of codes at work and whether groups share them, per layer; headlines are means over layers."""

    parts: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "own": {"direction": "higher"},
        "nonzero": {"direction": "none", "unit": ""},  # 1 is best
    }

    def update(self, layers: Sequence[Tensor], index_B: Tensor, true_GQR: Tensor, groups_Nn: Tensor) -> None:
        """Add a batch of layers' codes (B, N, K), given the truth of all samples."""
        self.add(self.patches(layers), index_B, true_GQR, groups_Nn)

    def tally(self, tokens_XD: Tensor, _: Tensor) -> Tensor:
        """Return how many codes are not zero, and the sum of the squares of each: (1 + K,)."""
        nonzero_1 = (tokens_XD != 0).sum().to(tokens_XD)[None]
        return torch.cat([nonzero_1, tokens_XD.square().sum(dim=0)])

    def read(self, seen: Seen) -> dict[str, Reading]:
        """Return `own` in [0, 1] and `nonzero` in true numbers of coefficients."""
        own, uniform, nonzero, dense = [], [], [], []
        for place, layer_GV in enumerate(seen.layers, start=1):
            energy_GK = layer_GV[:, 1:]
            if not bool(energy_GK.any()):
                return self.unscored(f"in layer {place} all codes are zero")
            own.append(float(energy_GK.amax(dim=0).sum() / energy_GK.sum()))
            uniform.append(1 / len(energy_GK))
            nonzero.append(float(layer_GV[:, 0].mean()) / seen.dim)
            dense.append(energy_GK.shape[1] / seen.dim)
        return {
            "own": self.reading("own", own, {"uniform codes": uniform}),
            "nonzero": self.reading("nonzero", nonzero, {"dense codes": dense}),
        }


def _build(context: MetricContext) -> Metric:
    return CodeSubspaces(context.layout.prefix_tokens)


METRICS = [
    MetricSpec(
        name="code-subspaces",
        version=1,
        summary="whether codes are as few as the true coefficients, and those of one true subspace no other's",
        direction="higher",
        unit="share",
        needs=("codes", *TRUTH),
        build=_build,
        untrained=True,
        reference=Reference(
            title="Yu et al., White-Box Transformers via Sparse Rate Reduction", url="https://arxiv.org/abs/2306.01129"
        ),
    )
]
