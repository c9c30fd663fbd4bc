import pytest
import torch

from whitebench import WhitebenchError
from whitebench_models.patches import check_sizes, count_patches, cut_patches


def test_patches_come_row_by_row_with_pixels_in_the_order_row_column_channel() -> None:
    images = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    by_hand = [
        [images[b, c, 2 * row + i, 2 * column + j] for i in range(2) for j in range(2) for c in range(3)]
        for b in range(2)
        for row in range(2)
        for column in range(3)
    ]
    assert torch.equal(cut_patches(images, 2), torch.tensor(by_hand).reshape(2, 6, 12))
    assert count_patches("model", (3, 4, 6), 2) == 6


@pytest.mark.parametrize("shape", [(1, 8, 9), (1, 9, 8)])
def test_sides_that_are_no_multiples_of_the_patch_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WhitebenchError, match=r"vit: an image of . x . pixels cannot be cut .* 3 x 3; choose"):
        count_patches("vit", shape, 3)


def test_samples_that_are_no_images_are_refused() -> None:
    with pytest.raises(WhitebenchError, match=r"vit: samples of shape \(13,\) are no images"):
        count_patches("vit", (13,), 1)


def test_a_width_that_does_not_split_over_the_heads_is_refused_with_one_that_does() -> None:
    with pytest.raises(WhitebenchError, match=r"vit\[dim=10,heads=4\].* e\.g\. dim=12"):
        check_sizes("vit", dim=10, heads=4)


def test_sizes_below_one_are_refused_by_name() -> None:
    with pytest.raises(WhitebenchError, match=r"vit\[depth=0\]: depth must be 1 or more"):
        check_sizes("vit", dim=8, heads=4, depth=0)
    with pytest.raises(WhitebenchError, match=r"vit\[heads=0\]"):
        check_sizes("vit", dim=8, heads=0)
