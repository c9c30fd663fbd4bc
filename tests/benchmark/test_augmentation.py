"""What a recipe does to training images: drawn from torch's generator alone, and only as far as the task permits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from whitebench.augmentation import OPERATIONS, build_augmentation
from whitebench.errors import WhitebenchError
from whitebench.recipe import RandAugment, Recipe, Tuned

SHAPE = (1, 8, 8)


def recipe(**options: Any) -> Recipe:
    return Recipe(learning_rate=Tuned(value=1e-3), **options)


def augmented(images: torch.Tensor, *permits: str, seed: int = 0, **options: Any) -> torch.Tensor:
    augment = build_augmentation(recipe(**options), tuple(images.shape[1:]), permits)
    assert augment is not None
    torch.manual_seed(seed)
    return augment(images)


def test_a_plain_recipe_has_none() -> None:
    assert build_augmentation(recipe(label_smoothing=0.1, mixup=0.2), (4,), ()) is None


def test_a_crop_shifts_each_image_by_up_to_its_padding_and_fills_with_zeros() -> None:
    images = torch.zeros(64, *SHAPE)
    images[:, :, 4, 4] = 1.0
    found = augmented(images, crop=2)
    where = found.flatten(1).argmax(dim=1)
    rows, columns = where // 8, where % 8
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 3, 4, 5, 6}
    torch.testing.assert_close(found.flatten(1).sum(dim=1), torch.ones(64))


def test_a_resized_crop_shows_a_part_of_each_image_at_full_size() -> None:
    """On a ramp from 0 to 1, left to right, a part that is stretched is a ramp that is less steep."""
    ramp = torch.linspace(0, 1, 16).expand(200, 3, 16, 16)
    found = augmented(ramp, resized_crop=0.25)
    assert found.shape == ramp.shape
    spans = found[:, 0, 8].amax(dim=1) - found[:, 0, 8].amin(dim=1)
    assert 0.3 < float(spans.min()) < 0.6
    assert float(spans.max()) <= 1.0 + 1e-6
    assert bool((found[:, 0, 8].diff(dim=1) >= -1e-6).all())


def test_a_flip_mirrors_half_of_the_images_where_the_task_permits_it() -> None:
    images = torch.rand(400, *SHAPE)
    found = augmented(images, "flip", flip=True)
    is_mirrored = (found == images.flip(-1)).flatten(1).all(dim=1)
    is_kept = (found == images).flatten(1).all(dim=1)
    assert bool((is_mirrored ^ is_kept).all())
    assert 150 < int(is_mirrored.sum()) < 250
    assert build_augmentation(recipe(flip=True), SHAPE, ()) is None


def test_erasing_blanks_a_rectangle_of_as_many_images_as_asked_for() -> None:
    images = torch.ones(400, *SHAPE)
    found = augmented(images, erasing=0.25)
    erased = found[(found != 1).flatten(1).any(dim=1)]
    assert 70 < len(erased) < 130
    for image in erased[:10, 0]:
        rows, columns = (image == 0).any(dim=1).nonzero().flatten(), (image == 0).any(dim=0).nonzero().flatten()
        assert int((image == 0).sum()) == len(rows) * len(columns)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_randaugment_keeps_images_images(channels: int) -> None:
    images = torch.rand(16, channels, 12, 12)
    for seed in range(12):
        found = augmented(images, seed=seed, randaugment=RandAugment(operations=2, magnitude=15))
        assert found.shape == images.shape
        assert found.min() >= 0
        assert found.max() <= 1


@pytest.mark.parametrize("operation", [name for name, _, _ in OPERATIONS if name not in ("auto_contrast", "equalize")])
def test_every_operation_grows_with_the_magnitude(operation: str) -> None:
    from kornia.augmentation.auto import RandAugment as KorniaRandAugment

    images = 0.2 + 0.4 * torch.rand(64, 1, 16, 16)
    [policy] = [one for one in OPERATIONS if one[0] == operation]
    changes = []
    for magnitude in (3, 27):
        torch.manual_seed(0)
        changes.append(float((KorniaRandAugment(n=1, m=magnitude, policy=[[policy]])(images) - images).abs().mean()))
    assert changes[0] < changes[1]


def test_what_is_drawn_follows_from_torch_s_seed() -> None:
    images = torch.rand(8, 1, 12, 12)
    everything: dict[str, Any] = {"crop": 1, "flip": True, "randaugment": RandAugment(), "erasing": 0.5}
    one, two = (augmented(images, "flip", **everything) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, augmented(images, "flip", seed=1, **everything))


@pytest.mark.parametrize(("shape", "options"), [((8,), {"erasing": 0.1}), ((1, 8, 8), {"crop": 8})])
def test_samples_that_cannot_be_augmented_so_are_refused(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    with pytest.raises(WhitebenchError, match=r"needs images .* leave these out of the recipe"):
        build_augmentation(recipe(**options), shape, ())
