"""What a recipe does to batches of training images: crops, flips, RandAugment, erasing. The only room with kornia."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from torch import Tensor

from whitebench.errors import WhitebenchError

if TYPE_CHECKING:
    from whitebench.recipe import RandAugment, Recipe
    from whitebench.specs import Shape

Augmentation: TypeAlias = Callable[[Tensor], Tensor]
"""From images (B, channels, height, width) in [0, 1] to others like them, drawn from torch's global generator."""

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
            f"a recipe with crop, flip, randaugment or erasing needs images (channels, height, width) larger than its "
            f"crop of {recipe.crop}, and these samples are {shape}: leave these out of the recipe"
        )
    import kornia.augmentation as K

    steps: list[Any] = []
    if recipe.crop:
        steps.append(K.RandomCrop((shape[1], shape[2]), padding=recipe.crop))
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


def _randaugment(asked: RandAugment) -> Any:
    from kornia.augmentation.auto import RandAugment as KorniaRandAugment

    return KorniaRandAugment(n=asked.operations, m=asked.magnitude, policy=[[one] for one in OPERATIONS])
