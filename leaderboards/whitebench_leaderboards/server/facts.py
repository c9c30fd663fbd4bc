"""What a cell is of: its contestant's model, and the command that makes its numbers once more."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from whitebench.catalog import Catalog
from whitebench.errors import WhitebenchError
from whitebench.identity import CellName
from whitebench.names import configured, parse_name
from whitebench.specs import ModelSpec
from whitebench.suite import Contestant

AGAIN = "sqlite:///again.db"
"""The store of the suggested repetition: in its own store a finished cell is not run again."""


def repeat(one: CellName, *, suite: str, overrides: Sequence[str], plugins: Sequence[str]) -> str:
    """Return the command that trains, tunes and measures a cell once more, in a store of its own."""
    options = [*(("--plugin", plugin) for plugin in plugins), *(("--set", override) for override in overrides)]
    return shlex.join(
        [
            *("whitebench", "run", suite, "-m", one.contestant, "-t", one.task, "--seeds", f"{one.seed}-{one.seed}"),
            *(word for option in options for word in option),
            *("--store", AGAIN),
        ]
    )


def model_of(contestant: Contestant, catalog: Catalog) -> tuple[ModelSpec | None, Mapping[str, object]]:
    """Return a contestant's model and all its options; (None, {}) where its plugin is not loaded."""
    name, _ = parse_name(contestant.model)
    try:
        spec = catalog.model(name).spec
        config = configured("model", contestant.model, spec.config, spec.presets)
    except WhitebenchError:
        return None, {}
    return spec, vars(config)
