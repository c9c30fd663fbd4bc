"""What a fit prints: all of it while it runs, its two ends once it is over."""

from __future__ import annotations

from pathlib import Path

END = 512 * 1024
"""Bytes kept of either end of a long log."""
NOTE = 1024
"""Bytes by which a log may be longer than its two ends: room for the line between them."""


def size(file: Path) -> int:
    """Return how many bytes a log has; 0 where there is none."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def tail(file: Path, length: int, *, since: int = 0) -> str:
    """Return the last `length` bytes that were written after the first `since`, as text."""
    try:
        with file.open("rb") as log:
            log.seek(max(since, size(file) - length))
            return log.read(length).decode(errors="replace")
    except OSError:
        return ""


def shorten(file: Path) -> None:
    """Cut a long log, to which nobody writes any more, to its two ends with a line between; in place."""
    left_out = size(file) - 2 * END
    if left_out <= NOTE:
        return
    with file.open("r+b") as log:
        log.seek(-END, 2)
        last = log.read()
        log.seek(END)
        log.write(f"\n[{left_out:,} bytes left out: of a long log its first and last 512 KiB are kept]\n".encode())
        log.write(last)
        log.truncate()


def ends(text: str, length: int) -> str:
    """Return `text` with its middle left out where it is longer than `length`."""
    if len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters left out]\n{text[-half:]}"
