"""What a stranger's code says, fit to stand in a sentence: short, on one line, printable, whatever its methods do."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from whitebench.wording import escaped

LONGEST = 500
"""Characters of one quotation."""

LONGEST_TRACEBACK = 16_000
"""Characters kept of a traceback: its end, where the error stands."""


def quote(value: object) -> str:
    """Return `repr(value)`."""
    if type(value) is str:  # a text of 100 MB is cut before it is escaped
        value = value[: LONGEST + 1]
    return _line(repr, value)


def said(error: BaseException) -> str:
    """Return what an exception says, without its type."""
    return _line(str, error)


def told(error: BaseException) -> str:
    """Return an exception as `Type: what it says`."""
    return f"{type_name(error)}: {said(error)}".removesuffix(": ")


def type_name(value: object) -> str:
    """Return the name of a value's class."""
    return _fit(type.__dict__["__name__"].__get__(type(value)))  # a metaclass may have a `__name__` of its own


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an exception, or its end where it is long."""
    try:
        text = "".join(traceback.format_exception(error))
    except BaseException:
        text = f"Traceback (which cannot be shown):\n{told(error)}"
    return readable(text)


def readable(text: str) -> str:
    """Return the end of a text of many lines, with nothing in it that a terminal would obey."""
    return "\n".join(map(escaped, text[-LONGEST_TRACEBACK:].split("\n")))


def _line(speak: Callable[[Any], str], value: object) -> str:
    try:
        return _fit(speak(value))
    except BaseException as error:  # whatever a stranger's method does
        return f"<{type_name(value)}, whose __{speak.__name__}__ raised {type_name(error)}>"


def _fit(text: str) -> str:
    exact = str.__getitem__(text, slice(2 * LONGEST))  # a subclass of str may do anything when it is used
    line = escaped(" ".join(exact.split()))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
