"""The options of tasks with real images, and which set of images they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

from whitebench import WhitebenchError

Fit: TypeAlias = Literal["crop", "stretch"]
Scale: TypeAlias = Literal["none", "half", "imagenet"]

MOST_SIDE = 1_024

SCALES: dict[Scale, tuple[tuple[float, ...], tuple[float, ...]] | None] = {
    "none": None,
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Means and deviations of red, green and blue; the last are those of ImageNet, as they are commonly given."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a set comes from that has a name on the hub, and what its columns are called there."""

    repository: str = ""
    revision: str = ""
    """The commit of the repository that is pinned."""
    subset: str = ""
    image: str = "image"
    label: str = "label"
    classes: int = 0
    """0 where the data say."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How pictures become samples of one size, and which of them are for validation."""

    task: ClassVar[str]
    """The task's name, for what is said to people."""
    origin: ClassVar[Origin] = Origin()

    path: str = ""
    """Where on this machine they lie."""
    size: int = 32
    """Side of a sample, in pixels."""
    channels: int = 3
    """3 for colours, 1 for greys."""
    fit: Fit = "crop"
    """How a picture becomes a square: its middle is cut out, or it is stretched."""
    share: float = 1.0
    """Of the shorter side, how much the cut keeps."""
    normalise: Scale = "none"
    """How what a model sees is shifted and scaled: not at all, to [-1, 1], or by ImageNet's means and deviations."""
    seed: int = 0
    """Of the choice of samples for validation."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MOST_SIDE:
            raise WhitebenchError(f"{self.task}[size={self.size}]: a side is 1 to {MOST_SIDE} pixels")
        if self.channels not in (1, 3):
            raise WhitebenchError(f"{self.task}[channels={self.channels}]: choose channels=3, or channels=1 for greys")
        if self.fit not in get_args(Fit):
            raise WhitebenchError(f"{self.task}[fit={self.fit}]: choose fit=crop or fit=stretch")
        if not 0 < self.share <= 1:
            raise WhitebenchError(
                f"{self.task}[share={self.share}]: a cut keeps a share above 0 and up to 1, e.g. 0.875"
            )
        if self.fit == "stretch" and self.share != 1:
            raise WhitebenchError(f"{self.task}[fit=stretch,share={self.share}]: only fit=crop cuts; leave share out")
        if self.normalise not in get_args(Scale):
            raise WhitebenchError(f"{self.task}[normalise={self.normalise}]: choose {', '.join(get_args(Scale))}")
        if self.normalise == "imagenet" and self.channels != 3:
            raise WhitebenchError(f"{self.task}[normalise=imagenet,channels=1]: ImageNet's means are of three channels")
        if self.seed < 0:
            raise WhitebenchError(f"{self.task}[seed={self.seed}]: a seed is 0 or more")

    @property
    def scaling(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Means and deviations, one of each per channel; None where nothing is scaled."""
        found = SCALES[self.normalise]
        return None if found is None else (found[0][: self.channels], found[1][: self.channels])

    @property
    def columns(self) -> tuple[str, str]:
        """What the images and the labels are called in a table."""
        return self.origin.image, self.origin.label

    @property
    def commit(self) -> str:
        """Which of the hub's commits is asked for; empty where there is no hub."""
        return ""


@dataclass(frozen=True, kw_only=True)
class FolderOptions(ImageOptions):
    """Of a folder of pictures, one folder for each class."""

    task: ClassVar[str] = "imagefolder"

    name: str = ""
    """What boards call it, for suites with several."""


@dataclass(frozen=True, kw_only=True)
class ParquetOptions(ImageOptions):
    """Of parquet files."""

    task: ClassVar[str] = "parquet"

    name: str = ""
    """What boards call it, for suites with several."""
    image: str = "image"
    """The column with the pictures: their files' bytes."""
    label: str = "label"
    """The column with the classes: names, or numbers from 0 up."""

    @property
    def columns(self) -> tuple[str, str]:
        """What the images and the labels are called in a table."""
        return self.image, self.label


@dataclass(frozen=True, kw_only=True)
class HubOptions(ImageOptions):
    """Of a set that has a name on the hub."""

    revision: str = ""
    """Another commit of its repository there than the one that is pinned."""

    @property
    def commit(self) -> str:
        """Which of the hub's commits is asked for."""
        return self.revision or self.origin.revision


@dataclass(frozen=True, kw_only=True)
class CIFAR10Options(HubOptions):
    """Of CIFAR-10."""

    task: ClassVar[str] = "cifar10"
    origin: ClassVar[Origin] = Origin(
        repository="uoft-cs/cifar10",
        revision="0b2714987fa478483af9968de7c934580d0bb9a2",
        subset="plain_text",
        image="img",
        classes=10,
    )

    normalise: Scale = "half"


@dataclass(frozen=True, kw_only=True)
class CIFAR100Options(HubOptions):
    """Of CIFAR-100."""

    task: ClassVar[str] = "cifar100"
    origin: ClassVar[Origin] = Origin(
        repository="uoft-cs/cifar100",
        revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5",
        subset="cifar100",
        image="img",
        label="fine_label",
        classes=100,
    )

    normalise: Scale = "half"


@dataclass(frozen=True, kw_only=True)
class ImageNetOptions(HubOptions):
    """Of ImageNet-1k: at 224 pixels out of a shorter side of 256, as it is commonly tested."""

    task: ClassVar[str] = "imagenet-1k"
    origin: ClassVar[Origin] = Origin(
        repository="ILSVRC/imagenet-1k", revision="49e2ee26f3810fb5a7536bbf732a7b07389a47b5", classes=1000
    )

    size: int = 224
    share: float = 0.875
    normalise: Scale = "imagenet"
