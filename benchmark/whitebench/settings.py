"""How settings are read: tables of a file into frozen dataclasses, every fault said by its path in the file."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from whitebench.errors import SuiteError, near_misses

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""For `__pydantic_config__`: an unknown key is refused, and so is a text or a boolean where a number belongs."""

T = TypeVar("T")


class SettingError(ValueError):
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
    # By way of JSON, where pydantic's strictness takes a list for a tuple.
    text = json.dumps(content, default=lambda other: {type(other).__name__: str(other)})
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        faults = dict.fromkeys(_fault(kind, content, fault) for fault in error.errors())
        raise SuiteError(f"{source}: {'; '.join(faults)}") from error


def _fault(kind: type, content: Mapping[str, Any], fault: Any) -> str:
    *_, last = place = tuple(fault["loc"]) or ("",)
    raised = fault.get("ctx", {}).get("error")
    if fault["type"] == "unexpected_keyword_argument":
        inside = place[:-1]
        known = [field.name for field in dataclasses.fields(_type_at(kind, inside))]
        close = near_misses(str(last), known)
        close = re.sub(r"'(\w+)'", lambda found: f"'{_path(content, (*inside, found[1]))}'", close)
        return f"{_path(content, place)}: unknown{close}{'' if close else ' (known: ' + ', '.join(known) + ')'}"
    if fault["type"] in ("missing", "missing_argument"):
        return f"{_path(content, place)}: missing"
    if isinstance(raised, SettingError):
        where = _path(content, (*fault["loc"], *([raised.name] if raised.name else [])))
        return f"{where}: {raised.message}" if where else raised.message
    if fault["type"] in ("dataclass_type", "dict_type"):
        return f"{_path(content, place)}: must be a table, as in {{ key = value }}, got {_shown(fault['input'])}"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    must = f"must be {message}" if message != fault["msg"] and fault["type"] != "value_error" else message
    return f"{_path(content, place)}: {must}, got {_shown(fault['input'])}"


def _path(content: Mapping[str, Any], place: tuple[str | int, ...]) -> str:
    """Return a place as people find it in the file: `contestants[1] (crate).recipe`, counted from 0."""
    text, inside = "", content
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
        try:
            inside = inside[part]  # type: ignore[index]  # a list where the part is a number
        except (KeyError, IndexError, TypeError):
            inside = {}
        if isinstance(part, int) and isinstance(inside, Mapping) and (inside.get("label") or inside.get("model")):
            text += f" ({inside.get('label') or inside.get('model')})"
    return text


def _type_at(kind: type, place: tuple[str | int, ...]) -> type:
    """Return the dataclass that the table at `place` is read into."""
    found: Any = kind
    for part in place:
        if dataclasses.is_dataclass(found):
            found = get_type_hints(found)[str(part)]
        else:  # the values of a mapping, or the members of a tuple
            found = next(one for one in get_args(found) if dataclasses.is_dataclass(one))
    assert isinstance(found, type)
    return found


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
