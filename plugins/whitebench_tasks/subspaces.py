"""Subspaces: classes that lie in known linear subspaces, at a known angle, with known noise.

    x = s U_y a + noise,     a even on the unit sphere of R^dim, s = side, so that a pixel's root mean square is one

of side x side pixels, one channel: the mixture of subspaces on which rate reduction and CRATE are built (Yu et al.,
arXiv 2006.08558 and 2306.01129). All principal angles between any two of the ten subspaces are `angle`: with frames C
and V_1 .. V_10 that are orthonormal and orthogonal to each other,

    U_j = sqrt(cos angle) C + sqrt(1 - cos angle) V_j,     U_i^T U_j = cos(angle) I.

The noise is normal in all pixels, of `noise` times the length of the signal in root mean square. x and -x are of one
class, so that no linear layer tells two classes apart on its own; the true subspaces do, and `known-subspaces` is told
them. Pixels are multiples of 2^-12: with that, machines agree on them although their last digits differ.

N samples, D pixels, R dimensions of a subspace, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from whitebench import Reference, Samples, Shape, Split, TaskSpec, WhitebenchError
from whitebench_tasks.chance import Stream
from whitebench_tasks.normal import normal

_STREAM = "whitebench-subspaces-1"
_CLASSES = 10
_GRID = 2.0**-12


@dataclass(frozen=True, kw_only=True)
class SubspacesOptions:
    """The subspaces, and how many samples lie in them."""

    side: int = 8
    """Of an image, in pixels."""
    dim: int = 4
    """Dimensions of each subspace."""
    angle: float = 90.0
    """Between any two of them, in degrees: every principal angle."""
    noise: float = 0.1
    """Its length, as a share of the signal's."""
    train: int = 2000
    validation: int = 1000
    test: int = 2000
    seed: int = 0
    """Of everything random in the data."""

    def __post_init__(self) -> None:
        for name in ("side", "dim", "train", "validation", "test"):
            if getattr(self, name) < (1 if name in ("side", "dim") else _CLASSES):
                least = 1 if name in ("side", "dim") else _CLASSES
                raise WhitebenchError(f"subspaces[{name}={getattr(self, name)}]: it must be {least} or more")
        if not 0 < self.angle <= 90:
            raise WhitebenchError(
                f"subspaces[angle={self.angle}]: an angle between subspaces lies above 0 and up to 90"
            )
        if self.noise < 0 or self.seed < 0:
            raise WhitebenchError(f"subspaces: noise={self.noise} and seed={self.seed} must be 0 or more")
        frames = _CLASSES + (self.angle < 90)
        if frames * self.dim > self.side**2:
            raise WhitebenchError(
                f"subspaces[dim={self.dim}]: {frames} frames of {self.dim} directions do not fit into {self.side**2} "
                f"pixels; choose dim={self.side**2 // frames} or less, or a larger side"
            )


@lru_cache(maxsize=4)
def frames(side: int, dim: int, angle: float, seed: int) -> NDArray[np.float64]:
    """Return the orthonormal frames of the subspaces, (C, D, R)."""
    D = side**2
    stream = Stream(f"{_STREAM}:frames:{side}:{dim}:{seed}")
    q_DX, r_XX = np.linalg.qr(normal(stream, D, min((_CLASSES + 1) * dim, D)))
    basis_DX = q_DX * np.sign(np.diag(r_XX))  # which sign is free, and libraries choose it differently
    parts = [basis_DX[:, j * dim : (j + 1) * dim] for j in range(_CLASSES + 1)]
    shared = math.cos(math.radians(angle)) if angle < 90 else 0.0
    own, common = parts[:_CLASSES], parts[_CLASSES]
    return np.stack([math.sqrt(1 - shared) * one + (math.sqrt(shared) * common if shared else 0) for one in own])


def data(options: SubspacesOptions, split: Split) -> Samples:
    """Return a split: samples in even shares of the classes, and the subspaces that they come from."""
    count = {"train": options.train, "validation": options.validation, "test": options.test}[split]
    frames_CDR = frames(options.side, options.dim, options.angle, options.seed)
    stream = Stream(f"{_STREAM}:{split}:{options.side}:{options.dim}:{options.seed}")
    labels = np.arange(count) % _CLASSES
    drawn = normal(stream, count, options.dim + options.side**2)
    a_NR = drawn[:, : options.dim] / np.linalg.norm(drawn[:, : options.dim], axis=1, keepdims=True)
    signal_ND = options.side * np.einsum("ndr,nr->nd", frames_CDR[labels], a_NR)
    pixels_ND = np.round((signal_ND + options.noise * drawn[:, options.dim :]) / _GRID) * _GRID
    return Samples(
        inputs=torch.from_numpy(pixels_ND).float().reshape(count, 1, options.side, options.side),
        labels=torch.from_numpy(labels),
        truth={"subspaces": torch.from_numpy(frames_CDR)},
    )


def _shape(options: SubspacesOptions) -> Shape:
    return (1, options.side, options.side)


def _manifest(options: SubspacesOptions) -> Mapping[Split, str]:
    return _MANIFEST if options == SubspacesOptions() else {}


_MANIFEST: Mapping[Split, str] = {
    "train": "399acb4428aea457b24323c91c1ef8fbd5d867db45290d313ae065520438b8eb",
    "validation": "809f44d6cd25a445401b84421541a6d8f1a4f1e7886e05bc9b5bb6c3b1dbcd53",
    "test": "b73c38227798fe7e30459db948bd9a43ec675134d23efe58edae7a2415704777",
}

SUBSPACES = TaskSpec(
    name="subspaces",
    version=1,
    summary="Ten classes, each in a linear subspace that is known: what rate reduction and CRATE are built on",
    shape=_shape,
    classes=_CLASSES,
    data=data,
    config=SubspacesOptions,
    manifest=_manifest,
    reference=Reference(
        title="Learning Diverse and Discriminative Representations via Maximal Coding Rate Reduction (Yu et al. 2020)",
        url="https://arxiv.org/abs/2006.08558",
    ),
)
