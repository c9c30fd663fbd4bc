"""A task's data as it is served: checked against its Spec, fingerprinted, and cut into batches."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from whitebench import group
from whitebench.errors import TaskDataError
from whitebench.seeds import mix
from whitebench.specs import Samples, Shape, Split, Stream, TaskSpec

if TYPE_CHECKING:
    from torch import Tensor


def load_samples(spec: TaskSpec, config: Any, split: Split) -> tuple[Samples[Any], str]:
    """Return a split with the sha256 of the bytes served.

    Raises:
        TaskDataError: shapes, types or labels are not what the Spec says, or the bytes are not those
            of its manifest.
    """
    samples = spec.data(config, split)
    where = f"task {spec.name!r}, split {split!r}"
    _check(where, spec.shape_of(config), spec.classes_of(config), samples)
    fingerprint = fingerprint_of(samples)
    expected = spec.manifest_of(config).get(split)
    if expected is not None and expected != fingerprint:
        raise TaskDataError(
            f"{where}: the data served has sha256 {fingerprint[:12]}…, its manifest says {expected[:12]}…: "
            "another version of the data is installed, or the task changed without a new version"
        )
    return samples, fingerprint


def _check(where: str, shape: Shape, classes: int, samples: object) -> None:
    if not isinstance(samples, Samples):
        raise TaskDataError(f"{where}: data returned a {type(samples).__name__}; it must return Samples")
    inputs, labels = samples.inputs, samples.labels
    if isinstance(inputs, Stream):
        kind, devices = torch.uint8, [labels.device]
    else:
        kind, devices = inputs.dtype, [inputs.device, labels.device]
    if any(device.type != "cpu" for device in devices):
        raise TaskDataError(f"{where}: samples must be served on the CPU, got {', '.join(map(str, devices))}")
    if kind not in (torch.float32, torch.uint8) or labels.dtype != torch.int64:
        raise TaskDataError(
            f"{where}: inputs must be float32 and labels int64, got {kind}, {labels.dtype}; images may be uint8"
        )
    if kind == torch.uint8 and len(shape) != 3:
        raise TaskDataError(f"{where}: inputs of uint8 are images (channels, height, width), the Spec says {shape}")
    if labels.ndim != 1 or tuple(inputs.shape) != (len(labels), *shape):
        raise TaskDataError(
            f"{where}: inputs are {tuple(inputs.shape)} and labels {tuple(labels.shape)}; "
            f"the Spec says (N, {', '.join(map(str, shape))}) and (N,)"
        )
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= classes:
        raise TaskDataError(f"{where}: it needs samples with labels in [0, {classes})")
    if isinstance(inputs, torch.Tensor) and not bool(inputs.isfinite().all()):
        raise TaskDataError(f"{where}: inputs hold values that are not finite numbers")


def fingerprint_of(samples: Samples[Any]) -> str:
    """Return the sha256 of the bytes of the inputs (of a stream: of what it says they follow from), then the labels."""
    inputs = samples.inputs
    if isinstance(inputs, Stream):
        digest = hashlib.sha256(bytes.fromhex(inputs.sha256))
    elif inputs.dtype == torch.uint8:
        digest = hashlib.sha256(inputs.contiguous().numpy())
    else:
        digest = hashlib.sha256(inputs.contiguous().numpy().astype("<f4", copy=False).tobytes())
    digest.update(samples.labels.contiguous().numpy().astype("<i8", copy=False).tobytes())
    return digest.hexdigest()


class EpochSampler:
    """Each epoch's batches of sample indices, a function of seed and epoch alone.

    A resumed fit therefore sees the batches an undisturbed one sees. Every sample comes exactly once
    per epoch; the last batch may be smaller. Lightning calls `set_epoch`.
    """

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        self.samples, self.batch_size, self.seed, self.epoch = samples, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch (from 0) the next pass belongs to."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.samples / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        yield from torch.split(torch.randperm(self.samples, generator=generator), self.batch_size)


class InOrder:
    """Batches of sample indices in the samples' own order."""

    def __init__(self, samples: int, batch_size: int) -> None:
        self.samples, self.batch_size = samples, batch_size

    def __len__(self) -> int:
        return math.ceil(self.samples / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        yield from torch.split(torch.arange(self.samples), self.batch_size)


class TensorBatches(torch.utils.data.Dataset[tuple["Tensor", "Tensor", int]]):
    """Whole tensors or a stream of images, indexed by a batch of sample indices: no copy per sample.

    Yields inputs, labels, and how many samples the batch has in all. Where it `is_shared`, each of several processes
    gets its share of them, which may be empty.
    """

    def __init__(self, samples: Samples[Any], *, is_shared: bool = True) -> None:
        self.samples, self.is_shared = samples, is_shared

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor, int]:
        own = group.share(rows) if self.is_shared else rows
        return self.samples.inputs[own], self.samples.labels[own], len(rows)
