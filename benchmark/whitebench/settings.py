"""How settings are read: tables of a file into frozen dataclasses, every fault said by its path in the file."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from whitebench.errors import SuiteError, WhitebenchError, near_misses
from whitebench.wording import is_plain, plain, shown

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""For `__pydantic_config__`: an unknown key is refused, and so is a text or a boolean where a number belongs."""

MOST_LEVELS = 12
MOST_VALUES = 10_000
"""In one list or table."""
MOST_TEXT = 1_000
"""Characters of a text."""
MOST_NUMBER = 2**63 - 1
MOST_FAULTS = 8
"""Said at once."""

T = TypeVar("T")
Place = tuple[str | int, ...]
"""Where a value stands: keys and, in a list, numbers from 0."""


class SettingError(WhitebenchError):
    """A setting that is of the right type and still makes no sense."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}" if name else message)
        self.name, self.message = name, message


def need(condition: bool, name: str, message: str) -> None:  # noqa: FBT001  # reads as an assertion
    """Refuse the setting `name` (empty where it is not one alone) unless `condition` holds."""
    if not condition:
        raise SettingError(name, message)


def read_settings(kind: type[T], content: Mapping[str, Any], source: str) -> T:
    """Return `content`, as a TOML file gives it, as an instance of the dataclass `kind`.

    Raises:
        SuiteError: names `source`, then each fault with its path, `recipes.plain.learning_rate.low: missing`.
    """
    for place, excess in _excesses(content):
        raise SuiteError(": ".join(filter(None, (source, _path(content, place), excess))))
    # By way of JSON, where pydantic's strictness takes a list for a tuple.
    text = json.dumps(content, default=lambda other: {type(other).__name__: str(other)})
    try:
        read: T = TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        found = error.errors()
        faults = list(dict.fromkeys(_fault(kind, content, fault) for fault in found[:MOST_FAULTS]))
        faults += [f"and {len(found) - MOST_FAULTS:,} more"] if len(found) > MOST_FAULTS else []
        raise SuiteError(f"{source}: {'; '.join(faults)}") from error
    return read


def _excesses(content: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Yield the place of every value that no setting can be, and why: looked at without recursion."""
    waiting: list[tuple[Place, Any]] = [((), content)]
    while waiting:
        place, value = waiting.pop()
        if excess := _excess(value, len(place)):
            yield place, excess
        elif isinstance(value, Mapping):
            for key in value:
                if excess := _bad_key(key):
                    yield place, excess
            waiting += [((*place, key), inner) for key, inner in reversed(list(value.items()))]
        elif isinstance(value, list):
            waiting += [((*place, number), inner) for number, inner in reversed(list(enumerate(value)))]


def _excess(value: object, level: int) -> str:
    if isinstance(value, list | Mapping):
        if level > MOST_LEVELS:
            return f"nested more than {MOST_LEVELS} levels deep: a suite needs three"
        return f"holds {len(value):,} values: {MOST_VALUES:,} at most" if len(value) > MOST_VALUES else ""
    if isinstance(value, str):
        if len(value) > MOST_TEXT:
            return f"a text of {len(value):,} characters ({shown(value, 20)}): {MOST_TEXT:,} at most"
        return "" if is_plain(value) else f"{shown(value)} holds a character that cannot be seen: leave it out"
    is_huge = isinstance(value, int) and abs(value) > MOST_NUMBER
    return "a number too large for anything: write one below 2^63" if is_huge else ""


def _bad_key(key: str) -> str:
    if not key or len(key) > MOST_TEXT or not is_plain(key):
        return f"{shown(key)} is no name for a key: write letters, digits and -"
    return ""


def _fault(kind: type, content: Mapping[str, Any], fault: Any) -> str:
    place = tuple(fault["loc"]) or ("",)
    raised = fault.get("ctx", {}).get("error")
    if fault["type"] == "unexpected_keyword_argument":
        return _unknown(kind, content, place)
    if fault["type"] in ("missing", "missing_argument"):
        return f"{_path(content, place)}: missing"
    if isinstance(raised, SettingError):
        where = _path(content, (*fault["loc"], *([raised.name] if raised.name else [])))
        return f"{where}: {raised.message}" if where else raised.message
    if fault["type"] in ("dataclass_type", "dict_type"):
        return f"{_path(content, place)}: must be a table, as in {{ key = value }}, got {_got(content, fault)}"
    if fault["type"] == "value_error":  # says itself what it got
        return f"{_path(content, place)}: {str(fault['msg']).removeprefix('Value error, ')}"
    message = re.sub(r"^(Input|Tuple|List|Dictionary) should ", "must ", str(fault["msg"]))
    return f"{_path(content, place)}: {message}, got {_got(content, fault)}"


def _unknown(kind: type, content: Mapping[str, Any], place: Place) -> str:
    *inside, last = place
    if (elsewhere := _elsewhere(kind, str(last))) is not None:
        return f"{_path(content, place)}: unknown, did you mean {elsewhere}?"
    fields = dataclasses.fields(_type_at(kind, tuple(inside)))
    known = [one.name for one in fields if one.metadata.get("is_in_file", True)]
    close = near_misses(str(last), known)
    close = re.sub(r"'(\w+)'", lambda found: f"'{_path(content, (*inside, found[1]))}'", close)
    return f"{_path(content, place)}: unknown{close}{'' if close else ' (known: ' + ', '.join(known) + ')'}"


def _got(content: Mapping[str, Any], fault: Any) -> str:
    """Return what stands at a fault's place, a date as the file writes it."""
    value: Any = content
    for part in fault["loc"]:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return shown(fault["input"])
    if isinstance(value, dt.date | dt.time):
        return f"{value.isoformat()}, a date or time"
    return shown(fault["input"])


def _path(content: Mapping[str, Any], place: Place) -> str:
    """Return a place as people find it in the file: `contestants[1] (crate).recipe`, counted from 0."""
    text, inside = "", content
    for part in place:
        shortened = plain(str(part), 60)
        text += f"[{part}]" if isinstance(part, int) else f".{shortened}" if text else shortened
        try:
            inside = inside[part]  # type: ignore[index]  # a list where the part is a number
        except (KeyError, IndexError, TypeError):
            inside = {}
        if isinstance(part, int) and isinstance(inside, Mapping):
            called = next(
                (one for one in map(inside.get, ("label", "model")) if isinstance(one, str) and one.strip()), ""
            )
            text += f" ({plain(called, 60)})" if called else ""
    return text


def _type_at(kind: type, place: Place) -> type:
    """Return the dataclass that the table at `place` is read into."""
    found: Any = kind
    for part in place:
        if dataclasses.is_dataclass(found):
            found = get_type_hints(found)[str(part)]
        else:  # the values of a mapping, or the members of a tuple
            found = next(one for one in get_args(found) if dataclasses.is_dataclass(one))
        if type(None) in get_args(found):  # a table that may be left out
            found = next(filter(dataclasses.is_dataclass, get_args(found)), found)
    assert isinstance(found, type)
    return found


def _elsewhere(kind: type, key: str) -> str | None:
    """Return the path of a key that stands in another table than the one it was looked for in."""
    for table, inner in get_type_hints(kind).items():
        if dataclasses.is_dataclass(inner) and key in (field.name for field in dataclasses.fields(inner)):
            return f"{table}.{key}"
    return None
