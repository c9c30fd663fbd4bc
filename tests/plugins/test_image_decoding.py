"""A picture's file becomes a square of whole numbers, whatever it was."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.plugins.pictures import png
from whitebench import TaskDataError, WhitebenchError
from whitebench_tasks.images.decoding import decode
from whitebench_tasks.images.options import FolderOptions

RAMP = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


def file_of(image: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def decoded(content: bytes, **options: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return decode(content, "cat/1.png", FolderOptions(**{"size": 8, **options}))


def test_a_picture_of_the_right_size_is_left_as_it_is_channels_first() -> None:
    assert np.array_equal(decoded(png(RAMP)), RAMP.transpose(2, 0, 1))


@pytest.mark.parametrize(("shape", "cut"), [((8, 12), np.s_[:, 2:10]), ((13, 8), np.s_[2:10, :])])
def test_the_middle_of_a_longer_side_is_cut_out(shape: tuple[int, int], cut: Any) -> None:
    wide = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    assert np.array_equal(decoded(png(wide)), wide[cut].transpose(2, 0, 1))


def test_a_share_of_the_shorter_side_is_kept_after_it_was_brought_to_size() -> None:
    """Of 16 x 32 pixels, at share 0.5, the middle 8 x 8 as they are."""
    wide = np.random.default_rng(0).integers(0, 256, (16, 32, 3)).astype(np.uint8)
    assert np.array_equal(decoded(png(wide), share=0.5), wide[4:12, 12:20].transpose(2, 0, 1))


def test_a_cut_keeps_proportions_and_stretching_does_not() -> None:
    """Left half black, right half white, twice as wide as high: the cut's middle is where both meet, at one step."""
    halves = np.zeros((16, 32, 3), dtype=np.uint8)
    halves[:, 16:] = 255
    cut, stretched = decoded(png(halves)), decoded(png(halves), fit="stretch")
    for found in (cut, stretched):
        assert found.shape == (3, 8, 8)
        assert (int(found[0, 0, 0]), int(found[0, 0, -1])) == (0, 255)
    assert np.array_equal(
        stretched[0], np.asarray(Image.fromarray(halves[..., 0]).resize((8, 8), Image.Resampling.BILINEAR))
    )


def test_greys_are_three_equal_channels_and_colours_one_grey_by_itu_r_601() -> None:
    grey = RAMP[..., 0]
    assert np.array_equal(decoded(png(grey)), np.stack([grey] * 3))
    one = decoded(png(RAMP), channels=1)
    assert one.shape == (1, 8, 8)
    assert np.abs(one[0] - RAMP @ np.array([0.299, 0.587, 0.114])).max() <= 1


def test_of_sixteen_bits_the_upper_eight_count() -> None:
    deep = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    assert np.array_equal(decoded(file_of(Image.fromarray(deep)), channels=1)[0], (deep >> 8).astype(np.uint8))


def test_a_picture_is_turned_as_its_camera_was_held() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise to be seen upright
    turned = decoded(file_of(Image.fromarray(RAMP), exif=exif))
    assert np.array_equal(turned, np.rot90(RAMP, -1).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "1", "CMYK"])
def test_other_modes_become_rgb_as_pillow_makes_them(mode: str) -> None:
    image = Image.fromarray(RAMP).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert np.array_equal(decoded(file_of(image, kind)), np.asarray(image.convert("RGB")).transpose(2, 0, 1))


@pytest.mark.parametrize(("content", "why"), [
    (b"", "UnidentifiedImageError: cannot identify image file"),
    (b"no picture at all", "UnidentifiedImageError: cannot identify image file"),
    (png(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))[:5000], "OSError: "),
    (file_of(Image.fromarray(np.ones((8, 8), dtype=np.float32)), "TIFF"), "ValueError: its pixels are floating-point"),
], ids=["empty", "text", "cut off", "floats"])  # fmt: skip
def test_a_damaged_file_is_named_with_what_to_do(content: bytes, why: str) -> None:
    with pytest.raises(
        TaskDataError, match=rf"^cat/1\.png: cannot be read as a picture \({why}.*take it out$"
    ) as caught:
        decoded(content)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize(("options", "message"), [
    ({"size": 0}, "a side is 1 to 1024"),
    ({"channels": 2}, "choose channels=3, or channels=1"),
    ({"fit": "pad"}, "choose fit=crop or fit=stretch"),
    ({"share": 0.0}, "a cut keeps a share above 0"),
    ({"share": 0.5, "fit": "stretch"}, "leave share out"),
    ({"normalise": "mine"}, "choose none, half, imagenet"),
    ({"normalise": "imagenet", "channels": 1}, "of three channels"),
    ({"seed": -1}, "a seed is 0 or more"),
])  # fmt: skip
def test_options_that_make_no_picture_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(WhitebenchError, match=rf"imagefolder\[.*\]: .*{message}"):
        FolderOptions(**options)
