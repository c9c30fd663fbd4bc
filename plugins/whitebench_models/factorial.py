"""{MSSA, MHSA} x {ISTA, MLP}: four models that say which of CRATE's two blocks buys what.

After "Emergence of Segmentation with Minimalistic White-Box Transformers" (Yu et al., arXiv 2308.16271), table 2,
which exchanges CRATE's attention, its nonlinearity, or both for the ViT's:

    Z' = Z + A(LN(Z))                 A: MSSA, one projection as query, key and value (crate.py)
                                         MHSA, three with biases                      (vit.py)
    Z+ = ISTA(LN(Z'))                 no residual: ISTA starts from LN(Z') itself     (crate.py)
    Z+ = Z' + MLP(LN(Z'))             with a residual                                 (vit.py)

    model       there         beside CRATE                                             weights of a layer's blocks
    mssa-ista   CRATE         nothing: it is crate with its default form               3 D^2 + D
    mssa-mlp    CRATE-MLP     an MLP with a residual in ISTA's place                  10 D^2 + 6 D
    mhsa-ista   CRATE-MHSA    MHSA in MSSA's place                                     5 D^2 + 4 D
    mhsa-mlp    ViT           both: the ViT's layer, in CRATE's frame                 12 D^2 + 9 D

(MLP of ratio 4, more than one head.) All else is the same in all four: the frame, LayerNorm with its eps of 1e-5,
and weights that start as CRATE's do, each linear layer as torch starts it. So mhsa-mlp is not vit, whose
embedding has no LayerNorm and whose weights start Xavier uniform. From one seed all four start with the same
embedding, class token and positions.

B batch, N tokens (class token first, then patches), D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from whitebench import Layout, ModelSpec, Reference, Shape
from whitebench_models.crate import ISTA, MSSA, ISTAConfig
from whitebench_models.frame import Frame, FrameConfig
from whitebench_models.patches import check_sizes
from whitebench_models.selection import selection_trace, subspace_trace
from whitebench_models.vit import MLP, Attention


class Layer(nn.Module):
    """One layer: attention over the tokens, then a nonlinearity on each token alone."""

    def __init__(self, dim: int, attention: nn.Module, nonlinearity: ISTA | MLP) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim)
        self.nonlinearity = nonlinearity
        self.has_residual = isinstance(nonlinearity, MLP)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Return the layer's tokens, (B, N, D)."""
        mixed_BND = self.mix(tokens_BND)
        coded_BND: Tensor = self.nonlinearity(self.norm2(mixed_BND))
        return mixed_BND + coded_BND if self.has_residual else coded_BND

    def mix(self, tokens_BND: Tensor) -> Tensor:
        """Return the tokens between the two steps, (B, N, D)."""
        mixed_BND: Tensor = tokens_BND + self.attention(self.norm1(tokens_BND))
        return mixed_BND

    def compressed_projections(self, tokens_BND: Tensor) -> Tensor:
        """Return the mixed tokens where MSSA saw the tokens, in this layer's subspaces: LN(Z') U^T."""
        projections_BND: Tensor = self.attention.get_submodule("project")(self.norm1(self.mix(tokens_BND)))
        return projections_BND

    def residual_projections(self, tokens_BND: Tensor) -> Tensor:
        """Return the tokens before and after attention in this layer's subspaces, past its norm: (B, 2, N, D)."""
        return torch.stack(
            [self.attention.get_submodule("project")(each) for each in (tokens_BND, self.mix(tokens_BND))], dim=1
        )


@dataclass(frozen=True, kw_only=True)
class MSSAISTAConfig(ISTAConfig):
    """How large the model is, and the two constants of ISTA."""

    name: ClassVar[str] = "mssa-ista"


@dataclass(frozen=True, kw_only=True)
class MHSAISTAConfig(ISTAConfig):
    """How large the model is, and the two constants of ISTA."""

    name: ClassVar[str] = "mhsa-ista"


@dataclass(frozen=True, kw_only=True)
class MLPConfig(FrameConfig):
    """How large the model is, and its MLP."""

    mlp_ratio: int = 4
    """Hidden width of the MLP, in widths of a token."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self.name, dim=self.dim, heads=self.heads, mlp_ratio=self.mlp_ratio)


@dataclass(frozen=True, kw_only=True)
class MSSAMLPConfig(MLPConfig):
    """How large the model is, and its MLP."""

    name: ClassVar[str] = "mssa-mlp"


@dataclass(frozen=True, kw_only=True)
class MHSAMLPConfig(MLPConfig):
    """How large the model is, and its MLP."""

    name: ClassVar[str] = "mhsa-mlp"


def _spec(
    config: type[FrameConfig], attention: type[MSSA | Attention], summary: str, published: tuple[str, float]
) -> ModelSpec:
    def build(options: ISTAConfig | MLPConfig, shape: Shape, classes: int) -> Frame:
        def layer() -> Layer:
            mixing = attention(options.dim, options.heads)
            if isinstance(options, ISTAConfig):
                return Layer(options.dim, mixing, ISTA(options.dim, options.eta, options.lam))
            return Layer(options.dim, mixing, MLP(options.dim, options.mlp_ratio * options.dim))

        return Frame(options, shape, classes, layer)

    def layout(options: FrameConfig, _: Shape) -> Layout:
        scale = (options.dim // options.heads) ** -0.5
        return Layout(heads=options.heads, scale=scale, prefix_tokens=1, is_tied=attention is MSSA)

    has_ista = issubclass(config, ISTAConfig)
    return ModelSpec(
        name=config.name,
        summary=summary,
        config=config,
        build=build,
        head="head",
        trace={
            "tokens": "blocks.*",
            "compressed": "blocks.*.norm2:in",
            "codes": "blocks.*.nonlinearity" if has_ista else "blocks.*.nonlinearity.activation",
            **(subspace_trace("blocks.*", "attention") if attention is MSSA else {}),
            **selection_trace("blocks.*.attention"),
        },
        layout=layout,
        reference=Reference(
            title="Emergence of Segmentation with Minimalistic White-Box Transformers",
            url="https://arxiv.org/abs/2308.16271",
            published={f"pascal voc 2012 mIoU of attention maps, {published[0]}-S/8, %": published[1]},
        ),
    )


FACTORIAL = [
    _spec(
        MSSAISTAConfig,
        MSSA,
        "MSSA, then ISTA: CRATE itself, the first of {MSSA, MHSA} x {ISTA, MLP}",
        ("CRATE", 23.9),
    ),
    _spec(MSSAMLPConfig, MSSA, "MSSA, then MLP: CRATE with the ViT's MLP in ISTA's place", ("CRATE-MLP", 22.0)),
    _spec(
        MHSAISTAConfig,
        Attention,
        "MHSA, then ISTA: CRATE with the ViT's attention in MSSA's place",
        ("CRATE-MHSA", 18.4),
    ),
    _spec(MHSAMLPConfig, Attention, "MHSA, then MLP: the ViT's layer in CRATE's frame", ("ViT", 14.1)),
]
