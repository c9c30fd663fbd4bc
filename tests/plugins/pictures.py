"""Sets of pictures, written by tests: folders, and parquet files as the hub serves them."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = tuple[str, NDArray[np.uint8]]
"""A class, and pixels (H, W) or (H, W, 3)."""

CLASSES = ("bird", "cat", "dog")


def drawn(count: int, *, seed: int, side: int = 6, classes: Iterable[str] = CLASSES) -> list[Picture]:
    """Return so many pictures of each class, noise around a colour of its own."""
    draw = np.random.default_rng(seed)
    return [
        (name, (np.array([[[40 + 60 * place, 200 - 60 * place, 90]]]) + draw.integers(0, 40, (side, side, 3)))
         .astype(np.uint8))
        for _ in range(count) for place, name in enumerate(classes)
    ]  # fmt: skip


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture as a file without loss."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_folder(root: Path, splits: Mapping[str, list[Picture]]) -> Path:
    """Write pictures into a folder for each split (none where it is called "") and class; return the root."""
    for split, pictures in splits.items():
        for number, (name, pixels) in enumerate(pictures):
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:04d}.png").write_bytes(png(pixels))
    return root


def write_parquet(
    root: Path, splits: Mapping[str, list[Picture]], *, image: str = "image", label: str = "label", named: bool = True
) -> Path:
    """Write pictures into a parquet file for each split; labels are the classes' names, or their places in order."""
    import pandas as pd

    root.mkdir(parents=True, exist_ok=True)
    classes = sorted({name for pictures in splits.values() for name, _ in pictures})
    for split, pictures in splits.items():
        rows = [
            {image: {"bytes": png(pixels), "path": None}, label: name if named else classes.index(name)}
            for name, pixels in pictures
        ]
        pd.DataFrame(rows).to_parquet(root / f"{split}-00000-of-00001.parquet")
    return root


def write_labels(root: Path, splits: Mapping[str, Sequence[object]], *, image: str = "image") -> Path:
    """Write a parquet file for each split, with a picture of its own for each label."""
    pictures = {split: [png(pixels) for _, pixels in drawn(len(labels), seed=len(split), classes=["any"])]
                for split, labels in splits.items()}  # fmt: skip
    return write_columns(root, {split: {image: pictures[split], "label": splits[split]} for split in splits})


def write_columns(root: Path, splits: Mapping[str, Mapping[str, Sequence[object]]]) -> Path:
    """Write a parquet file for each split, of any columns."""
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    root.mkdir(parents=True, exist_ok=True)
    for split, columns in splits.items():
        parquet.write_table(arrow.table(dict(columns)), root / f"{split}.parquet")
    return root
