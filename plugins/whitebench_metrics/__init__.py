"""The measures that every contestant is judged by: what it predicts, and what its layers do."""

from whitebench import MetricSpec, hookimpl
from whitebench_metrics import (
    attention_maps,
    classification,
    code_subspaces,
    coding_rate,
    coherence,
    feature_cosines,
    head_subspaces,
    known_subspaces,
    margin,
    principles,
    rate_reduction,
    selection,
    sparsity,
    token_subspaces,
    verdicts,
)


@hookimpl
def register_metrics() -> list[MetricSpec]:
    """Return the metrics of this distribution."""
    return [
        *classification.METRICS,
        *rate_reduction.METRICS,
        *principles.METRICS,
        *feature_cosines.METRICS,
        *known_subspaces.METRICS,
        *token_subspaces.METRICS,
        *head_subspaces.METRICS,
        *code_subspaces.METRICS,
        *coding_rate.METRICS,
        *sparsity.METRICS,
        *verdicts.METRICS,
        *coherence.METRICS,
        *attention_maps.METRICS,
        *selection.METRICS,
        *margin.METRICS,
    ]
