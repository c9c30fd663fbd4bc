"""What a recipe does to batches of training images: crops, flips, RandAugment, erasing. The only room with kornia.

A crop is one gather for the whole batch. kornia's own cuts out the images one by one, 3 ms of the host's time for 256
of them, where a training step on a GPU takes some 40.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from whitebench.errors import WhitebenchError

if TYPE_CHECKING:
    from whitebench.recipe import RandAugment, Recipe
    from whitebench.specs import Shape

Augmentation: TypeAlias = Callable[[Tensor], Tensor]
"""From images (B, channels, height, width) in [0, 1] to others like them, drawn from torch's global generator."""

RATIOS = (3 / 4, 4 / 3)
"""Of width to height that a resized crop is drawn between, as everywhere."""

OPERATIONS: tuple[tuple[str, float, float], ...] = (
    ("auto_contrast", 0, 1),
    ("equalize", 0, 1),
    ("rotate", -30.0, 30.0),
    ("posterize", 4.0, 8.0),
    ("contrast", 1.0, 1.9),
    ("brightness", 1.0, 1.9),
    ("sharpness", 1.0, 1.9),
    ("shear_x", -0.3, 0.3),
    ("shear_y", -0.3, 0.3),
    ("translate_x", -0.1, 0.1),
    ("translate_y", -0.1, 0.1),
)
"""RandAugment's operations (arXiv 1909.13719) that images of any number of channels can take, with kornia's ranges; the
first two have no magnitude, the others grow with it. Without `identity`, `color` (three channels) and `solarize` (which
in kornia is strongest at a magnitude of 0); contrast, brightness and sharpness begin at 1, no change."""


def build_augmentation(recipe: Recipe, shape: Shape, permits: Collection[str]) -> Augmentation | None:
    """Return what `recipe` asks for on samples of `shape`, as far as the task permits it; None where nothing is.

    The same operations of RandAugment are drawn for a whole batch, their directions for each image.

    Raises:
        WhitebenchError: the samples are no images, or smaller than a crop needs.
    """
    if not recipe.is_for_images:
        return None
    if len(shape) != 3 or min(shape[1:]) <= recipe.crop:
        raise WhitebenchError(
            f"a recipe with crop, resized_crop, flip, randaugment or erasing needs images (channels, height, width) "
            f"larger than its crop of {recipe.crop}, and these samples are {shape}: leave these out of the recipe"
        )
    import kornia.augmentation as K

    steps: list[Any] = []
    if recipe.crop:
        steps.append(partial(_crop, padding=recipe.crop))
    if recipe.resized_crop:
        part = (recipe.resized_crop, 1.0)
        steps.append(K.RandomResizedCrop(shape[1:], scale=part, ratio=RATIOS, cropping_mode="resample"))
    if recipe.flip and "flip" in permits:
        steps.append(K.RandomHorizontalFlip(p=0.5))
    if recipe.randaugment is not None:
        steps.append(_randaugment(recipe.randaugment))
    if recipe.erasing:
        steps.append(K.RandomErasing(p=recipe.erasing))

    def augment(images: Tensor) -> Tensor:
        for step in steps:
            images = cast("Tensor", step(images))
        return images

    return augment if steps else None


def _crop(images: Tensor, *, padding: int) -> Tensor:
    """Cut each image out of itself with so many zeros around; every place is equally likely."""
    count, _, height, width = images.shape
    device = images.device
    down, right = torch.randint(2 * padding + 1, (2, count)).to(device)  # drawn on the CPU, so that a GPU sees the same
    rows = (down[:, None] + torch.arange(height, device=device))[:, :, None]
    columns = (right[:, None] + torch.arange(width, device=device))[:, None, :]
    padded = F.pad(images, [padding] * 4).permute(0, 2, 3, 1)
    cut = padded[torch.arange(count, device=device)[:, None, None], rows, columns]
    return cut.permute(0, 3, 1, 2).contiguous()


def _randaugment(asked: RandAugment) -> Any:
    from kornia.augmentation.auto import RandAugment as KorniaRandAugment

    return KorniaRandAugment(n=asked.operations, m=asked.magnitude, policy=[[one] for one in OPERATIONS])
