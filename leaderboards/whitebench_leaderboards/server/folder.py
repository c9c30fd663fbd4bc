"""A folder that a bundle fills: each file written whole at once, and what an earlier one left behind taken away."""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from whitebench.errors import WhitebenchError
from whitebench.wording import plain
from whitebench_leaderboards.server.place import file_of

LIST = "bundle.json"
"""What the folder's bundle holds; by it a folder is known to be one."""
KIND = "whitebench bundle"
PART = ".part"
"""The end of a file's name while it is written."""


class Folder:
    """A folder of files, written anew over those of an earlier bundle; what else is in it stays."""

    def __init__(self, path: Path, *, is_forced: bool = False) -> None:
        """Take a folder that is empty, not there yet, or an earlier bundle; any other only where `is_forced`.

        It is made with the first file.

        Raises:
            WhitebenchError: it is another folder, or none can be made there.
        """
        self.path = path
        self.written: dict[str, str] = {}
        """What each file is of: an address of the server."""
        self.num_bytes = 0
        try:
            self._earlier = _listed(path)
            is_ours = self._earlier is not None or is_forced
            if path.is_dir() and not is_ours and any(path.iterdir()):
                raise WhitebenchError(
                    f"{plain(str(path), 200)} holds files that no bundle left there: give an empty folder, "
                    "or --force to write among them"
                )
            _check_place(path)
        except (OSError, ValueError) as error:
            raise _unwritable(path, error) from error

    def write(self, file: str, content: bytes, address: str) -> None:
        """Write a file, whose path is below the folder, whole or not at all.

        Raises:
            WhitebenchError: it cannot be written.
        """
        assert self.written.get(file, address) == address, f"{file} is {self.written[file]} and {address}"
        try:
            _write(self.path / file, content)
        except OSError as error:
            raise _unwritable(self.path / file, error) from error
        self.written[file] = address
        self.num_bytes += len(content)

    def close(self, told: dict[str, Any], *, is_whole: bool) -> None:
        """Write the list of files with what else is told; once all is there, take away what an earlier bundle left.

        Raises:
            WhitebenchError: it cannot be written.
        """
        earlier = self._earlier or {}
        files = self.written if is_whole else earlier | self.written
        content = {"kind": KIND, **told, "files": dict(sorted(files.items()))}
        try:
            if is_whole:
                self._remove(earlier.keys() - self.written.keys())
            _write(self.path / LIST, json.dumps(content, indent=1).encode())
        except OSError as error:
            raise _unwritable(self.path / LIST, error) from error

    def _remove(self, files: set[str]) -> None:
        """Take away files that the earlier bundle lists, and folders that are empty then."""
        home = self.path.resolve()
        for file in files:
            old = (self.path / file).resolve()
            is_ours = file_of((self._earlier or {})[file]) == file  # whatever a list from a stranger says
            if not is_ours or not old.is_relative_to(home) or not old.is_file():
                continue
            old.unlink()
            with suppress(OSError):  # the first that is not empty
                for parent in old.parents:
                    if parent == home:
                        break
                    parent.rmdir()


def _listed(path: Path) -> dict[str, str] | None:
    """Return the files of the bundle that a folder holds, and what each is of; None where it holds none."""
    try:
        content = json.loads((path / LIST).read_bytes())
        files = content["files"] if content["kind"] == KIND else None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    return {str(file): str(address) for file, address in files.items()} if isinstance(files, dict) else None


def _check_place(path: Path) -> None:
    """Raise OSError where no folder can be made, or written into, and ValueError where none can be called so."""
    with suppress(OSError):
        path.lstat()
    place = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + PART)
    try:
        part.write_bytes(content)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError | ValueError) -> WhitebenchError:
    why = getattr(error, "strerror", None) or str(error)
    return WhitebenchError(f"{plain(str(path), 200)} cannot be written ({why}): give another folder")
