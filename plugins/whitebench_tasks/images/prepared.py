"""Prepared: a set of pictures once read, split and counted, kept in the user's cache folder.

Up to `DECODED_BYTES` the pictures are kept decoded, and a split's sha256 is that of the bytes served: pixels, then
labels. Larger sets stay as they are and are decoded whenever they are read; theirs is made of the sha256 of each
picture's file, in order, and of the labels. Neither depends on where the files lie or what they are packed in.

What is kept is found by the options and a stamp of the source: every file's name, size and time of change, or the hub's
repository and commit. So a set that changes is read anew, as is one of whose kept files one is gone or cut short.

N pictures of a split, C channels, S size.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from whitebench import Samples, Split, Stream, TaskDataError, beat
from whitebench_tasks.cache import cache_folder
from whitebench_tasks.images.decoding import decode
from whitebench_tasks.images.folder import walk
from whitebench_tasks.images.source import CHUNK, Part, absence, load
from whitebench_tasks.images.splitting import Rows, count_shared, split_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from whitebench_tasks.images.options import ImageOptions

_RULES = "whitebench-images-2"
"""Raised whenever the same files would give other samples."""

DECODED_BYTES = 4 * 2**30
"""Of all splits together: CIFAR takes a twentieth, ImageNet at 224 pixels fifty times as much."""

SHARED = "test pictures that stand in train or validation too"
"""A fact of the training split: how many there are."""

_FACTS = "facts.json"
_LOCK = ".lock"
_STAMP_SECONDS = 10.0
"""How long a look at the files of a set is believed: a plan asks several times."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A set in its folder in the cache."""

    options: ImageOptions
    folder: Path
    facts: Mapping[str, Any]

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.facts["classes"])

    @property
    def manifest(self) -> dict[Split, str]:
        """The sha256 of each split."""
        return {split: self.facts["sha256"][split] for split in get_args(Split)}

    @property
    def remarks(self) -> list[str]:
        """What is to be said of the set."""
        shared, size = self.facts["shared"], self.facts["sizes"]["test"]
        return [f"{shared} of {size} {SHARED}"] if shared else []

    def samples(self, split: Split) -> Samples[Any]:
        """Return a split: uint8 pixels in a mapped file, or a stream."""
        labels = torch.from_numpy(np.load(self.folder / f"{split}-labels.npy"))
        facts = {SHARED: float(self.facts["shared"])} if split == "train" else {}
        if self.facts["is_decoded"]:
            # Mapped and "c": fits on one machine share the pages, and torch wants to be able to write.
            pixels = torch.from_numpy(np.load(self.folder / f"{split}-pixels.npy", mmap_mode="c"))
            return Samples(inputs=pixels, labels=labels, facts=facts)
        places = np.load(self.folder / f"{split}-rows.npy")
        parts, _ = load(self.options)
        reader = Reader(self.options, parts[self.facts["from"][split]], places)
        stream = Stream(size=len(labels), shape_of_one=shape_of(self.options), read=reader,
                        sha256=self.facts["content"][split])  # fmt: skip
        return Samples(inputs=stream, labels=labels, facts=facts)


@dataclass(frozen=True)
class Reader:
    """Reads pictures of a split by their places in it."""

    options: ImageOptions
    part: Part
    places: NDArray[np.int64]

    def __call__(self, rows: Tensor) -> Tensor:
        """Return pictures (B, C, S, S)."""
        found = self.part.pictures([int(place) for place in self.places[rows.numpy()]])
        return torch.from_numpy(np.stack([decode(content, name, self.options) for content, name in found]))


def shape_of(options: ImageOptions) -> tuple[int, int, int]:
    """Return the shape of one sample."""
    return (options.channels, options.size, options.size)


def find(options: ImageOptions) -> Prepared:
    """Return the set as it was read on this machine.

    Raises:
        TaskDataError: it was not, or not wholly, or has changed since.
    """
    try:
        folder = _folder(options)
        facts = _facts_of(folder)
    except TaskDataError:  # of its folder
        raise
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: there is no home
        lacking = absence(options) or "run reads them"
        raise TaskDataError(
            f"{options.task}: its pictures have not been read on this machine, or have changed since: {lacking}"
        ) from error
    return Prepared(options=options, folder=folder, facts=facts)


def prepare(options: ImageOptions) -> Prepared:
    """Return the set, read now if it has to be.

    Raises:
        TaskDataError: it cannot be had or is damaged; says what to do.
    """
    _look_again()
    with suppress(TaskDataError):
        return find(options)
    folder = _folder(options)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name[:8]}."))
    try:
        _read_into(draft, options)
        _put(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return find(options)


def _facts_of(folder: Path) -> Mapping[str, Any]:
    """Return what is known of a set in its folder, whose files are looked at and not read.

    Raises:
        OSError: a file is not there.
        ValueError: the facts cannot be read, or a file has another size than was written.
    """
    facts: Any = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    files = facts.get("files") if isinstance(facts, dict) else None
    if not isinstance(files, dict):
        raise ValueError(f"{folder / _FACTS} holds no facts")
    for name, size in files.items():
        if (folder / name).stat().st_size != size:
            raise ValueError(f"{folder / name} is not of {size} bytes")
    return dict(facts)


def _put(draft: Path, folder: Path) -> None:
    """Give a folder its place, unless another process was faster with the same; what is damaged there gives way.

    Only one process at a time looks and moves, so that a whole one, which others may read, is never moved away.
    """
    with (folder.parent / _LOCK).open("w") as lock:
        with suppress(OSError):  # a file system without locks: then two that repair the same at once may collide
            fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(OSError, ValueError):
            _facts_of(folder)
            return
        with suppress(FileNotFoundError):
            folder.rename(draft.with_name(f"{draft.name}.damaged"))
        draft.rename(folder)
    shutil.rmtree(draft.with_name(f"{draft.name}.damaged"), ignore_errors=True)


def _folder(options: ImageOptions) -> Path:
    stamp = _stamp_of(options.path, int(time.monotonic() / _STAMP_SECONDS)) if options.path else (
        f"{options.origin.repository}@{options.commit}"
    )  # fmt: skip
    asked = (_RULES, options.task, options.columns, stamp, options.size, options.channels, options.fit, options.share,
             options.seed, DECODED_BYTES)  # fmt: skip
    return cache_folder() / "images" / hashlib.sha256(repr(asked).encode()).hexdigest()[:32]


def _look_again() -> None:
    _stamp_of.cache_clear()


@lru_cache(maxsize=16)
def _stamp_of(path: str, _moment: int) -> str:
    """Return a digest of the names, sizes and times of change of the files in a folder; of where it is, too.

    The place is part of it because pictures that are streamed are read from there.
    """
    root, digest = Path(path).resolve(), hashlib.sha256()
    digest.update(os.fsencode(root))
    for name, stamp in walk(root) if root.is_dir() else ():
        size, changed = (-1, -1) if isinstance(stamp, OSError) else stamp
        digest.update(os.fsencode(f"{name}:{size}:{changed}\n"))
    if root.is_file():
        digest.update(f"{root.stat().st_size}:{root.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def _read_into(folder: Path, options: ImageOptions) -> None:
    parts, classes = load(options)
    shape, total = shape_of(options), sum(len(part.labels) for part in parts.values())
    is_decoded = total * int(np.prod(shape)) <= DECODED_BYTES
    digests: dict[str, list[bytes]] = {}
    for name, part in parts.items():
        digests[name] = _decode_all(folder, part, options) if is_decoded else [
            hashlib.sha256(content).digest() for content, _ in _beating(part)
        ]  # fmt: skip
    labels = {name: part.labels for name, part in parts.items()}
    rows = split_rows(options.task, labels, digests, seed=options.seed)
    facts: dict[str, Any] = {
        "classes": list(classes), "is_decoded": is_decoded, "shared": count_shared(digests, rows),
        "sizes": {split: len(places) for split, (_, places) in rows.items()}, "sha256": {}, "content": {}, "from": {},
    }  # fmt: skip
    for split, (name, places) in rows.items():
        chosen = labels[name][places]
        np.save(folder / f"{split}-labels.npy", chosen)
        if is_decoded:
            fingerprint = _keep_pixels(folder, split, (name, places), shape)
        else:
            np.save(folder / f"{split}-rows.npy", places)
            content = hashlib.sha256(b"".join(digests[name][place] for place in places))
            facts["content"][split], facts["from"][split] = content.hexdigest(), name
            fingerprint = hashlib.sha256(content.digest())
        fingerprint.update(chosen.astype("<i8").tobytes())
        facts["sha256"][split] = fingerprint.hexdigest()
    for name in parts:
        _whole(folder, name).unlink(missing_ok=True)
    facts["files"] = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _beating(part: Part) -> Any:
    for number, found in enumerate(part.all_pictures()):
        if number % CHUNK == 0:
            beat()
        yield found


def _whole(folder: Path, name: str) -> Path:
    return folder / f"whole-{name}.npy"


def _decode_all(folder: Path, part: Part, options: ImageOptions) -> list[bytes]:
    """Decode a split of the set into a file, and return the sha256 of each picture's pixels."""
    size = (len(part.labels), *shape_of(options))
    pixels = np.lib.format.open_memmap(_whole(folder, part.name), mode="w+", dtype=np.uint8, shape=size)
    digests = []
    for row, (content, name) in enumerate(_beating(part)):
        pixels[row] = decode(content, name, options)
        digests.append(hashlib.sha256(pixels[row]).digest())
    return digests


def _keep_pixels(folder: Path, split: Split, rows: Rows, shape: Sequence[int]) -> Any:
    """Write a split's pixels, and return the sha256 that has taken them in."""
    name, places = rows
    whole = np.load(_whole(folder, name), mmap_mode="r")
    kept = np.lib.format.open_memmap(
        folder / f"{split}-pixels.npy", mode="w+", dtype=np.uint8, shape=(len(places), *shape)
    )
    fingerprint = hashlib.sha256()
    for start in range(0, len(places), CHUNK):
        piece = whole[places[start : start + CHUNK]]
        kept[start : start + CHUNK] = piece
        fingerprint.update(piece.tobytes())
    kept.flush()
    return fingerprint
