"""Cross-entropy between a model's prediction and rows of class probabilities t.

    loss_b = - sum_c t_bc log softmax(logits_b)_c

With one-hot rows it is the negative log-likelihood of the label; with t = (1 - s) onehot + s / C it is the
label smoothing of Szegedy et al., "Rethinking the Inception Architecture" (arXiv 1512.00567, section 7).

B batch, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench import NoOptions, ObjectiveSpec, Reference


class CrossEntropy(nn.Module):
    """The cross-entropy of each sample, in nats."""

    def forward(self, logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        """Return the losses (B,), in float32 or the logits' own precision where that is finer."""
        precision = torch.promote_types(logits_BC.dtype, torch.float32)
        log_shares_BC = F.log_softmax(logits_BC.to(precision), dim=-1)
        return -(targets_BC * log_shares_BC).sum(dim=-1)


def _build(_: NoOptions, _classes: int, _width: int) -> nn.Module:
    return CrossEntropy()


CROSS_ENTROPY = ObjectiveSpec(
    name="cross-entropy",
    version=1,
    summary="Cross-entropy of the logits against class probabilities, in nats",
    needs=("logits", "targets"),
    build=_build,
    reference=Reference(
        title="Rethinking the Inception Architecture for Computer Vision",
        url="https://arxiv.org/abs/1512.00567",
    ),
)
