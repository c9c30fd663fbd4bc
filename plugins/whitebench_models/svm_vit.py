"""SVM-ViT: a ViT whose attention is the one of "Transformers as Support Vector Machines", or may become it.

Tarzanagh et al. (arXiv 2308.16898) study attention X^T softmax(X W z): gradient descent takes W to the direction
of least norm that separates, for each query z, the selected token from the others x_t by a margin of 1:

    minimise ||W||_F   subject to   (x_selected - x_t)^T W z >= 1   for all t.

With x the normalised tokens and V_k a head's values, every head k of every layer is

    logit_st = x_t^T W_k z_s,   z = x          with a full W_k (D, D) per head: `softmax-w`, `sparsemax-w`, ..
    logit_st = k_t . q_s / sqrt(P)             factored as in ViT, where the norm is the nuclear one: `softmax`, ..
    MSA(X)   = concat_k( map(logits_k) V_k ) W_out + b_out.

The full W has neither bias nor 1/sqrt(D), as in the problem above: a scale would move the margin of 1. It starts
uniform with standard deviation 1/D, which gives logits the variance of 1 that ViT's factors give them.

The map is the softmax, or a sparse one that gives exactly one token all weight once the logit gap between the first
and the second reaches 1/(alpha - 1): sparsemax (alpha = 2; Martins & Astudillo, arXiv 1602.02068), at a gap of 1, so
that the W of least norm which selects one token is the problem's own; entmax-1.5 (Peters et al., arXiv 1905.05702),
at a gap of 2. `softmax` is the plain ViT to the bit, its control.

With `hinge` above 0 the loss has an own term, hinge * max(0, 1 - gap)^2, averaged over queries, heads, samples and
layers. The norm of W is held down by the weight decay, which belongs to the recipe.

B batch, N tokens, D width, H heads, P head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import entmax
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whitebench import Layout, ModelSpec, Reference, Shape, WhitebenchError
from whitebench_models.attention import (
    SELECTION_TRACE,
    Penalised,
    build_vit,
    check_vit,
    layout,
    own_term,
)
from whitebench_models.selection import bilinear_forms, exact, join_heads, split_heads
from whitebench_models.vit import ViTConfig

if TYPE_CHECKING:
    from whitebench_models.vit import Attention, ViT

_MAPS = {"softmax": torch.softmax, "sparsemax": entmax.sparsemax, "entmax15": entmax.entmax15}


def hinge_on_gap(logits_BHNN: Tensor) -> Tensor:
    """Return max(0, 1 - gap)^2, the mean over all rows; the gap is that between the two largest of a row."""
    top = exact(logits_BHNN).topk(2, dim=-1).values
    return F.relu(1 - (top[..., 0] - top[..., 1])).square().mean()


class SVMAttention(Penalised):
    """MSA with another map from logits to weights, and a hinge on the gap."""

    scale: float | None = None  # torch's own, 1 / sqrt(P)

    def __init__(self, attention: Attention, selection: str, hinge: float) -> None:
        super().__init__()
        self.heads = attention.heads
        self.selection = selection
        self.hinge = hinge
        if selection != "softmax":
            # entmax 1.3 writes its autograd functions in a way that torch 2.13 cannot look into when it compiles. Said
            # here, as it takes torch's compiler 2 s to load.
            torch.compiler.allow_in_graph(_MAPS[selection])  # type: ignore[no-untyped-call]
        self.qkv = attention.qkv
        self.out = attention.out

    def project(self, tokens_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (B, H, N, ..)."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(tokens_BND).chunk(3, dim=-1))
        return q, k, v

    def logits(self, tokens_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Return what every query (row) makes of every key, (B, H, N, N)."""
        q, k, _ = self.project(tokens_BND)
        return self._compare(q, k, mask_BN)

    def weights(self, tokens_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Return the weight that every query (row) gives to every key, (B, H, N, N)."""
        return self._weigh(self.logits(tokens_BND, mask_BN))

    def forms(self, _: Tensor) -> Tensor:
        """Return the form behind each head's logits, (H, D, D + 1)."""
        query_DD, key_DD, _ = self.qkv.weight.chunk(3)
        scale = 1 / math.sqrt(len(query_DD) // self.heads)
        return bilinear_forms(query_DD, key_DD, self.heads, scale, query_bias_D=self.qkv.bias.chunk(3)[0])

    def _compare(self, q: Tensor, k: Tensor, mask_BN: Tensor | None) -> Tensor:
        logits = q @ k.transpose(-2, -1) * (self.scale or 1 / math.sqrt(q.shape[-1]))
        return logits if mask_BN is None else logits + mask_BN[:, None, None, :]

    def _weigh(self, logits_BHNN: Tensor) -> Tensor:
        weights: Tensor = _MAPS[self.selection](exact(logits_BHNN), dim=-1)
        return weights

    def forward(self, tokens_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Return the mixed tokens, (B, N, D); `mask_BN` is added to the logits of a key: 0, or -inf to hide it."""
        q, k, v = self.project(tokens_BND)
        is_hinged = self.training and self.hinge > 0
        self.term = tokens_BND.new_zeros(()) if self.training else None
        if self.selection == "softmax" and not is_hinged:
            mask = None if mask_BN is None else mask_BN[:, None, None, :].to(q.dtype)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        else:
            logits = self._compare(q, k, mask_BN)
            mixed = self._weigh(logits).to(v.dtype) @ v
            if is_hinged:
                self.term = self.hinge * hinge_on_gap(logits)
        out: Tensor = self.out(join_heads(mixed))
        return out


class BilinearAttention(SVMAttention):
    """SVM attention with a full W per head in the place of queries and keys."""

    scale = 1.0

    def __init__(self, attention: Attention, selection: str, hinge: float) -> None:
        super().__init__(attention, selection, hinge)
        dim = attention.out.in_features
        self.W = nn.Parameter(torch.empty(self.heads, dim, dim))
        nn.init.uniform_(self.W, -math.sqrt(3) / dim, math.sqrt(3) / dim)
        self.value = nn.Linear(dim, dim)
        self.value.load_state_dict({name: part.chunk(3)[2] for name, part in attention.qkv.state_dict().items()})
        del self.qkv

    def project(self, tokens_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return W z of every query z, the tokens as keys, and the values."""
        q_BHND = torch.einsum("hde,bne->bhnd", self.W, tokens_BND)
        return q_BHND, tokens_BND[:, None].expand_as(q_BHND), split_heads(self.value(tokens_BND), self.heads)

    def forms(self, _: Tensor) -> Tensor:
        """Return W itself, and zeros for the bias it has not, (H, D, D + 1)."""
        return F.pad(exact(self.W), (0, 1))


@dataclass(frozen=True, kw_only=True)
class SVMViTConfig(ViTConfig):
    """A ViT's sizes, and how its attention selects."""

    attention: Literal["softmax", "sparsemax", "entmax15", "softmax-w", "sparsemax-w", "entmax15-w"] = "sparsemax"
    """The map from logits to weights; with -w, logits from one full W per head."""
    hinge: float = 0.0
    """Weight in the loss of the squared hinge on the logit gap; 0 leaves it out."""

    def __post_init__(self) -> None:
        check_vit("svm-vit", self)
        if self.attention.removesuffix("-w") not in _MAPS:
            raise WhitebenchError(
                f"svm-vit[attention={self.attention}]: choose {', '.join(_MAPS)}, or one of them with -w"
            )
        if self.hinge < 0:
            raise WhitebenchError(f"svm-vit[hinge={self.hinge}]: the hinge's weight must be 0 or more, e.g. hinge=0.1")


def _build(config: SVMViTConfig, shape: Shape, classes: int) -> ViT:
    kind = BilinearAttention if config.attention.endswith("-w") else SVMAttention
    selection = config.attention.removesuffix("-w")
    return build_vit("svm-vit", config, shape, classes, lambda plain: kind(plain, selection, config.hinge))


def _layout(config: SVMViTConfig, shape: Shape) -> Layout:
    if config.attention.endswith("-w"):
        return Layout(heads=config.heads, scale=1.0, prefix_tokens=1)
    return layout(config, shape)


SVM_VIT = ModelSpec(
    name="svm-vit",
    summary="ViT whose attention selects tokens by a margin: sparsemax, entmax-1.5, softmax, a full W, a hinge",
    config=SVMViTConfig,
    build=_build,
    head="head",
    penalty=own_term,
    # No `search`: map and hinge set the margin that the board measures, so tuning them for accuracy would trade
    # it away unseen.
    trace=SELECTION_TRACE,
    layout=_layout,
    reference=Reference(title="Transformers as Support Vector Machines", url="https://arxiv.org/abs/2308.16898"),
)
