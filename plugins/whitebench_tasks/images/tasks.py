"""The tasks: sets with a name on the hub, folders of pictures, and parquet files.

A sample is a square of `size` pixels, of whole numbers (decoding.py says how it comes about); models see x / 255,
shifted and scaled as `normalise` says. Which pictures are for validation and test is said in splitting.py. Pictures may
be mirrored where a recipe says so.

Sets on the hub are pinned to a commit of their repository there, unless `revision` asks for another; the sha256 of what
a machine has read is part of each cell's identity besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whitebench import Reference, Samples, Shape, Split, TaskSpec
from whitebench_tasks.images.options import (
    CIFAR10Options,
    CIFAR100Options,
    FolderOptions,
    ImageNetOptions,
    ImageOptions,
    ParquetOptions,
)
from whitebench_tasks.images.prepared import find, prepare, shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def _data(options: ImageOptions, split: Split) -> Samples[Any]:
    return prepare(options).samples(split)


def _shape(options: ImageOptions) -> Shape:
    return shape_of(options)


def _classes(options: ImageOptions) -> int:
    return options.origin.classes or find(options).classes


def _manifest(options: ImageOptions) -> Mapping[Split, str]:
    return find(options).manifest


def _scaling(options: ImageOptions) -> tuple[Sequence[float], Sequence[float]] | None:
    return options.scaling


def _prepare(options: ImageOptions) -> list[str]:
    return prepare(options).remarks


def _spec(config: type[ImageOptions], summary: str, reference: Reference | None = None) -> TaskSpec:
    return TaskSpec(
        name=config.task,
        version=1,
        summary=summary,
        shape=_shape,
        classes=_classes,
        data=_data,
        config=config,
        permits=("flip",),
        scaling=_scaling,
        prepare=_prepare,
        manifest=_manifest,
        reference=reference,
    )


IMAGEFOLDER = _spec(FolderOptions, "pictures of your own, a folder for each class (pip install 'whitebench[datasets]')")

PARQUET = _spec(ParquetOptions, "pictures of your own in parquet files (pip install 'whitebench[datasets]')")

CIFAR10 = _spec(
    CIFAR10Options,
    "60,000 photographs of 32 x 32 pixels in 10 classes (pip install 'whitebench[datasets]')",
    Reference(
        title="Learning Multiple Layers of Features from Tiny Images",
        url="https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
    ),
)

CIFAR100 = _spec(
    CIFAR100Options,
    "60,000 photographs of 32 x 32 pixels in 100 classes (pip install 'whitebench[datasets]')",
    Reference(
        title="Learning Multiple Layers of Features from Tiny Images",
        url="https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
    ),
)

IMAGENET = _spec(
    ImageNetOptions,
    "1.3 million photographs in 1,000 classes (pip install 'whitebench[datasets]')",
    Reference(title="ImageNet Large Scale Visual Recognition Challenge", url="https://arxiv.org/abs/1409.0575"),
)
