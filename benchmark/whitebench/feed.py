"""How a split reaches a model: held beside it or read by loader processes, and as the numbers that models take.

Both ways give the same batches: who asks for rows gets these rows. Of several processes each reads its own share.
Legend: B batch, N samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch.utils.data import DataLoader, Dataset

from whitebench import group
from whitebench.errors import TaskDataError
from whitebench.pulse import beat
from whitebench.specs import Samples, Stream

if TYPE_CHECKING:
    from torch import Tensor

Inputs: TypeAlias = "Tensor | Stream"
"""(N, *shape): float32, or uint8 images, held or streamed."""

Scaling: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""Means and deviations, one of each per channel."""

PIECE = 1024
"""Images read at a time into memory."""


def arrange(samples: Samples[Any], *, most_bytes: float, workers: int) -> Samples[Any]:
    """Return samples whose images are held where models compute, if they take at most `most_bytes`, else streamed.

    Samples that are no images, float32, are left as they are.
    """
    inputs = samples.inputs
    if isinstance(inputs, torch.Tensor) and inputs.dtype != torch.uint8:
        return samples
    if inputs.nbytes > most_bytes:
        stream = inputs if isinstance(inputs, Stream) else _read_from(inputs)
        return dataclasses.replace(samples, inputs=dataclasses.replace(stream, workers=workers))
    held = _read_whole(inputs) if isinstance(inputs, Stream) else inputs
    return dataclasses.replace(samples, inputs=held.to(torch.accelerator.current_accelerator() or "cpu"))


def _read_from(images: Tensor) -> Stream:
    """Return images that lie in a mapped file as what is read from there when it is asked for."""
    return Stream(size=len(images), shape_of_one=tuple(images.shape[1:]), read=lambda rows: images[rows], sha256="")


def _read_whole(stream: Stream) -> Tensor:
    whole = torch.empty(stream.shape, dtype=torch.uint8)
    for rows in torch.split(torch.arange(len(stream)), PIECE):
        whole[rows] = stream[rows]
        beat()
    return whole


def to_numbers(batch: Tensor) -> Tensor:
    """Return a batch of float32: uint8 images as x / 255, on the device on which they are."""
    return batch.float().div_(255) if batch.dtype == torch.uint8 else batch


def scale(batch: Tensor, scaling: Scaling | None) -> Tensor:
    """Return images (B, channels, height, width) as (x - mean) / deviation, or as they are."""
    if scaling is None:
        return batch
    means, deviations = (torch.tensor(one, dtype=batch.dtype, device=batch.device)[:, None, None] for one in scaling)
    return (batch - means) / deviations


def batches(inputs: Inputs, batch_size: int) -> Iterator[Tensor]:
    """Yield this process's share of the inputs, in its share of `batch_size`, as they are held or read."""
    if not isinstance(inputs, Stream):
        yield from group.batches(inputs, batch_size)
        return
    rows = list(group.batches(torch.arange(len(inputs)), batch_size))
    yield from Loader(_Images(inputs), rows, workers=inputs.workers)


class _Images(Dataset[Any]):
    """A stream, indexed by a batch of rows."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.stream[rows]


class Loader(DataLoader[Any]):
    """Batches of a dataset that is indexed by whole batches of rows, made ahead by loader processes, in their order.

    Without workers the process that asks makes them itself.
    """

    def __init__(self, dataset: Dataset[Any], rows: Any, *, workers: int = 0, is_kept: bool = False) -> None:
        """Say what is read, by which batches of rows, and whether the workers live on to the next pass."""
        super().__init__(
            dataset,
            batch_size=None,
            sampler=cast("Any", rows),
            num_workers=workers,
            persistent_workers=is_kept and workers > 0,
            # Its own generator: DataLoader draws a base seed from the global one when iterated, which would make a
            # resumed fit differ.
            generator=torch.Generator().manual_seed(0),
            multiprocessing_context="fork" if workers else None,
        )

    def __iter__(self) -> Any:
        """Yield the batches; raises TaskDataError where a sample cannot be read, in the words of whoever read it."""
        made: Any = super().__iter__()
        try:
            yield from made
        except TaskDataError as error:
            if not self.num_workers:
                raise
            made._shutdown_workers()  # at once: the garbage collector would wait 5 s for each of them
            # torch hands over the traceback of the other process as its text
            raise TaskDataError(error.args[0].rstrip().rpartition("\n")[2].partition(": ")[2]) from error
