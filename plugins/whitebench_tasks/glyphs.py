"""Glyphs: digits and letters drawn from the fonts that matplotlib ships, bent, crowded and noisy.

62 classes, 0-9 A-Z a-z, in images of 24 or 32 pixels a side, light on dark, as many as one likes; sample i is of
class i mod 62, so that classes are even. A pixel is k / 255 with k = 0 .. 255. How an image is drawn stands in
drawing.py. Sample i of a split follows from seed, split and i alone: a larger training set begins with the smaller.

With `faces=split` test images show faces of families that were never trained on: five of Computer Modern, a serif
face, its bold and its italic, a sans and a typewriter face. Train and validation samples show the sixteen faces of
DejaVu Sans, Sans Mono, Serif and STIX General: validation chooses on known faces, and the test asks for more. With
`faces=shared` all 21 are in all splits. Left out are fonts of symbols, and cmmi10, whose 0 is an o.

What cannot be told: I and l of cmss10 are the same bar, 0.6 % of the test samples; upright in DejaVu Sans they differ
by a twentieth of their height, O and Q of Sans Mono by a short tail, and a stroke may hide either. Small letters
that are shaped like their capitals are told by size, as people do: every face has its H equally high, sizes vary by
10 %, and an x is at most three quarters of an H. A convolutional network of 0.37 M parameters, trained for 8 epochs on
50,000 samples of all faces, gets 98.8 % of 4,000 others right: the ceiling lies above that.

All bytes follow from the options, the code and matplotlib's font files, whatever the machine. The manifest is that of
the fonts in matplotlib 3.11; a distribution that has put others in their place is refused.

B batch, H height, W width.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from whitebench import Reference, Samples, Shape, Split, TaskSpec, WhitebenchError
from whitebench_tasks.atlas import Atlas
from whitebench_tasks.cache import cached
from whitebench_tasks.chance import Stream
from whitebench_tasks.drawing import CAP_SHARE, draw
from whitebench_tasks.faces import CHARACTERS, digest
from whitebench_tasks.label_noise import check_label_noise, with_label_noise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_SALT = "whitebench-glyphs-1"
_CHUNK = 500
"""Images drawn at a time: their arrays fit a processor's cache."""

KNOWN_FACES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
UNSEEN_FACES = ("cmr10", "cmb10", "cmti10", "cmss10", "cmtt10")


@dataclass(frozen=True, kw_only=True)
class GlyphsOptions:
    """How many images of which size, and in whose faces."""

    side: int = 24
    """Of an image, in pixels: 24 or 32."""
    train: int = 10_000
    validation: int = 2_000
    test: int = 10_000
    faces: Literal["split", "shared"] = "split"
    """Whether the test split's faces are its own, or all faces are in all splits."""
    label_noise: float = 0.0
    """Share of the training labels that are drawn anew; validation and test stay clean."""
    seed: int = 0
    """Of everything random, label noise too."""

    def __post_init__(self) -> None:
        if self.side not in (24, 32):
            raise WhitebenchError(f"glyphs[side={self.side}]: choose side=24 or side=32")
        if self.faces not in ("split", "shared"):
            raise WhitebenchError(f"glyphs[faces={self.faces}]: choose faces=split or faces=shared")
        for split in ("train", "validation", "test"):
            size = getattr(self, split)
            if size < len(CHARACTERS):
                raise WhitebenchError(
                    f"glyphs[{split}={size}]: a split needs each of the {len(CHARACTERS)} classes;"
                    f" choose {len(CHARACTERS)} or more"
                )
        if self.seed < 0:
            raise WhitebenchError(f"glyphs[seed={self.seed}]: a seed is 0 or more")
        check_label_noise("glyphs", self.label_noise)


def faces_of(options: GlyphsOptions, split: Split) -> tuple[str, ...]:
    """Return the faces that a split is drawn in."""
    if options.faces == "shared":
        return KNOWN_FACES + UNSEEN_FACES
    return UNSEEN_FACES if split == "test" else KNOWN_FACES


def _data(options: GlyphsOptions, split: Split) -> Samples:
    size: int = getattr(options, split)
    images_BHW = images(options.seed, split, size, options.side, faces_of(options, split))
    inputs = torch.from_numpy(images_BHW).float().div_(255).unsqueeze(1)
    samples = Samples(inputs=inputs, labels=torch.from_numpy(_labels(size)))
    if split != "train":
        return samples
    stream = f"{_SALT}:{options.seed}:label noise"
    return with_label_noise(samples, options.label_noise, classes=len(CHARACTERS), stream=stream)


def _labels(size: int) -> NDArray[np.int64]:
    return np.arange(size, dtype=np.int64) % len(CHARACTERS)


@functools.lru_cache(maxsize=3)
def images(seed: int, split: Split, size: int, side: int, chosen: tuple[str, ...]) -> NDArray[np.uint8]:
    """Return a split's images, (size, side, side), from the cache or newly drawn."""
    decided_by = (_SALT, seed, split, size, side, chosen, digest(chosen), _code(), np.__version__)
    name = f"glyphs-{hashlib.sha256(repr(decided_by).encode()).hexdigest()[:32]}"

    def make() -> bytes:
        glyphs, stream = Atlas(chosen, cap=CAP_SHARE * side), Stream(f"{_SALT}:{seed}:{split}")
        parts = np.array_split(_labels(size), range(_CHUNK, size, _CHUNK))
        return b"".join(draw(glyphs, stream, labels, side).tobytes() for labels in parts)

    # A copy, since torch shares the memory and what it is given must be writable.
    return np.frombuffer(bytearray(cached(name, make)), dtype=np.uint8).reshape(size, side, side)


@functools.cache
def _code() -> str:
    """Return the sha256 of the code that decides the bytes."""
    rooms = ("atlas", "chance", "drawing", "faces", "glyphs")
    return hashlib.sha256(b"".join(Path(__file__).with_name(f"{room}.py").read_bytes() for room in rooms)).hexdigest()


_MANIFEST: Mapping[Split, str] = {
    "train": "e97c98850d1509d7ea0d164a610cf7fa5a0e3d29893054c3b9ee3ed3ce8f12cc",
    "validation": "cf2ebc34d3707a9bdc4596b95e38503b44932b6d79dbf63907851f83a8f5d7da",
    "test": "7da02314dcdc3f097859d48f399c836fc2262aadb57da509b76993b27b1fd3aa",
}


def _manifest(options: GlyphsOptions) -> Mapping[Split, str]:
    return {
        split: sha for split, sha in _MANIFEST.items() if _content(options, split) == _content(GlyphsOptions(), split)
    }


def _content(options: GlyphsOptions, split: Split) -> tuple[object, ...]:
    """Return what the options say about a split's bytes."""
    noise = options.label_noise if split == "train" else 0
    return options.seed, options.side, getattr(options, split), faces_of(options, split), noise


def _shape(options: GlyphsOptions) -> Shape:
    return (1, options.side, options.side)


GLYPHS = TaskSpec(
    name="glyphs",
    version=1,
    summary="digits and letters in 62 classes, tested on faces never trained on: ranks models on a CPU",
    shape=_shape,
    classes=len(CHARACTERS),
    data=_data,
    config=GlyphsOptions,
    manifest=_manifest,
    reference=Reference(
        title="DejaVu, STIX and Computer Modern (BaKoMa), as matplotlib ships them",
        url="https://github.com/matplotlib/matplotlib/tree/v3.11.2/lib/matplotlib/mpl-data/fonts/ttf",
    ),
)
