"""Cache: bytes that took seconds to make, kept in the user's cache folder.

A file is the sha256 of its content, then the content. It is written beside its place and moved there, so that
nobody reads half a file, and two that make the same bytes at once do not disturb each other. One that is damaged
is made anew; where the folder cannot be written to, nothing is kept.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_HEAD = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """Return the folder of the user's own for what can be made again (XDG Base Directory 0.8; macOS: Library/Caches).

    A relative path in `XDG_CACHE_HOME` is ignored, as that specification says.
    """
    stated = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if stated.is_absolute():
        return stated / "whitebench"
    return Path.home().joinpath(*(["Library", "Caches"] if sys.platform == "darwin" else [".cache"])) / "whitebench"


def cached(name: str, make: Callable[[], bytes]) -> bytes:
    """Return the bytes kept under a name, or make them and keep them.

    Args:
        name: a file's name; it must say everything that decides the bytes.
        make: makes the bytes.
    """
    try:
        file = cache_folder() / name
        head, content = _split(file.read_bytes())
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        pass
    else:
        if hashlib.sha256(content).digest() == head:
            return content
    content = make()
    with suppress(OSError, RuntimeError):
        _keep(cache_folder() / name, content)
    return content


def _split(kept: bytes) -> tuple[bytes, bytes]:
    return kept[:_HEAD], kept[_HEAD:]


def _keep(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(hashlib.sha256(content).digest())
            stream.write(content)
        Path(draft).replace(file)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
