"""Draws: images in the subspace of their class, or images whose patches lie each in one of the two of their class.

With one token, a class is a subspace. With n, a class is one of the ten pairs of five subspaces: half of an image's
patches lie in either (of an odd number, the one more in each of the two by turns), in places that are drawn anew for
each image. All means are zero, also those of a place: a class is told by how many tokens lie in which subspace alone.

The noise is normal in all pixels, of `noise` times the length of the signal in root mean square. Pixels are multiples
of 2^-12: with that, machines agree on them although their last digits differ.

N samples, n tokens of each (row by row, as models count patches), P pixels, R dimensions of a subspace, K subspaces.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from whitebench import Samples, Split
from whitebench_tasks.chance import Stream
from whitebench_tasks.normal import normal
from whitebench_tasks.subspaces.frames import equiangular_frames
from whitebench_tasks.subspaces.options import CLASSES, TOKEN_SUBSPACES, SubspacesOptions

_STREAM = "whitebench-subspaces-1"
_GRID = 2.0**-12
_PAIRS = np.array(list(combinations(range(TOKEN_SUBSPACES), 2)))


def data(options: SubspacesOptions, split: Split) -> Samples:
    """Return a split: samples in even shares of the classes, and the subspaces that they or their tokens come from."""
    count = {"train": options.train, "validation": options.validation, "test": options.test}[split]
    is_whole = options.tokens == 1
    of = "" if is_whole else f"tokens:{options.tokens}:"
    frames_KPR = equiangular_frames(
        f"{_STREAM}:{of}frames:{options.side}:{options.dim}:{options.seed}",
        count=options.subspaces,
        pixels=options.patch**2,
        dim=options.dim,
        angle=options.angle,
    )
    stream = Stream(f"{_STREAM}:{of}{split}:{options.side}:{options.dim}:{options.seed}")
    labels_N = np.arange(count) % CLASSES
    groups_Nn = labels_N[:, None] if is_whole else _groups(stream, labels_N, options.tokens)
    patches = _patches(stream, frames_KPR, groups_Nn.ravel(), options)
    images = patches.reshape(count, options.grid, options.grid, options.patch, options.patch).transpose(0, 1, 3, 2, 4)
    true = torch.from_numpy(frames_KPR)
    return Samples(
        inputs=torch.from_numpy(images.reshape(count, 1, options.side, options.side)).float(),
        labels=torch.from_numpy(labels_N),
        truth={"class-subspaces": true}
        if is_whole
        else {"token-subspaces": true, "token-groups": torch.from_numpy(groups_Nn)},
    )


def _groups(stream: Stream, labels_N: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    """Return the subspace of each sample's tokens, (N, n)."""
    ranks_Nn = stream.uniform(len(labels_N), tokens).argsort(axis=1)
    turns_N1 = np.arange(len(labels_N))[:, None] // CLASSES
    return np.take_along_axis(_PAIRS[labels_N], (ranks_Nn + turns_N1) % 2, axis=1)


def _patches(
    stream: Stream, frames_KPR: NDArray[np.float64], groups_X: NDArray[np.int64], options: SubspacesOptions
) -> NDArray[np.float64]:
    """Return a signal in each subspace of `groups_X` with noise around it, (X, P)."""
    drawn = normal(stream, len(groups_X), options.dim + options.patch**2)
    a_XR = drawn[:, : options.dim] / np.linalg.norm(drawn[:, : options.dim], axis=1, keepdims=True)
    signal_XP = options.patch * np.einsum("xpr,xr->xp", frames_KPR[groups_X], a_XR)
    noisy_XP: NDArray[np.float64] = signal_XP + options.noise * drawn[:, options.dim :]
    return np.round(noisy_XP / _GRID) * _GRID
