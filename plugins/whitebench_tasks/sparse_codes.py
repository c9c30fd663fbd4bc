"""Sparse codes: signals made from few atoms of a known dictionary. Does ISTA find the atoms, and which were used?

    x = A z + noise,     A (N, K) with unit columns, z >= 0 with few entries that are not zero

A is normal with its columns normalised, each z has `active` entries, in places that are all equally likely and with
values even in [0.5, 1.5], and the noise is normal, of `noise` times the length of A z in root mean square. A block is
some such dictionaries, each with signals to learn from and signals to be judged by.

Judged are the contestant's atoms, each assigned to one of the true ones so that the cosines add up to the most (the
Hungarian method: a dictionary is known but for the order of its atoms), and the codes that it gives to the signals kept
back. A dictionary is accepted where 95 % of its atoms are found, with a cosine of .99 or more, and in 90 % of the
signals the largest codes are those of the true atoms.

S dictionaries (draws), M signals, N width, K atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from whitebench import Reading, Solution, TaskSpec, WhitebenchError
from whitebench_tasks.chance import Stream
from whitebench_tasks.normal import normal

_STREAM = "whitebench-sparse-codes-1"
_NEAR, _ATOMS, _SIGNALS = 0.99, 0.95, 0.90
"""The cosine at which an atom is found; the shares of atoms and of signals at which a dictionary is accepted."""


@dataclass(frozen=True, kw_only=True)
class SparseCodesOptions:
    """How many dictionaries of which size, and the signals made from them."""

    draws: int = 5
    """Dictionaries in a block."""
    width: int = 16
    atoms: int = 32
    active: int = 2
    """Atoms in a signal."""
    noise: float = 0.01
    """Its length, as a share of the signal's."""
    train: int = 2000
    test: int = 500
    """Signals of each dictionary, to learn from and to be judged by."""

    def __post_init__(self) -> None:
        for name in ("draws", "width", "atoms", "active", "train", "test"):
            if getattr(self, name) < 1:
                raise WhitebenchError(f"sparse-codes[{name}={getattr(self, name)}]: it must be 1 or more")
        if self.active >= self.atoms:
            raise WhitebenchError(
                f"sparse-codes[active={self.active}]: a signal takes some of {self.atoms} atoms, not all: choose fewer"
            )
        if self.noise < 0:
            raise WhitebenchError(f"sparse-codes[noise={self.noise}]: a share of the signal's length is 0 or more")


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What is known of a block, float32."""

    dictionaries: Tensor
    """A, (S, N, K)."""
    starts: Tensor
    """(S, N, K), dictionaries that have nothing to do with the signals: to start from."""
    train: Tensor
    """(S, M, N)."""
    test: Tensor
    """(S, M, N)."""
    codes: Tensor
    """z of the test signals, (S, M, K)."""


class Contestant(Protocol):
    """What the task asks of a contestant's module."""

    def atoms(self, signals: Signals) -> Tensor:
        """Return the dictionaries (S, N, K), with unit columns, that it codes with."""

    def encode(self, signals: Tensor, dictionaries: Tensor) -> Tensor:
        """Return the codes (S, M, K) of signals (S, M, N)."""


def draw(numbers: Sequence[int], options: SparseCodesOptions) -> Signals:
    """Return the dictionaries of these numbers and their signals: each the same whatever others stand beside it."""
    parts = [_one(number, options) for number in numbers]
    dictionaries, starts, signals, codes = (
        torch.from_numpy(np.stack(part)).float() for part in zip(*parts, strict=True)
    )
    return Signals(
        dictionaries=dictionaries,
        starts=starts,
        train=signals[:, : options.train],
        test=signals[:, options.train :],
        codes=codes[:, options.train :],
    )


def _one(number: int, options: SparseCodesOptions) -> tuple[NDArray[np.float64], ...]:
    N, K, M = options.width, options.atoms, options.train + options.test
    size = f"{N}x{K}:{options.active}:{options.noise}"
    stream = Stream(f"{_STREAM}:{size}:{number}")
    dictionary, start = (_unit_columns(normal(stream, N, K)) for _ in range(2))
    places = stream.uniform(M, K).argsort(axis=1, kind="stable")[:, : options.active]
    codes = np.zeros((M, K))
    np.put_along_axis(codes, places, 0.5 + stream.uniform(M, options.active), axis=1)
    clean = codes @ dictionary.T
    length = options.noise * np.linalg.norm(clean, axis=1, keepdims=True) / np.sqrt(N)
    return dictionary, start, clean + length * normal(stream, M, N), codes


def _unit_columns(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = matrix / np.linalg.norm(matrix, axis=0, keepdims=True)
    return unit


def assign(found: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each true atom (S, K), the place of the found one that is assigned to it, and their cosine."""
    cosines_SKK = true.double().mT @ found.double()
    places_SK = torch.from_numpy(np.stack([linear_sum_assignment(-one.numpy())[1] for one in cosines_SKK]))
    return places_SK, cosines_SKK.gather(2, places_SK[..., None])[..., 0]


def solve(options: SparseCodesOptions, module: nn.Module, block: int) -> Solution:
    """Judge the contestant on one block of dictionaries: number `draws * block` and those that follow it."""
    contestant = cast("Contestant", module)
    signals = draw(range(options.draws * block, options.draws * (block + 1)), options)
    atoms_SNK = contestant.atoms(signals)
    places_SK, cosines_SK = assign(atoms_SNK, signals.dictionaries)
    codes_SMK = contestant.encode(signals.test, atoms_SNK)
    codes_SMK = codes_SMK.gather(2, places_SK[:, None].expand_as(codes_SMK))
    is_used_SMK, is_coded_SMK = signals.codes > 0, codes_SMK > 0
    largest_SMK = torch.zeros_like(is_used_SMK).scatter_(2, codes_SMK.topk(options.active).indices, value=True)
    is_exact_SM = (largest_SMK & is_coded_SMK == is_used_SMK).all(dim=2)
    found_S = (cosines_SK >= _NEAR).double().mean(dim=1)
    exact_S = is_exact_SM.double().mean(dim=1)
    accepted_S = (found_S >= _ATOMS) & (exact_S >= _SIGNALS)
    hits_S = (is_used_SMK & is_coded_SMK).double().sum(dim=(1, 2))
    precision_S = hits_S / is_coded_SMK.double().sum(dim=(1, 2)).clamp_min(1)
    each = {
        "accepted": accepted_S.double(),
        "dictionary/found": found_S,
        "dictionary/cosine": cosines_SK.mean(dim=1),
        "support/exact": exact_S,
        "support/precision": precision_S,
        "support/recall": hits_S / is_used_SMK.double().sum(dim=(1, 2)),
        "support/nonzero": is_coded_SMK.double().mean(dim=(1, 2)),
    }
    _, by_chance_SK = assign(signals.starts, signals.dictionaries)
    times = min(float(found_S.mean()) / _ATOMS, float(exact_S.mean()) / _SIGNALS)
    readings = {name: Reading(value=float(values_S.mean())) for name, values_S in each.items()}
    readings["dictionary/cosine"].nulls = {"random atoms": float(by_chance_SK.mean())}
    readings["support/nonzero"].nulls = {"the truth": options.active / options.atoms}
    readings["support/nonzero"].direction = "lower"
    return Solution(draws=options.draws, scores={**readings, "verdict": Reading(value=times)}, per_sample=each)


SPARSE_CODES = TaskSpec(
    name="sparse-codes",
    version=1,
    summary="Signals made from few atoms of a known dictionary: are the atoms found, and which were used?",
    solve=solve,
    asks=("atoms", "encode"),
    config=SparseCodesOptions,
)
