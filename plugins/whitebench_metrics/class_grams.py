"""What measures of features by class share: of each class, the Gram matrix of its unit-norm features and their number.

    G_j = sum_{i in class j} z_i z_i^T,   |z_i| = 1,   m_j the number of them

hold all that a rotation of the features within a class leaves: singular values, subspace, coding rate. They add up
exactly over batches and processes. Of m_j <= D features the features themselves are kept, which are the smaller side,
and of 1000 classes that have 50 samples in width 384 an eighth of the memory. Features of zeros stay zero, and count.

Two nulls know nothing of the classes: random directions of the same counts, and the features as they are with random
labels, each class as likely, from the hash of a sample's place in its split.

Legend: B batch, D width of the features, X the smaller of D and a class's samples, R directions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from whitebench import Picture, Reading, WhitebenchError
from whitebench_metrics.keyed import KeyedMetric

NULL_DRAWS = 4
RANDOM_FEATURES = "random features"
RANDOM_LABELS = "random labels"
DIRECTIONS_AT_ONCE = 4096
"""Bounds what a null draws at a time."""
NOISE = 1e-12
"""Of the largest eigenvalue: below it stand singular values of less than 1e-6, what float32 features leave of zero."""

Number: TypeAlias = float | str
"""A quantity, or in words why there is none."""


@dataclass(frozen=True, kw_only=True)
class ClassGram:
    """The unit-norm features of one class, as far as their Gram matrix tells them."""

    count: int
    side: Tensor
    """The features (m, D) where they are at most D, else their Gram matrix (D, D), float64."""

    @classmethod
    def of(cls, unit_BD: Tensor) -> ClassGram:
        """Return what is kept of features (B, D)."""
        count, width = unit_BD.shape
        return cls(count=count, side=unit_BD if count <= width else unit_BD.T @ unit_BD)

    def __add__(self, other: ClassGram) -> ClassGram:
        count = self.count + other.count
        if count <= self.width:
            return ClassGram(count=count, side=torch.cat([self.side, other.side]))
        return ClassGram(count=count, side=self.gram() + other.gram())

    @property
    def width(self) -> int:
        """The features' width."""
        return self.side.shape[1]

    @property
    def is_square(self) -> bool:
        """Whether it is the Gram matrix that is kept."""
        return self.count > self.width

    def gram(self) -> Tensor:
        """Return the Gram matrix, (D, D)."""
        return self.side if self.is_square else self.side.T @ self.side

    def half_log_det(self, scale: float) -> float:
        """Return 1/2 logdet(I + scale G) in nats, the determinant on the smaller side."""
        gram_XX = scale * (self.side if self.is_square else self.side @ self.side.T)
        factor_XX: Tensor = torch.linalg.cholesky(gram_XX + torch.eye(len(gram_XX), dtype=gram_XX.dtype))
        return float(factor_XX.diagonal().log().sum())

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """The features' singular values (X,), the largest first and noise as zero, and their directions (D, X)."""
        if self.is_square:
            values, vectors = torch.linalg.eigh(self.side)
            energy_X, directions_DX = values.flip(0), vectors.flip(1)
        else:
            _, singular_X, right_XD = torch.linalg.svd(self.side, full_matrices=False)
            energy_X, directions_DX = singular_X.square(), right_XD.T
        return energy_X.where(energy_X > NOISE * energy_X[0], 0.0).sqrt(), directions_DX


class ClassGrams(KeyedMetric):
    """The Gram matrices, and the readings that children make of them."""

    parts: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """What is read: by its name, the direction and the unit that its reading has."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.num_classes = classes

    def update(self, features_BD: Tensor, labels_B: Tensor, index_B: Tensor) -> None:
        """Add a batch.

        Raises:
            WhitebenchError: there are not as many features as labels, or they are no vectors.
        """
        if features_BD.ndim != 2 or not len(features_BD) == len(labels_B) == len(index_B):
            shapes = f"{tuple(features_BD.shape)} and {tuple(labels_B.shape)}"
            raise WhitebenchError(f"features (B, D) and labels (B,) are needed; got {shapes}")
        unit_BD = F.normalize(features_BD.double(), dim=-1)
        drawn_B = torch.tensor([random_label(index, self.num_classes) for index in index_B.tolist()], dtype=torch.int64)
        # Labels drawn are kept under keys below zero.
        keys_B = torch.cat([labels_B.cpu(), -1 - drawn_B])
        places = self.places()
        with torch.autocast(unit_BD.device.type, enabled=False):
            for key in sorted(set(keys_B.tolist())):
                is_own_B = (keys_B == key).reshape(2, -1).any(dim=0).to(unit_BD.device)
                new = ClassGram.of(unit_BD[is_own_B])
                if key in places:
                    self.put(places[key], _flat(_gathered(self.rows[places[key]]) + new))
                else:
                    self.keep(key, _flat(new))

    def classes(self) -> dict[int, ClassGram]:
        """Return the classes that were seen, by label, and below zero those of random labels, on the CPU."""
        gathered = {}
        for key, rows in self.found().items():
            first, *others = (_gathered(row.cpu()) for row in rows)
            gathered[key] = sum(others, start=first)
        return gathered

    def measure(self, classes: Sequence[ClassGram]) -> Mapping[str, Number]:
        """Return each quantity of the classes: a number, or why there is none."""
        raise NotImplementedError

    def draw(
        self, _: Mapping[int, ClassGram], __: Mapping[str, Sequence[ClassGram]]
    ) -> Mapping[str, dict[str, Picture]]:
        """Return the pictures of each quantity: of the classes by label, beside those of the nulls by name."""
        return {}

    def compute(self) -> dict[str, Reading]:
        """Return the readings over all samples so far."""
        gathered = self.classes()
        if not gathered:
            return self._unscored("no sample was seen")
        if not all(bool(one.side.isfinite().all()) for one in gathered.values()):
            return self._unscored("a feature is no finite number")
        classes = {label: one for label, one in gathered.items() if label >= 0}
        nulls = {
            RANDOM_FEATURES: list(random_grams(list(classes.values()))),
            RANDOM_LABELS: [[one for label, one in gathered.items() if label < 0]],
        }
        found = self.measure(list(classes.values()))
        measured = {name: [self.measure(draw) for draw in draws] for name, draws in nulls.items()}
        pictures = self.draw(classes, {name: draws[0] for name, draws in nulls.items()})
        readings = {}
        for part, facts in self.parts.items():
            value = found[part]
            if isinstance(value, str):
                readings[part] = Reading(value=None, unscored=value, **facts)
                continue
            beside = {name: _mean([draw[part] for draw in draws]) for name, draws in measured.items()}
            numbers = {name: null for name, null in beside.items() if null is not None}
            readings[part] = Reading(value=value, nulls=numbers, pictures=pictures.get(part, {}), **facts)
        return readings

    def _unscored(self, reason: str) -> dict[str, Reading]:
        return {part: Reading(value=None, unscored=reason, **facts) for part, facts in self.parts.items()}


def numbered(values_X: Tensor, first: int = 0) -> Tensor:
    """Return the points (number of directions, value) of a line, (X, 2); the first is at `first` directions."""
    return torch.stack([torch.arange(first, first + len(values_X), dtype=values_X.dtype), values_X], dim=1)


def random_label(index: int, classes: int) -> int:
    """Return a class for a sample's place in its split, each as likely."""
    return int.from_bytes(hashlib.sha256(f"label {index}".encode()).digest()) % classes


def random_grams(classes: Sequence[ClassGram]) -> Iterator[list[ClassGram]]:
    """Yield a few draws of what random directions of the same counts and width would be."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(NULL_DRAWS):
        yield [_random_gram(one.count, one.width, generator) for one in classes]


def _random_gram(count: int, width: int, generator: torch.Generator) -> ClassGram:
    draws = []
    for start in range(0, count, DIRECTIONS_AT_ONCE):
        size = min(DIRECTIONS_AT_ONCE, count - start)
        draws.append(
            ClassGram.of(F.normalize(torch.randn(size, width, generator=generator, dtype=torch.float64), dim=-1))
        )
    return sum(draws[1:], start=draws[0])


def _mean(numbers: Sequence[Number]) -> float | None:
    known = [number for number in numbers if not isinstance(number, str)]
    return math.fsum(known) / len(known) if known else None


def _flat(one: ClassGram) -> Tensor:
    return torch.cat([one.side.new_tensor([one.count, one.width]), one.side.flatten()])


def _gathered(row: Tensor) -> ClassGram:
    count, width = (int(number) for number in row[:2])
    return ClassGram(count=count, side=row[2:].reshape(-1, width))
