"""How an image becomes a row of patches, and which sizes allow it.

B batch, C channels, N patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whitebench import Shape, WhitebenchError

if TYPE_CHECKING:
    from torch import Tensor


def cut_patches(images_BCHW: Tensor, patch: int) -> Tensor:
    """Cut images into square patches, row by row.

    Returns (B, N, patch * patch * C), a patch's numbers in the order row, column, channel.
    """
    B, C, H, W = images_BCHW.shape
    grid = images_BCHW.reshape(B, C, H // patch, patch, W // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def count_patches(model: str, shape: Shape, patch: int) -> int:
    """Return how many patches a sample of `shape` (channels, height, width) is cut into.

    Raises:
        WhitebenchError: where the sample is no image, or its sides are no multiples of `patch`.
    """
    if len(shape) != 3:
        raise WhitebenchError(
            f"{model}: samples of shape {shape} are no images (channels, height, width);"
            f" choose a task that serves images, or a model that takes other samples"
        )
    _, height, width = shape
    if height % patch or width % patch:
        raise WhitebenchError(
            f"{model}: an image of {height} x {width} pixels cannot be cut into patches of {patch} x {patch};"
            f" choose a patch that divides both sides, e.g. {model}[patch=1]"
        )
    return (height // patch) * (width // patch)


def check_sizes(model: str, *, dim: int, heads: int, **sizes: int) -> None:
    """Refuse sizes below one, and a width that does not split evenly over the heads.

    Raises:
        WhitebenchError: naming the option and what to give instead.
    """
    for option, size in {"dim": dim, "heads": heads, **sizes}.items():
        if size < 1:
            raise WhitebenchError(f"{model}[{option}={size}]: {option} must be 1 or more")
    if dim % heads:
        raise WhitebenchError(
            f"{model}[dim={dim},heads={heads}]: the width does not split evenly over the heads;"
            f" choose a dim that is a multiple of {heads}, e.g. dim={-(-dim // heads) * heads}"
        )
