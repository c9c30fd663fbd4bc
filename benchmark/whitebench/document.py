"""A TOML file from a person's hand: read within limits, and every way of being none said with what to do."""

from __future__ import annotations

import re
import stat
import tomllib
from itertools import islice
from pathlib import Path
from typing import Any

from whitebench.errors import SuiteError, near_misses

MOST_BYTES = 1_000_000
"""Of a file: 10,000 seeds, the longest list there is, take 60,000."""
MOST_PARTS = 32
"""Of a dotted key: the time that reading one takes grows with their square."""

_KINDS = {stat.S_ISDIR: "a folder", stat.S_ISCHR: "a device", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
_DOTTED = re.compile(rf"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}""")

_ADVICE = {
    r";|//": "a comment begins with #",
    r":": "write key = value, not key: value",
    r"(True|False|None|null|yes|no|on|off)\b": "write true or false; what is none is left out",
    r"[A-Za-z]": 'a text stands in quotes, as in name = "tiny"',
    r"$": "something is missing there",
    r"": "mend that place; docs/suites.md shows a whole suite",
}
"""What to do, by what stands where reading stopped."""


def read_document(path: Path) -> dict[str, Any]:
    """Return what the TOML file at `path` holds.

    Raises:
        SuiteError: there is no such file, or it is no TOML; says where and what to do.
    """
    return parse_document(_decoded(path, _bytes_of(path)), str(path))


def parse_document(text: str, source: str) -> dict[str, Any]:
    """Return what a TOML text holds; `source` is whom an error names.

    Raises:
        SuiteError: it is no TOML.
    """
    if not text.strip():
        raise SuiteError(f"{source} is empty: docs/suites.md says what a suite holds")
    if found := _DOTTED.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise SuiteError(f"{source}: line {line}: a key of more than {MOST_PARTS} parts; a suite needs three")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"{source} is not TOML: {error}: {_advice(text, str(error))}") from error
    except RecursionError as error:
        raise SuiteError(f"{source}: nested too deeply to be read: a suite needs three levels") from error
    except ValueError as error:  # Python reads no number of more than 4,300 digits
        raise SuiteError(f"{source}: {_long_number(text)}a number of too many digits: write a shorter one") from error


def parse_value(text: str) -> Any:
    """Return a value as it would stand in a TOML file, or the text itself: on a command line it needs no quotes.

    Raises:
        ValueError: it is a number or a table that is too large; says so.
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError("a number of too many digits") from error


def _bytes_of(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            what = next((name for is_it, name in _KINDS.items() if is_it(mode)), "no file")
            raise SuiteError(f"{path}: cannot be read as a suite: it is {what}; give the path of a .toml file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        near = near_misses(path.name, _neighbours(path))
        raise SuiteError(f"{path}: cannot be read as a suite: there is no such file{near}") from error
    except (OSError, ValueError) as error:
        if isinstance(error, SuiteError):
            raise
        why = getattr(error, "strerror", None) or str(error)
        raise SuiteError(f"{path}: cannot be read as a suite ({why}): give a .toml file that you may read") from error
    if len(content) > MOST_BYTES:
        raise SuiteError(
            f"{path}: cannot be read as a suite: it is longer than {MOST_BYTES // 1000:,} kB; "
            "a suite is a page of text: is this the right file?"
        )
    return content


def _neighbours(path: Path) -> list[str]:
    try:
        return [one.name for one in islice(path.parent.iterdir(), 1_000) if one.suffix == ".toml"]
    except OSError:
        return []


def _decoded(path: Path, content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or content[1:2] == b"\0" or content[:1] == b"\0":
        raise SuiteError(f"{path}: cannot be read as a suite: it is UTF-16 text or no text; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SuiteError(
            f"{path}: cannot be read as a suite: line {line} is not UTF-8 (byte {content[error.start]:#04x}); "
            "save it as UTF-8"
        ) from error


def _advice(text: str, error: str) -> str:
    """Return what to do about a text that is no TOML."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    first = lines[0].strip() if lines else ""
    if first.startswith(("{", "[{")):
        return "this looks like JSON; a suite is written key = value, without braces around it"
    if first.startswith(("---", "- ")) or re.match(r"[\w-]+\s*:(\s|$)", first):
        return "this looks like YAML; write key = value, and [table] above a table's keys"
    if any(word in error for word in ("overwrite", "twice", "Cannot declare")):
        return "each key and each table stands once"
    at = re.search(r"at line (\d+), column (\d+)", error)
    there = text.split("\n")[int(at[1]) - 1][int(at[2]) - 1 :].strip() if at else ""
    return next(advice for pattern, advice in _ADVICE.items() if re.match(pattern, there))


def _long_number(text: str) -> str:
    found = re.search(r"[0-9_]{4000,}", text)
    return f"line {text.count(chr(10), 0, found.start()) + 1}: " if found else ""
