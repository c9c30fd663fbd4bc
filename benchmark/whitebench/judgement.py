"""Whether scores computed again are those of the record: how near they must come, and what else must be the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safetensors.numpy import load_file

from whitebench.catalog import Catalog
from whitebench.comparison import Comparison, compare, differences_in_predictions
from whitebench.fit import PREDICTIONS, RECOUNTED, FitPlan, Fitted
from whitebench.needs import PREDICTION_NEEDS
from whitebench.provenance import changes, now
from whitebench.result import Result, Score
from whitebench.verification import Verification

NEAR = 1e-6
"""The relative difference that passes, in the same circumstances, of scores that look inside a model; those of
predictions must be equal then."""
FAR = {"32": 1e-3, "bf16-mixed": 3e-2}
"""The same by precision on another machine, with other threads or versions, where sums are added up in another order;
bfloat16 has eight bits. Scores of predictions may differ by NEAR there."""
COUNTED = ("parameters", "macs")
"""The costs that are the same on every machine."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is to be recorded of a verification, and each score that it rests on."""

    verification: Verification
    comparisons: Sequence[Comparison]


def judge(
    result: Result, outcome: Fitted, plan: FitPlan, catalog: Catalog, *, noise_floor: Mapping[str, float]
) -> Judgement:
    """Compare a stored result with what came out again, in the folder of `plan`.

    A fit repeated in the same circumstances must come out to the last digit and byte, where the first says that it is
    repeatable. In others its scores may differ by `noise_floor`, what one cell differs from itself, or by FAR.
    """
    is_fit, since = plan.purpose != "recount", changes(result.provenance, outcome.provenance)
    is_exact = not since and result.provenance.is_deterministic
    inside, outside = _tolerances(FAR[plan.budget.precision], is_fit=is_fit, is_exact=is_exact, is_same=not since)

    def tolerance_of(score: Score) -> float:
        return outside if _is_of_predictions(score, plan, catalog) else inside

    noise = noise_floor if is_fit and not is_exact else {}
    comparisons = [
        *compare(result.scores, outcome.scores, tolerance_of=tolerance_of, noise_floor=noise),
        *compare(_counted(result.costs), _counted(outcome.costs), tolerance_of=lambda _: 0.0, noise_floor={}),
    ]
    faults = [f"{one.name}: {one}" for one in comparisons if not one.agrees] + _other_data(result, outcome)
    if not is_fit:
        stored, again = load_file(plan.folder / PREDICTIONS), load_file(plan.folder / RECOUNTED)
        faults += differences_in_predictions(stored, again, tolerance=inside)
    elif is_exact:
        faults += _other_bytes(result, outcome)
    source = outcome.provenance
    verification = Verification(
        is_repeated=is_fit,
        when=now(),
        device=source.device,
        threads=source.threads,
        versions={"python": source.python, **source.distributions},
        num_scores=len(comparisons),
        differences=tuple(faults),
        changes=tuple(since),
        tolerance=inside,
    )
    return Judgement(verification=verification, comparisons=comparisons)


def _tolerances(far: float, *, is_fit: bool, is_exact: bool, is_same: bool) -> tuple[float, float]:
    """Return how much scores may differ that look inside a model, and those that are made of predictions."""
    if is_fit:
        return (0.0, 0.0) if is_exact else (far, far)
    return (NEAR, 0.0) if is_same else (far, NEAR)


def _is_of_predictions(score: Score, plan: FitPlan, catalog: Catalog) -> bool:
    """Return whether a score is made of predictions alone; the primary metric by a read-out of the suite is not."""
    is_by_readout = score.name.partition("/")[2] in plan.readouts
    return not is_by_readout and set(catalog.metric(score.metric).spec.needs) <= PREDICTION_NEEDS


def _other_data(result: Result, outcome: Fitted) -> list[str]:
    before = result.provenance.fingerprints
    return [
        f"{split} split: its data are not those that were served"
        for split, sha256 in outcome.provenance.fingerprints.items()
        if before.get(split) != sha256
    ]


def _other_bytes(result: Result, outcome: Fitted) -> list[str]:
    pairs = {
        "predictions": (result.predictions_sha256, outcome.predictions_sha256),
        "weights": (result.weights_sha256, outcome.weights_sha256),
    }
    return [f"{what}: sha256 {then[:12]}… stored, {since[:12]}… again"
            for what, (then, since) in pairs.items() if then != since]  # fmt: skip


def _counted(costs: Sequence[Score]) -> list[Score]:
    return [one for one in costs if one.name in COUNTED]
