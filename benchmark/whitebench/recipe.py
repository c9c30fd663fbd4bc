"""How training goes: optimiser, schedule, augmentation, and the space that hyperparameters are drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from whitebench.settings import STRICT, need
from whitebench.space import FloatRange, Space

Optimiser: TypeAlias = Literal["adamw", "lion"]
MOST_CROP = 1_000
MOST_MIXUP = 100.0

Schedule: TypeAlias = Literal["cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A hyperparameter of a recipe: its stated value and, where it is tuned, the range it is drawn from."""

    __pydantic_config__ = STRICT

    value: float
    """What `trials = 0` runs."""
    low: float | None = None
    high: float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        need((self.low is None) == (self.high is None), "", "a range needs both low and high")
        need(self.low is not None or not self.log, "log", "needs a range, low and high")
        if self.low is not None and self.high is not None:
            FloatRange(low=self.low, high=self.high, log=self.log)

    @property
    def space(self) -> FloatRange | None:
        """The range, or None where the value is fixed."""
        if self.low is None or self.high is None:
            return None
        return FloatRange(low=self.low, high=self.high, log=self.log)


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """RandAugment (Cubuk, Zoph, Shlens, Le, arXiv 1909.13719)."""

    __pydantic_config__ = STRICT

    operations: int = 2
    """How many, one after the other."""
    magnitude: int = 9
    """How strong each is, of 30."""

    def __post_init__(self) -> None:
        need(1 <= self.operations <= 10, "operations", "must be 1 to 10")
        need(0 < self.magnitude < 30, "magnitude", "must be 1 to 29")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How training goes, the same for every contestant that names it."""

    __pydantic_config__ = STRICT

    optimiser: Optimiser = "adamw"
    learning_rate: Tuned
    """The peak, reached after the warm-up."""
    weight_decay: Tuned = field(default_factory=lambda: Tuned(value=0.0))
    """Decoupled, on weights with two or more dimensions; biases and norms are not decayed."""
    betas: tuple[float, float] = (0.9, 0.99)
    schedule: Schedule = "cosine"
    warmup_epochs: float = 1.0
    """Epochs in which the learning rate rises linearly from zero."""
    label_smoothing: float = 0.0
    """The share of each target spread evenly over all classes."""
    clip_norm: float = 1.0
    """The largest global gradient norm; 0 switches clipping off."""
    augment: bool = True
    """Whether the augmentation that the task permits is used."""
    crop: int = 0
    """Training images are cut out of their padded selves, so many pixels of zeros around: shifts by up to that."""
    resized_crop: float = 0.0
    """A part of a training image is cut out and stretched to full size, its share of the area drawn from here to 1
    (Szegedy et al., arXiv 1409.4842); 0 for none."""
    flip: bool = False
    """Whether half of the training images are mirrored left to right, where the task permits `flip`."""
    randaugment: RandAugment | None = None
    erasing: float = 0.0
    """The probability that a rectangle of a training image is erased (Zhong et al., arXiv 1708.04896)."""
    mixup: float = 0.0
    """Samples and targets are mixed in pairs, by a share ~ Beta(mixup, mixup) (Zhang et al., arXiv 1710.09412)."""

    def __post_init__(self) -> None:
        need(0 <= self.label_smoothing < 1, "label_smoothing", "must be in [0, 1)")
        need(self.clip_norm >= 0, "clip_norm", "must not be negative")
        need(self.warmup_epochs >= 0, "warmup_epochs", "must not be negative")
        need(0 <= self.crop <= MOST_CROP, "crop", f"must be 0 to {MOST_CROP} pixels")
        need(0 <= self.resized_crop < 1, "resized_crop", "must be 0, for none, or a share of the area below 1")
        need(0 <= self.erasing <= 1, "erasing", "must be in [0, 1]")
        need(0 <= self.mixup <= MOST_MIXUP, "mixup", f"must be 0 to {MOST_MIXUP:g}")
        need(all(0 <= beta < 1 for beta in self.betas), "betas", "must be in [0, 1)")
        rate, decay = self.learning_rate, self.weight_decay
        need(rate.value > 0, "learning_rate.value", "must be above zero")
        need(rate.low is None or rate.low > 0, "learning_rate.low", "must be above zero")
        need(decay.value >= 0, "weight_decay.value", "must not be negative")
        need(decay.low is None or decay.low >= 0, "weight_decay.low", "must not be negative")

    @property
    def is_for_images(self) -> bool:
        """Whether it changes training images in ways that only images can be changed."""
        return bool(self.crop or self.resized_crop or self.flip or self.randaugment or self.erasing)

    @property
    def search(self) -> dict[str, Space]:
        """The space of the recipe's own hyperparameters, those that have a range."""
        tuned = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        return {name: one.space for name, one in tuned.items() if one.space is not None}

    @property
    def stated(self) -> dict[str, float]:
        """The values that stand in the suite's file."""
        return {"learning_rate": self.learning_rate.value, "weight_decay": self.weight_decay.value}
