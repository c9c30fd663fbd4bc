"""Folder: which pictures of a folder belong to which split, as its folders say.

    train/CLASS/FILE, validation/CLASS/FILE, test/CLASS/FILE     each in the split of its first folder
    CLASS/FILE                                                   all in one split, train

A first folder named so is a split's only if it holds folders of pictures: one that holds pictures itself is a class
like any other. Files' and classes' names mean nothing further. Links are followed, and names that begin with a dot
passed over.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from whitebench import TaskDataError

Stamp: TypeAlias = tuple[int, int]
"""A file's size in bytes and time of change in nanoseconds."""

_SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation", "test": "test"}
"""The splits of first folders, by their names in small letters."""

_ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"}


def walk(root: Path) -> Iterator[tuple[str, Stamp | OSError]]:
    """Yield the files below a folder as seen from it, with their stamps, or with why they have none.

    Raises:
        TaskDataError: a folder cannot be looked into, or a link leads back to a folder that it lies in.
    """
    before = len(str(root).rstrip("/")) + 1
    for path, stamp in _walk(root, ()):
        yield path[before:], stamp


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[str, Stamp | OSError]]:
    try:
        facts = folder.stat()
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda one: one.name)
    except OSError as error:
        raise TaskDataError(f"{folder}: cannot be looked into ({error}): give it back, or take it out") from error
    here = (facts.st_dev, facts.st_ino)
    if here in above:
        raise TaskDataError(f"{folder}: is a link back to a folder that it lies in, without end: take the link out")
    for entry in found:
        try:
            facts = entry.stat()
        except OSError as error:
            yield entry.path, error
            continue
        if stat.S_ISDIR(facts.st_mode):
            yield from _walk(Path(entry.path), (*above, here))
        else:
            yield entry.path, (facts.st_size, facts.st_mtime_ns)


def pictures_by_split(task: str, root: Path, endings: Collection[str]) -> Mapping[str, Mapping[str, Stamp]]:
    """Return the pictures of each split, as seen from the folder and in the order of their paths.

    Args:
        task: its name, for errors.
        root: the folder.
        endings: of the files that are pictures, in small letters.

    Raises:
        TaskDataError: there are none, or one cannot be read or lies where no class is; says which.
    """
    stamps: dict[str, Stamp] = {}
    for name, stamp in walk(root):
        if isinstance(stamp, OSError):
            reason = stamp.strerror or type(stamp).__name__
            raise TaskDataError(f"{task}: {name}: cannot be read ({reason}): put the file back, or take it out")
        stamps[name] = stamp
    pictures = sorted(name for name in stamps if _ending(name) in endings)
    archives = sorted(name for name in stamps if _ending(name) in _ARCHIVES)
    if not pictures:
        packed = f" (archives are not read: unpack {archives[0]})" if archives else ""
        raise TaskDataError(f"{task}: datasets finds no pictures, a folder for each class at {root}{packed}")
    folders = _split_folders(task, pictures)
    _check_archives(task, archives, folders)
    _check_places(task, pictures, folders)
    splits: dict[str, dict[str, Stamp]] = {split: {} for split in ("train", "validation", "test")}
    for name in pictures:
        splits[folders[_parts(name)[0]] if folders else "train"][name] = stamps[name]
    return {split: found for split, found in splits.items() if found}


def _ending(name: str) -> str:
    return f".{name.rpartition('.')[2].lower()}"


def _parts(name: str) -> list[str]:
    return name.split("/")  # a twentieth of what PurePath takes, and ImageNet has a million


def _split_folders(task: str, pictures: Collection[str]) -> Mapping[str, str]:
    """Return the first folders that are splits, and which; none where all pictures are one split."""
    first = {parts[0] for name in pictures if len(parts := _parts(name)) > 2}
    folders = {name: _SPLITS[name.lower()] for name in sorted(first) if name.lower() in _SPLITS}
    folder_of: dict[str, str] = {}
    for name, split in folders.items():
        if split in folder_of:
            raise TaskDataError(f"{task}: {folder_of[split]} and {name} are both its {split} split: keep one of them")
        folder_of[split] = name
    return folders


def _is_within(name: str, folders: Mapping[str, str]) -> bool:
    """Return whether a file lies in the folder of a class, or below it."""
    parts = _parts(name)
    return len(parts) > 2 and parts[0] in folders if folders else len(parts) > 1


def _check_archives(task: str, archives: Collection[str], folders: Mapping[str, str]) -> None:
    for name in archives:
        if _is_within(name, folders):
            raise TaskDataError(f"{task}: {name}: archives are not read: unpack it, or take it out")


def _check_places(task: str, pictures: Collection[str], folders: Mapping[str, str]) -> None:
    depth = 3 if folders else 2
    strays = [name for name in pictures if not _is_within(name, folders) or len(_parts(name)) != depth]
    if not strays:
        return
    layout = f"CLASS/FILE below {' or '.join(folders)}" if folders else (
        "CLASS/FILE, or that below train, validation (val) and test"
    )  # fmt: skip
    count = f"{len(strays):,} pictures lie" if len(strays) > 1 else "1 picture lies"
    raise TaskDataError(
        f"{task}: {strays[0]}: {count} elsewhere than at {layout}: put each into the folder of its class, or take it "
        "out"
    )
