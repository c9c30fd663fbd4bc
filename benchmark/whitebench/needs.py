"""What a metric needs, against what a task and a model can give: why it cannot be measured here, or cannot rank."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from whitebench.specs import SOLUTION, TRUTH
from whitebench.tracing import offered_kinds

if TYPE_CHECKING:
    from whitebench.specs import MetricSpec, ModelSpec, Samples, TaskSpec

PREDICTION_NEEDS = frozenset({"logits", "labels"})
"""What can be scored from stored predictions alone."""
BATCH_NEEDS = PREDICTION_NEEDS | {"features", "inputs", "index"}
"""What is no kind of trace."""


def why_no_rank(spec: MetricSpec, task: TaskSpec) -> str:
    """Return why a metric cannot rank contestants on `task`; empty where it can."""
    if task.solve is not None:
        return "" if SOLUTION in spec.needs else f"task {task.name} solves itself, and has no {' or '.join(spec.needs)}"
    if SOLUTION in spec.needs:
        return f"task {task.name} is learnt, and yields no {SOLUTION}"
    if set(spec.needs) <= PREDICTION_NEEDS:
        return ""
    return f"it needs {', '.join(spec.needs)}, and what chooses among trials may look at logits and labels alone"


def unmet_need(spec: MetricSpec, model: ModelSpec, offered: Collection[str] | None = None) -> str | None:
    """Return why `model` cannot give what the metric needs, or None where it can.

    `offered` are the kinds of trace that a look inside found; where nobody has looked, those of its Spec.
    """
    if SOLUTION in spec.needs:
        return "this task does not solve itself: it is learnt, and yields no solution"
    offered = offered_kinds(model.trace) if offered is None else offered
    if offered is None:
        return None
    lacking = [need for need in spec.needs if _is_traced(need) and need not in offered]
    if not lacking:
        return None
    kinds = f"it gives {', '.join(sorted(offered))}" if offered else "it gives none"
    return f"model {model.name} gives no trace of {' and '.join(lacking)} ({kinds})"


def _is_traced(need: str) -> bool:
    return need not in BATCH_NEEDS and not need.startswith(TRUTH)


def untold(spec: MetricSpec, samples: Samples[Any]) -> str | None:
    """Return why the task's truth is not enough for the metric, or None where it is."""
    names = [need.removeprefix(TRUTH) for need in spec.needs if need.startswith(TRUTH)]
    lacking = [name for name in names if name not in samples.truth]
    return f"this task knows no true {' and '.join(lacking)}" if lacking else None


def traced_kinds(metrics: Sequence[MetricSpec], model: ModelSpec) -> frozenset[str]:
    """Return the kinds of trace that those of `metrics` need which apply to `model`."""
    return frozenset(
        need for one in metrics if unmet_need(one, model) is None for need in one.needs if _is_traced(need)
    )
