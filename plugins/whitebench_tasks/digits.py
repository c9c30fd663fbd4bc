"""Digits: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, learnt in seconds on a CPU.

The images are the test part of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak,
1998): bitmaps of 32 x 32, counted in blocks of 4 x 4. A pixel is k / 16 with k = 0 .. 16, exact in float32.

The split is fixed, and 60/20/20 within each class: 1,078 train, 360 validation, 359 test. A class's samples
are ordered by the sha256 of "whitebench-digits-1:<index in load_digits>"; of n samples the first
round(0.6 n) are train, those up to round(0.8 n) validation, the others test. No random number generator
takes part, so no library's version can change it. The source does not name the writers, so one writer's
digits lie in all three splits.

B batch, C channels, H height, W width.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from whitebench import Reference, Samples, Split, TaskSpec, WhitebenchError
from whitebench_tasks.label_noise import check_label_noise, with_label_noise

if TYPE_CHECKING:
    from collections.abc import Mapping

_SALT = "whitebench-digits-1"
_SIDE = 8
_TRAIN = 1078


@dataclass(frozen=True, kw_only=True)
class DigitsOptions:
    """How many training samples there are, how clean their labels, and which augmentation the task permits."""

    train: int = 1078
    """Training samples: fewer are the first of each class in the order of the split, as even as that can be."""
    label_noise: float = 0.0
    """Share of the training labels that are drawn anew; validation and test stay clean."""
    shift: int = 0
    """Largest shift of a training image, in pixels; off by default: at short budgets one pixel costs 6 to 9 points."""

    def __post_init__(self) -> None:
        if not 10 <= self.train <= _TRAIN:
            raise WhitebenchError(
                f"digits[train={self.train}]: there are {_TRAIN} training samples of 10 classes; choose 10 to {_TRAIN}"
            )
        if not 0 <= self.shift < _SIDE:
            raise WhitebenchError(
                f"digits[shift={self.shift}]: an image of {_SIDE} x {_SIDE} pixels can be shifted"
                f" by 0 to {_SIDE - 1}; choose such a shift, e.g. shift=1"
            )
        check_label_noise("digits", self.label_noise)


def split_indices(labels: list[int]) -> dict[Split, list[int]]:
    """Return the indices of each split, in ascending order, for the labels in their published order."""
    indices: dict[Split, list[int]] = {"train": [], "validation": [], "test": []}
    for digit in sorted(set(labels)):
        members = sorted((i for i, label in enumerate(labels) if label == digit), key=_hash_of)
        # In whole numbers, since 0.6 has no exact float: round(0.6 n) and round(0.8 n).
        first, second = (6 * len(members) + 5) // 10, (8 * len(members) + 5) // 10
        indices["train"] += members[:first]
        indices["validation"] += members[first:second]
        indices["test"] += members[second:]
    return {split: sorted(members) for split, members in indices.items()}


def _hash_of(index: int) -> str:
    return hashlib.sha256(f"{_SALT}:{index}".encode()).hexdigest()


@functools.lru_cache(maxsize=1)
def _splits() -> Mapping[Split, Samples]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    inputs = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(digits.target).long()
    return {
        split: Samples(inputs=inputs[indices].contiguous(), labels=labels[indices].contiguous())
        for split, indices in split_indices(labels.tolist()).items()
    }


def _data(options: DigitsOptions, split: Split) -> Samples:
    samples = _splits()[split]
    if split != "train":
        return samples
    if options.train < _TRAIN:
        chosen = _first_of_each(samples.labels.tolist(), options.train)
        samples = Samples(inputs=samples.inputs[chosen].contiguous(), labels=samples.labels[chosen].contiguous())
    return with_label_noise(samples, options.label_noise, classes=10, stream=f"{_SALT}:label noise")


def _first_of_each(labels: list[int], count: int) -> list[int]:
    """Return the places of `count` samples, taken from the classes in turn, in ascending order."""
    turn_of: list[tuple[int, int]] = []
    seen = [0] * 10
    for place, label in enumerate(labels):
        turn_of.append((seen[label], place))
        seen[label] += 1
    return sorted(place for _, place in sorted(turn_of)[:count])


def shift_images(options: DigitsOptions, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `options.shift` pixels along each axis, filling with zeros.

    Every shift is equally likely. Returns a new (B, C, H, W), or the images themselves where `shift` is 0.
    """
    if options.shift == 0:
        return images_BCHW
    B, _, H, W = images_BCHW.shape
    starts_2B = torch.randint(2 * options.shift + 1, (2, B), generator=generator, device=generator.device).to(
        images_BCHW.device
    )
    rows_BH1 = (starts_2B[0, :, None] + torch.arange(H, device=images_BCHW.device))[:, :, None]
    columns_B1W = (starts_2B[1, :, None] + torch.arange(W, device=images_BCHW.device))[:, None, :]
    samples_B11 = torch.arange(B, device=images_BCHW.device)[:, None, None]
    padded_BHWC = F.pad(images_BCHW, [options.shift] * 4).permute(0, 2, 3, 1)
    return padded_BHWC[samples_B11, rows_BH1, columns_B1W].permute(0, 3, 1, 2).contiguous()


_MANIFEST: Mapping[Split, str] = {
    "train": "2dc6646327a125a22e71b95598efbc3c1e4c39430b209494cd9b49316574e6ea",
    "validation": "7d05d7259cbf08c919463266a1e8fee65440f4adf668295144a1dbe080581c05",
    "test": "d96f3bb5fbb23994d4b9b83f96f8ea7815b16da0477ab07cc1ac4faef8bdab01",
}


def _manifest(options: DigitsOptions) -> Mapping[Split, str]:
    is_whole = options.label_noise == 0 and options.train == _TRAIN
    return {split: sha for split, sha in _MANIFEST.items() if is_whole or split != "train"}


DIGITS = TaskSpec(
    name="digits",
    version=1,
    summary="1,797 handwritten digits of 8 x 8 pixels: real, and learnt in seconds on a CPU",
    shape=(1, _SIDE, _SIDE),
    classes=10,
    data=_data,
    config=DigitsOptions,
    augment=shift_images,
    manifest=_manifest,
    reference=Reference(
        title="Optical Recognition of Handwritten Digits (UCI), as sklearn.datasets.load_digits",
        url="https://doi.org/10.24432/C50P49",
    ),
)
