"""Where the tracebacks of mistakes and bugs are kept: one file in the user's own folder, never a screenful."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from whitebench.address import state_folder, without_password
from whitebench.wording import plain

LOG = "whitebench.log"
MOST_BYTES = 1_000_000
"""Of the log; a longer one becomes `whitebench.log.1` and a new one begins."""
MOST_KEPT = 100_000
"""Characters of one traceback: its end tells what happened."""


def keep_traceback(error: BaseException, words: Sequence[str]) -> Path | None:
    """Add an error's traceback, and the command's `words`, to the log; return the file it now stands in.

    A folder that cannot be written must not make a crash of a mistake: then it is a file of its own among the
    temporary ones, and None where there is no room even for that.
    """
    command = plain(" ".join(without_password(str(word)) for word in words), 500)  # before its middle is lost
    entry = f"{datetime.now(UTC).isoformat(timespec='seconds')} {command}\n{_text_of(error)}\n"
    content = without_password(entry).encode("utf-8", errors="backslashreplace")
    try:
        return _append(state_folder() / LOG, content)
    except (OSError, RuntimeError, ValueError):
        return _put_aside(content)


def _text_of(error: BaseException) -> str:
    # Capped, because a line of a stranger's source may be as long as it likes.
    return "".join(traceback.format_exception(error, limit=-100))[-MOST_KEPT:]


def _append(log: Path, content: bytes) -> Path:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > MOST_BYTES:
        log.replace(log.with_name(f"{LOG}.1"))
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o600)
    try:
        os.write(file, content)  # at once, so that two commands' entries do not mix
    finally:
        os.close(file)
    return log


def _put_aside(content: bytes) -> Path | None:
    try:
        with tempfile.NamedTemporaryFile("wb", prefix="whitebench-", suffix=".log", delete=False) as file:
            file.write(content)
    except OSError:
        return None
    return Path(file.name)
