"""Sparse coder: ISTA stacked, with a dictionary that it is given or learns. For tasks that solve themselves.

    z_0 = 0,     z_{l+1} = ReLU(z_l + eta A^T (x - A z_l) - eta penalty),     eta = 1 / ||A||_2^2

is the iterative shrinkage of min_z |x - A z|^2 / 2 + penalty |z|_1 over z >= 0 (Beck and Teboulle, "A Fast Iterative
Shrinkage-Thresholding Algorithm", SIAM J. Imaging Sciences 2(1), 2009, section 1); a layer of CRATE takes one such step
(arXiv 2306.01129), one of CRATE-alpha two. A is

    true        the dictionary that the signals were made from
    random      one that has nothing to do with them
    learned     from that random one, by Adam on the same objective at the last z, backwards through all layers; its
                columns have length one (the unrolled network of Gregor and LeCun, "Learning Fast Approximations of
                Sparse Coding", ICML 2010, all layers tied)

S dictionaries, M signals, N width, K atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from whitebench import ModelSpec, Reference, Shape, WhitebenchError, beat

if TYPE_CHECKING:
    from whitebench_tasks.sparse_codes import Signals


@dataclass(frozen=True, kw_only=True)
class SparseCoderOptions:
    """How many steps of ISTA, and whose dictionary."""

    layers: int = 10
    dictionary: Literal["true", "random", "learned"] = "learned"
    penalty: float = 0.1
    steps: int = 1000
    """Of learning."""
    batch: int = 200
    learning_rate: float = 0.03
    """At the first step; it goes down to zero at the last."""

    def __post_init__(self) -> None:
        for name in ("layers", "steps", "batch"):
            if getattr(self, name) < 1:
                raise WhitebenchError(f"sparse-coder[{name}={getattr(self, name)}]: it must be 1 or more")
        if self.penalty <= 0 or self.learning_rate <= 0:
            raise WhitebenchError(f"sparse-coder: penalty={self.penalty}, learning_rate={self.learning_rate}: above 0")


class SparseCoder(nn.Module):
    """Codes signals by ISTA; has no weights of its own until it is given signals."""

    def __init__(self, options: SparseCoderOptions, _shape: Shape = (), _classes: int = 0) -> None:
        super().__init__()
        self.options = options

    def atoms(self, signals: Signals) -> Tensor:
        """Return the dictionaries that it codes with, (S, N, K)."""
        if self.options.dictionary == "true":
            return signals.dictionaries
        return signals.starts if self.options.dictionary == "random" else self._learn(signals)

    @torch.no_grad()
    def encode(self, signals: Tensor, dictionaries: Tensor) -> Tensor:
        """Return the codes (S, M, K) of signals (S, M, N)."""
        return ista(signals, dictionaries, layers=self.options.layers, penalty=self.options.penalty)

    def _learn(self, signals: Signals) -> Tensor:
        options, weights_SNK = self.options, signals.starts.clone().requires_grad_()
        adam = torch.optim.Adam([weights_SNK], lr=options.learning_rate)
        rest = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / options.steps)
        count = signals.train.shape[1]
        for step in range(options.steps):
            rows = torch.arange(step * options.batch, (step + 1) * options.batch) % count
            loss_S = objective(signals.train[:, rows], _unit(weights_SNK), options)
            adam.zero_grad()
            loss_S.sum().backward()  # type: ignore[no-untyped-call]
            adam.step()
            rest.step()
            beat()
        return _unit(weights_SNK.detach())


def ista(signals_SMN: Tensor, dictionaries_SNK: Tensor, *, layers: int, penalty: float) -> Tensor:
    """Return z after so many steps, (S, M, K)."""
    eta_S11 = 1 / torch.linalg.matrix_norm(dictionaries_SNK, ord=2)[:, None, None].square()
    gram_SKK, seen_SMK = dictionaries_SNK.mT @ dictionaries_SNK, signals_SMN @ dictionaries_SNK
    codes_SMK = torch.relu(eta_S11 * (seen_SMK - penalty))
    for _ in range(layers - 1):
        codes_SMK = torch.relu(codes_SMK + eta_S11 * (seen_SMK - codes_SMK @ gram_SKK - penalty))
    return codes_SMK


def objective(signals_SMN: Tensor, dictionaries_SNK: Tensor, options: SparseCoderOptions) -> Tensor:
    """Return the mean of |x - A z|^2 / 2 + penalty |z|_1 over signals, at the codes of the last layer: (S,)."""
    codes_SMK = ista(signals_SMN, dictionaries_SNK, layers=options.layers, penalty=options.penalty)
    missed_SM = (signals_SMN - codes_SMK @ dictionaries_SNK.mT).square().sum(dim=2) / 2
    return (missed_SM + options.penalty * codes_SMK.sum(dim=2)).mean(dim=1)


def _unit(weights_SNK: Tensor) -> Tensor:
    unit_SNK: Tensor = weights_SNK / weights_SNK.norm(dim=1, keepdim=True)
    return unit_SNK


SPARSE_CODER = ModelSpec(
    name="sparse-coder",
    summary="ISTA stacked, with a dictionary that it is given or learns: for sparse-codes",
    config=SparseCoderOptions,
    build=SparseCoder,
    head="",
    reference=Reference(
        title="Learning Fast Approximations of Sparse Coding (Gregor and LeCun 2010)",
        url="https://icml.cc/Conferences/2010/papers/449.pdf",
    ),
)
