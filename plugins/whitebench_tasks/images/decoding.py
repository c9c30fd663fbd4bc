"""Decoding: the bytes of a picture's file become a square of whole numbers, always the same ones.

In this order: the picture is turned as its EXIF data say; 16 bits become 8 (the upper ones); it becomes RGB, or grey by
ITU-R 601; with fit=crop its shorter side is brought to size / share pixels and the middle cut out, with fit=stretch
each side to size. Resizing is Pillow's bilinear filter, whose support grows with the scale. A picture that has its size
already is left as it is, byte for byte. Of several frames the first counts, and transparency is not looked at.

H height, W width, C channels.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from whitebench import TaskDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from whitebench_tasks.images.options import ImageOptions


def decode(content: bytes, name: str, options: ImageOptions) -> NDArray[np.uint8]:
    """Return the picture in the bytes of a file, (C, size, size).

    Raises:
        TaskDataError: it is none, or is damaged; says which file it is.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            square = _square(_plain(ImageOps.exif_transpose(opened), options.channels), options)
    except Exception as error:  # Pillow's plugins raise half a dozen kinds
        reason = re.sub(r" <[^>]*>", "", str(error).partition("\n")[0])  # Pillow says the address of what it was given
        raise TaskDataError(
            f"{name}: cannot be read as a picture ({type(error).__name__}: {reason}): replace the file, or take it out"
        ) from error
    pixels = np.asarray(square)
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _plain(image: Image.Image, channels: int) -> Image.Image:
    """Return a picture of 8 bits in as many channels."""
    if image.mode.startswith("I"):  # 16 bits in one channel; Pillow's own conversion cuts off what is above 255
        upper = np.clip(np.asarray(image).astype(np.int64), 0, 2**16 - 1) >> 8
        image = Image.fromarray(upper.astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of which nobody says where white is")
    return image.convert("RGB" if channels == 3 else "L")


def _square(image: Image.Image, options: ImageOptions) -> Image.Image:
    size = options.size
    if options.fit == "stretch":
        return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)
    shorter, wanted = min(image.size), round(size / options.share)
    if shorter != wanted:
        sides = [max(wanted, wanted * side // shorter) for side in image.size]
        image = image.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
    left, top = ((side - size) // 2 for side in image.size)
    return image.crop((left, top, left + size, top + size))
