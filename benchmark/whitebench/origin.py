"""Where a result's numbers come from, as terms and what they say: one text for the terminal and for the pages."""

from __future__ import annotations

from whitebench.provenance import Provenance
from whitebench.result import Result
from whitebench.wording import count


def origin_of(result: Result) -> list[tuple[str, str]]:
    """Return what a reader needs to judge a result's numbers: choice, test split, code, machine, moment."""
    source = result.provenance
    versions = ", ".join(f"{name} {version}".strip() for name, version in source.distributions.items())
    changed = " with uncommitted changes" if source.is_dirty else ""
    data = ", ".join(f"{split} {digest[:12]}" for split, digest in source.fingerprints.items())
    resumed = source.resumed_from_epoch
    return [
        *(_solved(result) if result.is_solved else _learnt(result)),
        ("code", f"commit {source.commit or 'unknown'}{changed}; {versions}"),
        (
            "machine",
            f"{_devices(source)}, {count(source.threads, 'thread')}, {count(source.parallel, 'fit')} at a time, "
            f"precision {source.precision}, {source.platform}, Python {source.python}, torch {source.torch}, "
            f"CUDA {source.cuda or 'none'}",
        ),
        ("repeatable", _repeatable(result)),
        ("when", f"{source.started} to {source.ended}, seed {source.seed}"),
        *([("went on from", f"epoch {resumed}")] if resumed is not None else []),
        *((f"training split, {what}", f"{number:g}") for what, number in result.facts.items()),
        *([("data", data)] if data else []),
        ("identity", result.identity),
    ]


def _devices(source: Provenance) -> str:
    """Return what a fit ran on: `NVIDIA H100, 2 devices, each share of a batch in 4 pieces`."""
    several = f"{source.device}, {source.devices} devices" if source.devices > 1 else source.device
    return several if source.pieces == 1 else f"{several}, each share of a batch in {source.pieces} pieces"


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
    frozen = f"frozen as {chosen.digest[:12]} before the test split was opened"
    validation = "unknown" if result.validation is None else f"{result.validation:.4f}"
    return [
        ("hyperparameters", f"{pairs or 'none'} ({where}{edges}; {frozen})"),
        ("reported epoch", f"{result.reported_epoch} of {result.epochs_allowed}, validation {validation}"),
        (
            "test split",
            f"{result.test_samples} samples; opening number {result.test_openings} for this contestant and task "
            "in this store",
        ),
    ]


def _repeatable(result: Result) -> str:
    if result.provenance.is_deterministic:
        return "the same seed, thread count and machine give the same digits"
    return (
        "not to the last digit: on a GPU some of torch's kernels have no form that adds up in a fixed order "
        "(the fit's log names those that said so)"
    )
