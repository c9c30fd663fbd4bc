"""Names with options, `crate[dim=64,depth=4]`: how they are read, and how options become a Spec's config."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from whitebench.errors import OptionError, near_misses


def parse_name(text: str) -> tuple[str, dict[str, str]]:
    """Split `crate[dim=64,depth=4]` into the name and its options.

    Raises:
        OptionError: the text is not of that form, or gives an option twice.
    """
    found = re.fullmatch(r"(?P<name>[^\[\]\s]+)(?:\[(?P<options>[^\[\]]+)\])?", text.strip())
    if not found:
        raise OptionError(f"{text!r} is not a name: write name or name[option=value,option=value]")
    options: dict[str, str] = {}
    for part in found["options"].split(",") if found["options"] else ():
        key, equals, value = (side.strip() for side in part.partition("="))
        if not (equals and key and value):
            raise OptionError(f"{text!r}: {part.strip()!r} is not option=value")
        if key in options:
            raise OptionError(f"{text!r}: option {key!r} is given twice")
        options[key] = value
    return found["name"], options


def configure(owner: str, config: type, options: Mapping[str, object]) -> Any:
    """Return an instance of the dataclass `config` from `options`, texts turned into the fields' types.

    Args:
        owner: whom an error names, `model crate[dim=64]`.
        config: a Spec's config; its fields are bool, int, float, str or Literal.
        options: values by field, as text or as what they are; fields left out keep their defaults.

    Raises:
        OptionError: an option is unknown, does not fit its field, or is refused by the config itself.
    """
    from pydantic import TypeAdapter, ValidationError

    fields = [field.name for field in dataclasses.fields(config) if field.init]
    for key in options:
        if key not in fields:
            known = ", ".join(fields) or "none"
            raise OptionError(f"{owner}: unknown option {key!r}{near_misses(key, fields)} (options: {known})")
    try:
        configured: Any = TypeAdapter(config).validate_python(dict(options))
    except ValidationError as error:
        raise OptionError(f"{owner}: {'; '.join(_fault(fault) for fault in error.errors())}") from error
    except Exception as error:  # a stranger's __post_init__, or an annotation that nobody can resolve
        raise OptionError(f"{owner}: its config raised {type(error).__name__}: {error}") from error
    for key in options:
        if isinstance(value := getattr(configured, key), float) and not math.isfinite(value):
            raise OptionError(f"{owner}: option {key}={options[key]}: must be a finite number")
    return configured


def _fault(fault: Any) -> str:
    option = ".".join(map(str, fault["loc"]))
    if not option:  # raised by the config's __post_init__, for people
        return str(fault["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = str(fault["msg"])
    said = message[0].lower() + message[1:]
    return f"option {option}: missing" if fault["type"] == "missing" else f"option {option}={fault['input']}: {said}"
