"""The pictures of a cell on disk: the arrays they are drawn from, and what their axes are, in one safetensors file."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, get_args

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from whitebench.errors import WhitebenchError
from whitebench.quotation import quote
from whitebench.reading import Picture, PictureKind

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

MOST_NUMBERS = 2_000_000
"""In one picture: more than a page can show."""

_DIMENSIONS: Mapping[PictureKind, tuple[int, ...]] = {"lines": (1, 2), "histogram": (1,), "matrix": (2,), "paths": (2,)}


def checked(pictures: Mapping[str, Picture]) -> dict[str, Picture]:
    """Return `pictures` with every array in float32 on the CPU.

    Raises:
        WhitebenchError: one has a name, a kind or an array that no picture has; says which.
    """
    return {name: _checked(name, one) for name, one in pictures.items()}


def save_pictures(pictures: Mapping[str, Picture], file: Path) -> None:
    """Write `pictures` to `file`."""
    arrays: dict[str, Tensor] = {}
    index: dict[str, dict[str, object]] = {}
    for name, one in pictures.items():
        places = {}
        for label, array in one.series.items():
            places[label] = str(len(arrays))
            arrays[places[label]] = array.clone().contiguous()  # safetensors refuses arrays that share storage
        facts = {one_field.name: getattr(one, one_field.name) for one_field in dataclasses.fields(one)}
        index[name] = {**facts, "series": places}
    save_file(arrays, file, metadata={"pictures": json.dumps(index)})


def load_pictures(file: Path) -> dict[str, Picture]:
    """Return the pictures in `file`, in the order in which they were saved.

    Raises:
        WhitebenchError: the file is damaged.
    """
    pictures = {}
    try:
        with safe_open(file, framework="pt") as stored:
            for name, facts in json.loads((stored.metadata() or {})["pictures"]).items():
                series = {label: stored.get_tensor(key) for label, key in facts["series"].items()}
                pictures[name] = Picture(**{**facts, "series": series})
    except Exception as error:
        raise WhitebenchError(f"{file} is damaged, no picture can be read from it: {error}") from error
    return pictures


def _checked(name: str, one: Picture) -> Picture:
    def need(condition: object, message: str) -> None:
        if not condition:
            raise WhitebenchError(f"picture {quote(name)}: {message}")

    need(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name), "a name is up to 64 lower-case letters, digits and -")
    need(isinstance(one, Picture), "it must be a Picture")
    need(one.kind in get_args(PictureKind), f"kind must be one of {get_args(PictureKind)}, got {quote(one.kind)}")
    need(one.series, "it has no series")
    arrays = {}
    for label, given in one.series.items():
        array = torch.as_tensor(given).detach().float().cpu().contiguous()
        # Torchmetrics makes a scalar of whatever holds one number.
        arrays[str(label)] = array if array.ndim else array.reshape((1,) * _DIMENSIONS[one.kind][0])
    for label, array in arrays.items():
        is_fit = array.ndim in _DIMENSIONS[one.kind] and array.numel() > 0
        is_pair = array.shape[-1] == 2 or one.kind in ("histogram", "matrix") or array.ndim == 1
        need(is_fit and is_pair, f"series {quote(label)} of shape {tuple(array.shape)} is none of {one.kind}")
    need(sum(array.numel() for array in arrays.values()) <= MOST_NUMBERS, f"it holds more than {MOST_NUMBERS} numbers")
    return dataclasses.replace(one, series=arrays)
