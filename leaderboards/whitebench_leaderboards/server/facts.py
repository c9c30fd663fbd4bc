"""Where a cell's numbers come from, as terms and what they say, and the command that makes them once more."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from whitebench.catalog import Catalog
from whitebench.errors import WhitebenchError
from whitebench.identity import CellName
from whitebench.names import configured, parse_name
from whitebench.result import Result
from whitebench.specs import ModelSpec
from whitebench.suite import Contestant

AGAIN = "sqlite:///again.db"
"""The store of the suggested repetition: in its own store a finished cell is not run again."""


def facts_of(result: Result) -> list[tuple[str, str]]:
    """Return what a reader needs to judge a result's numbers: choice, test split, code, machine, moment."""
    source = result.provenance
    distributions = ", ".join(f"{name} {version}".strip() for name, version in source.distributions.items())
    code = f"commit {source.commit or 'unknown'}{' with uncommitted changes' if source.is_dirty else ''}"
    machine = [
        source.device,
        f"{source.threads} {'thread' if source.threads == 1 else 'threads'}",
        f"{source.parallel} {'fit' if source.parallel == 1 else 'fits'} at a time",
        f"precision {source.precision}",
        source.platform,
        f"Python {source.python}",
        f"torch {source.torch}",
        f"CUDA {source.cuda or 'none'}",
    ]
    data = ", ".join(f"{split} {digest[:12]}" for split, digest in source.fingerprints.items())
    return [
        *(_solved(result) if result.is_solved else _learnt(result)),
        ("code", code),
        ("versions", distributions),
        ("machine", ", ".join(machine)),
        ("repeatable", "to the last digit" if source.is_deterministic else "not to the last digit, on a GPU"),
        ("when", f"{source.started} to {source.ended}"),
        *([("went on from", f"epoch {source.resumed_from_epoch}")] if source.resumed_from_epoch is not None else []),
        *((f"training split, {what}", f"{number:g}") for what, number in result.facts.items()),
        *([("data, sha256", data)] if data else []),
        ("identity", result.identity),
    ]


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


def _solved(result: Result) -> list[tuple[str, str]]:
    return [("draws", f"{result.test_samples}, block {result.cell.seed}; the task solved itself, nothing was trained")]


def _learnt(result: Result) -> list[tuple[str, str]]:
    chosen = result.chosen
    pairs = ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in chosen.hyperparameters.items()
    )
    where = "stated by the recipe" if chosen.trial is None else f"trial {chosen.trial} of {chosen.trials_allowed}"
    edges = f"; on the edge of its space: {', '.join(chosen.edges)}" if chosen.edges else ""
    validation = "unknown" if result.validation is None else f"{result.validation:.4f}"
    frozen = f"frozen as {chosen.digest[:12]} before the test split was opened"
    return [
        ("hyperparameters", f"{pairs or 'none'} ({where}{edges}; {frozen})"),
        ("reported epoch", f"{result.reported_epoch} of {result.epochs_allowed}, validation {validation}"),
        (
            "test split",
            f"{result.test_samples} samples; opening number {result.test_openings} for this contestant and task "
            "in this store",
        ),
    ]
