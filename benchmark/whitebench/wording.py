"""How a person is told: one line, nothing in it that a terminal would obey, and no longer than can be read."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import islice

MOST_SAID = 1_600
"""Characters of a message; what is longer loses its middle."""
MOST_SHOWN = 60
"""Characters of one value in a message."""
MOST_LISTED = 40
"""Names in a list of what is known."""


def plain(text: str, most: int = MOST_SAID) -> str:
    """Return `text` in one line of at most `most` characters, with what cannot be printed escaped."""
    if len(text) > 4 * most:  # megabytes are not looked at letter by letter
        text = f"{text[: 2 * most]} … {text[-2 * most :]}"
    line = escaped(" ".join(text.split()))
    if len(line) <= most:
        return line
    tail = most // 3
    return f"{line[: most - tail - 3]} … {line[-tail:]}"


def is_plain(text: str) -> bool:
    """Return whether every character of `text` is one that is seen: no control character, no half of a pair."""
    return all(one.isprintable() or unicodedata.category(one) == "Zs" for one in text)


def count(number: int, noun: str) -> str:
    """Return `1 cell`, `2 cells`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shown(value: object, most: int = MOST_SHOWN) -> str:
    """Return a value as it is written, cut to at most `most` characters."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        value = value[: 2 * most]
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python writes no number of more than 4,300 digits
        return f"a {type(value).__name__} too large to be shown"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def listed(names: Iterable[str], most: int = MOST_LISTED) -> str:
    """Return names with commas between them, `none` where there is none."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return (", ".join(islice(names, most)) or "none") + more


def escaped(text: str) -> str:
    """Return `text` with what cannot be printed escaped."""
    if text.isprintable():  # as most is: looked at letter by letter, the texts of our own plugins take 20 ms
        return text
    return "".join(one if is_plain(one) else one.encode("unicode_escape").decode("ascii") for one in text)
