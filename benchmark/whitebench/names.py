"""Names with options, `crate[dim=64,depth=4]`: how they are read, and how options become a Spec's config."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from whitebench.errors import OptionError, near_misses
from whitebench.quotation import told
from whitebench.specs import PATH, PRESET
from whitebench.wording import is_plain, listed, plain, shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter

LONGEST = 1_000
"""Characters of a name with its options."""


def parse_name(text: str) -> tuple[str, dict[str, str]]:
    """Split `crate[dim=64,depth=4]` into the name and its options.

    Raises:
        OptionError: the text is not of that form, or gives an option twice.
    """
    if len(text) > LONGEST or not is_plain(text):
        raise OptionError(f"{shown(text)} is not a name: up to {LONGEST:,} characters, every one to be seen")
    found = re.fullmatch(r"(?P<name>[^\[\]\s]+)(?:\[(?P<options>[^\[\]]+)\])?", text.strip())
    if not found:
        raise OptionError(f"{shown(text)} is not a name: write name or name[option=value,option=value]")
    options: dict[str, str] = {}
    for part in found["options"].split(",") if found["options"] else ():
        key, equals, value = (side.strip() for side in part.partition("="))
        if not (equals and key and value):
            raise OptionError(f"{shown(text)}: {shown(part.strip())} is not option=value, as in vit[dim=64]")
        if key in options:
            raise OptionError(f"{shown(text)}: option {shown(key)} is given twice: leave one out")
        options[key] = value
    return found["name"], options


def with_preset(
    owner: str, presets: Mapping[str, Mapping[str, object]], options: Mapping[str, object]
) -> Mapping[str, object]:
    """Return `options` with what `preset=NAME` stands for in its place; an option that is given besides wins.

    Raises:
        OptionError: there is no such preset; names `owner`.
    """
    if PRESET not in options or not presets:
        return options
    name = str(options[PRESET])
    if name not in presets:
        near = near_misses(name, presets)
        raise OptionError(f"{owner}: unknown preset {shown(name)}{near} (presets: {listed(presets)})")
    return {**presets[name], **{key: value for key, value in options.items() if key != PRESET}}


def configure(owner: str, config: type, options: Mapping[str, object]) -> Any:
    """Return an instance of the dataclass `config` from `options`, texts turned into the fields' types.

    Args:
        owner: whom an error names, `model crate[dim=64]`.
        config: a Spec's config; its fields are bool, int, float, str or Literal.
        options: values by field, as text or as what they are; fields left out keep their defaults.

    Raises:
        OptionError: an option is unknown, does not fit its field, or is refused by the config itself.
    """
    from pydantic import ValidationError

    fields = {field.name: field.type for field in dataclasses.fields(config) if field.init}
    for key, given in options.items():
        if key not in fields:
            near = near_misses(key, fields)
            raise OptionError(f"{owner}: unknown option {shown(key)}{near} (options: {listed(fields)})")
        if fields[key] in (int, "int") and re.fullmatch(r"[+-]?[0-9_]{20,}", str(given).strip()):
            raise OptionError(f"{owner}: option {key}={plain(str(given), 60)}: must be below 2^63")
    try:
        configured: Any = _adapter(config).validate_python(dict(options))
    except ValidationError as error:
        raise OptionError(f"{owner}: {'; '.join(_fault(fault) for fault in error.errors())}") from error
    except Exception as error:  # a stranger's __post_init__, or an annotation that nobody can resolve
        raise OptionError(f"{owner}: its config raised {told(error)}") from error
    for key, given in options.items():
        value = getattr(configured, key)
        if isinstance(value, float) and not math.isfinite(value):
            raise OptionError(f"{owner}: option {key}={plain(str(given), 60)}: must be a finite number")
    return configured


def configured(kind: str, text: str, config: type, presets: Mapping[str, Mapping[str, object]] | None = None) -> Any:
    """Return the config that the options in `text`, `mcr2[eps2=0.5]`, ask for.

    Raises:
        OptionError: as `parse_name` and `configure`; names the kind and the text.
    """
    who = f"{kind} {plain(text, 100)}"
    return configure(who, config, with_preset(who, presets or {}, parse_name(text)[1]))


def configured_task(text: str, config: type, path: str = "") -> Any:
    """Return the config that a task's options in `text` ask for, its data at `path` where one is given.

    Raises:
        OptionError: as `parse_name` and `configure`; names the task.
    """
    who = f"task {plain(text, 100)}"
    return configure(who, config, {**parse_name(text)[1], **({PATH: path} if path else {})})


def without_path(text: str) -> tuple[str, str]:
    """Split `imagefolder[path=data/pets,size=64]` into what is left of it without its path, and that; empty if none.

    Raises:
        OptionError: as `parse_name`.
    """
    name, options = parse_name(text)
    path = options.pop(PATH, "")
    if not path:
        return text, ""
    kept = ",".join(f"{key}={value}" for key, value in options.items())
    return f"{name}[{kept}]" if kept else name, path


@cache
def _adapter(config: type) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(config)


def _fault(fault: Any) -> str:
    option = ".".join(map(str, fault["loc"]))
    if not option:  # raised by the config's __post_init__, for people
        return str(fault["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = str(fault["msg"])
    words = message[0].lower() + message[1:]
    given = plain(str(fault["input"]), 60)
    return f"option {option}: missing" if fault["type"] == "missing" else f"option {option}={given}: {words}"
