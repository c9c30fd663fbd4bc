"""Source: a set of pictures as Hugging Face `datasets` loads it, still encoded, with its classes and labels.

`datasets` comes with `pip install 'whitebench[datasets]'` and is imported only when a set is read. Its version is no
part of a cell's identity, since the pictures' bytes are.
"""

from __future__ import annotations

import importlib
import logging
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whitebench import TaskDataError
from whitebench_tasks.images.folder import pictures_by_split
from whitebench_tasks.images.labels import classes_of, is_unlabelled, numbers_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from whitebench_tasks.images.options import ImageOptions

CHUNK = 512
"""Pictures asked for at a time."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split as the set itself has it."""

    table: Any
    """A `datasets.Dataset` with a column `image` of bytes and file names, nothing decoded."""
    name: str
    root: Path | None
    """The folder that file names are said from."""
    labels: NDArray[np.int64]

    def pictures(self, rows: Sequence[int]) -> Iterator[tuple[bytes, str]]:
        """Yield the bytes of each file, and what people call it.

        Raises:
            TaskDataError: a file is gone, or a row has none.
        """
        for row, found in zip(rows, self.table[list(rows)]["image"], strict=True):
            name = f"{self.name} split, row {row}"
            content, path = (found["bytes"], found["path"]) if found else (None, "")
            if path:
                file = Path(path)
                is_below = self.root is not None and file.is_relative_to(self.root)
                name = str(file.relative_to(self.root)) if is_below and self.root else f"{file.name} ({name})"
            if not content and not path:
                raise TaskDataError(f"{name}: holds neither a picture's bytes nor a path: fill the row, or take it out")
            if content is None:
                try:
                    content = Path(path).read_bytes()
                except OSError as error:
                    raise TaskDataError(f"{name}: cannot be read ({error}): put the file back") from error
            yield content, name

    def all_pictures(self) -> Iterator[tuple[bytes, str]]:
        """Yield every picture in its order; raises as `pictures` does."""
        for start in range(0, len(self.labels), CHUNK):
            yield from self.pictures(range(start, min(start + CHUNK, len(self.labels))))


def load(options: ImageOptions) -> tuple[Mapping[str, Part], Sequence[str]]:
    """Return the splits of a set by the names they have in it, and its classes in their order.

    Raises:
        TaskDataError: the set cannot be had, or is not one of labelled pictures; says what to do.
    """
    library = _library(options.task)
    tables = _from_disk(library, options) if options.path else _from_hub(library, options)
    image, label = options.columns
    if options.path and _is_folder(options):
        image, label = "image", "label"
    for name, table in tables.items():
        _check_columns(library, options, name, table, (image, label))
    tables = {name: table for name, table in tables.items() if not is_unlabelled(table, label)}
    classes = classes_of(options, tables, label)
    root = Path(options.path).resolve() if options.path else None
    return {
        name: Part(
            table=_encoded(library, options, name, table, image),
            name=name,
            root=root,
            labels=numbers_of(options, name, table[label], classes),
        )
        for name, table in tables.items()
    }, classes


def _check_columns(library: Any, options: ImageOptions, name: str, table: Any, columns: tuple[str, str]) -> None:
    for column, option in zip(columns, ("image", "label"), strict=True):
        if column not in table.column_names:
            columns_there = ", ".join(table.column_names)
            raise TaskDataError(
                f"{options.task}: its {name} split has no column {column!r} (columns: {columns_there}): "
                f"{_remedy(options, option)}"
            )
    _, label = columns
    if not isinstance(table.features[label], library.Value | library.ClassLabel):
        raise TaskDataError(
            f"{options.task}: the column {label!r} of its {name} split holds {table.features[label]}, and a label is a "
            f"name or a whole number: {_remedy(options, 'label')}"
        )


def _remedy(options: ImageOptions, option: str) -> str:
    return "is this the set?" if options.origin.repository else f"say which by {option}=NAME"


def _encoded(library: Any, options: ImageOptions, name: str, table: Any, image: str) -> Any:
    """Return a table of its pictures alone, as bytes and file names."""
    alone = table.select_columns([image])
    named = alone if image == "image" else alone.rename_column(image, "image")
    try:
        return named.cast_column("image", library.Image(decode=False))
    except Exception as error:  # arrow has several kinds, by what it would have to cast
        raise TaskDataError(
            f"{options.task}: the column {image!r} of its {name} split holds {table.features[image]}, and a picture is "
            f"the bytes of its file: {_remedy(options, 'image')}"
        ) from error


def _library(task: str) -> Any:
    try:
        # By name, so that a machine without it still tells which cells are stale.
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise TaskDataError(
            f"{task}: pictures are read by the library datasets: pip install 'whitebench[datasets]' ({error})"
        ) from error
    return library


def absence(options: ImageOptions) -> str:
    """Return what is to be done so that a set can be read here, as far as a glance tells; empty where it lies here."""
    origin = options.origin
    if options.path:
        path = Path(options.path)
        kind = "parquet files" if options.task == "parquet" else "pictures, a folder for each class"
        what = f"a copy of {origin.repository}" if origin.repository else kind
        return "" if path.exists() else f"there is nothing at {path}: put {what} there, or give another path"
    if not origin.repository:
        return f"where are the pictures? Write {options.task}[path=FOLDER], or a path under [paths]"
    return f"run fetches them from the hub. Without a network here, {_fetching(options)}"


def _fetching(options: ImageOptions) -> str:
    revision = f" --revision {options.commit}" if options.commit else ""
    return (
        f"fetch them where there is one, by `hf download {options.origin.repository} --repo-type dataset{revision} "
        f"--local-dir {options.task}`, bring that folder here, and say where it is: --set paths.{options.task}=FOLDER"
    )


def _is_folder(options: ImageOptions) -> bool:
    """Return whether pictures at the path lie there as files, a folder for each class."""
    path = Path(options.path)
    if options.task == "imagefolder":
        return True
    is_parquet = path.is_file() or next(path.rglob("*.parquet"), None) is not None
    return options.task != "parquet" and not is_parquet


def _from_disk(library: Any, options: ImageOptions) -> Mapping[str, Any]:
    if lacking := absence(options):
        raise TaskDataError(f"{options.task}: {lacking}")
    library.disable_progress_bars()
    path = Path(options.path)
    if _is_folder(options):
        return _loaded(
            library, options, "imagefolder", data_files=_files(options), drop_labels=False, drop_metadata=True
        )
    where: dict[str, Any] = {"data_files": str(path)} if path.is_file() else {"data_dir": str(path)}
    return _loaded(library, options, "parquet", **where)


def _files(options: ImageOptions) -> Mapping[str, Any]:
    """Return the files of each split, as datasets holds those that it found: it neither guesses nor expands names."""
    root = Path(options.path).resolve()
    if not root.is_dir():
        raise TaskDataError(
            f"{options.task}: {options.path} is a file: give a folder of pictures, a folder for each class; archives "
            "are not read"
        )
    listed = importlib.import_module("datasets.data_files").DataFilesList
    endings = importlib.import_module("datasets.packaged_modules.imagefolder.imagefolder").ImageFolder.EXTENSIONS
    files = {}
    for split, stamps in pictures_by_split(options.task, root, frozenset(endings)).items():
        paths = [str(root / name) for name in stamps]
        if chained := next((path for path in paths if "::" in path), ""):
            raise TaskDataError(f"{options.task}: {chained}: datasets reads no path with :: in it: rename what has it")
        files[split] = listed(paths, list(stamps.values()))
    return files


def _loaded(library: Any, options: ImageOptions, kind: str, **where: Any) -> Mapping[str, Any]:
    what = "pictures, a folder for each class" if kind == "imagefolder" else "parquet files"
    try:
        tables: Mapping[str, Any] = library.load_dataset(kind, **where)
    except FileNotFoundError as error:
        raise TaskDataError(
            f"{options.task}: datasets finds no {what} at {options.path} ({type(error).__name__}: {_line(error)})"
        ) from error
    except Exception as error:  # whatever the library and those below it raise
        reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise TaskDataError(
            f"{options.task}: the {what} at {options.path} cannot be read ({type(reason).__name__}: {_line(reason)}): "
            "mend the file that is meant, or take it out"
        ) from error
    return tables


def _from_hub(library: Any, options: ImageOptions) -> Mapping[str, Any]:
    origin = options.origin
    if not origin.repository:
        raise TaskDataError(f"{options.task}: {absence(options)}")
    (library.enable_progress_bars if sys.stderr.isatty() else library.disable_progress_bars)()
    try:
        with _without_retries():
            tables: Mapping[str, Any] = library.load_dataset(
                origin.repository, origin.subset or None, revision=options.commit or None
            )
    except Exception as error:  # whatever the library and those below it raise
        raise TaskDataError(
            f"{options.task}: its data are not on this machine, and cannot be had from the hub "
            f"({type(error).__name__}: {_line(error)}). Without a network here, {_fetching(options)}"
        ) from error
    return tables


@contextmanager
def _without_retries() -> Iterator[None]:
    """Keep the hub's library from telling each of its attempts: how it ended is told once."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:200]
