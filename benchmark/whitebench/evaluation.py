"""Scoring: predictions first, then every metric on its own, so that none can lose another's work.

Knows no trainer and no store: a model, samples and metric Specs are all it takes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from whitebench.errors import MetricError, WhitebenchError
from whitebench.pulse import beat
from whitebench.quotation import told
from whitebench.result import RAISED, Score
from whitebench.specs import MetricContext, MetricSpec, Reading, Samples
from whitebench.trace import observe, offered_kinds

if TYPE_CHECKING:
    import torchmetrics
    from torch import Tensor, nn

    from whitebench.specs import ModelSpec

PREDICTION_NEEDS = frozenset({"logits", "labels"})
"""What can be scored from stored predictions alone."""
BATCH_NEEDS = PREDICTION_NEEDS | {"features", "inputs"}
"""What is no kind of trace."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A built model with what its Spec says of it."""

    module: nn.Module
    spec: ModelSpec
    context: MetricContext

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next((weight.device for weight in self.module.parameters()), torch.device("cpu"))


@torch.inference_mode()
def predict(subject: Subject, inputs: Tensor, *, batch_size: int, precision: str = "32") -> Tensor:
    """Return the logits (N, C) of every sample exactly once, float32 on the CPU, in the samples' order."""
    subject.module.eval()
    batches = []
    with autocast(subject.device, precision):
        for batch in torch.split(inputs, batch_size):
            batches.append(subject.module(batch.to(subject.device)).float().cpu())
            beat()
    return torch.cat(batches)


def score(
    subject: Subject,
    samples: Samples,
    logits: Tensor,
    metrics: Sequence[MetricSpec],
    *,
    batch_size: int,
    precision: str = "32",
) -> list[Score]:
    """Return the scores of `metrics` in their order, given the logits (N, C) of `samples`.

    What needs only predictions is computed from them; the rest in one more pass that looks inside.
    A metric that does not apply, or raises, is unscored with its reason and costs no other its score.
    """
    scores: dict[str, list[Score]] = {}
    for spec in metrics:
        if set(spec.needs) <= PREDICTION_NEEDS:
            try:
                scores[spec.name] = score_predictions(spec, subject.context, logits, samples.labels)
            except (Exception, SystemExit) as error:  # whatever a stranger's metric does
                scores[spec.name] = _raised(spec, error)
    inside = [spec for spec in metrics if spec.name not in scores]
    scores |= _score_inside(subject, samples, logits, inside, batch_size=batch_size, precision=precision)
    return [score for spec in metrics for score in scores[spec.name]]


def score_predictions(spec: MetricSpec, context: MetricContext, logits: Tensor, labels: Tensor) -> list[Score]:
    """Return the scores of one metric that needs nothing but logits (N, C) and labels (N,)."""
    metric = spec.build(context)
    given = {"logits": logits, "labels": labels}
    metric.update(*[given[need] for need in spec.needs])
    return _scores(spec, metric.compute())


def per_sample(spec: MetricSpec, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the primary metric on each sample as `primary` (N,), or nothing where it is no mean over samples."""
    if spec.per_sample is None:
        return {}
    try:
        values = spec.per_sample(logits, labels)
        return {"primary": values.detach().cpu().double().reshape(len(labels)).contiguous()}
    except (Exception, SystemExit):
        _log.exception("metric %s on each sample", spec.name)
        return {}


@contextmanager
def ranking(spec: MetricSpec) -> Iterator[None]:
    """Turn what the metric that ranks a suite raises into MetricError."""
    try:
        yield
    except MetricError:
        raise
    except (Exception, SystemExit) as error:
        raise MetricError(f"metric {spec.name!r} raised {told(error)}") from error


def headline(spec: MetricSpec, metric: torchmetrics.Metric) -> float:
    """Return the one number that the metric which ranks a suite has computed.

    Raises:
        MetricError: it raised, or gave no finite number under its own name; says what it gave.
    """
    with ranking(spec):
        scores = _scores(spec, metric.compute())
    found = next((one for one in scores if one.name == spec.name), None)
    if found is None or found.value is None:
        why = (
            found.unscored if found else f"it computes {', '.join(one.name for one in scores)}, none called by its name"
        )
        raise MetricError(f"metric {spec.name!r} gives nothing to rank by: {why}")
    return found.value


def unmet_need(spec: MetricSpec, model: ModelSpec, offered: Collection[str] | None = None) -> str | None:
    """Return why `model` cannot give what the metric needs, or None where it can.

    `offered` are the kinds of trace that a look inside found; where nobody has looked, those of its Spec.
    """
    offered = offered_kinds(model.trace) if offered is None else offered
    if offered is None:
        return None
    lacking = [need for need in spec.needs if need not in BATCH_NEEDS and need not in offered]
    if not lacking:
        return None
    kinds = f"it gives {', '.join(sorted(offered))}" if offered else "it gives none"
    return f"model {model.name} gives no trace of {' and '.join(lacking)} ({kinds})"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a budget's precision computes."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16-mixed")


@torch.inference_mode()
def trace_sample(
    subject: Subject, samples: Samples, kinds: frozenset[str], *, size: int = 8, precision: str = "32"
) -> dict[str, Tensor]:
    """Return the traces of a fixed sample of at most `size` samples: `KIND/LAYER` and `index`.

    The sample is keyed by the hash of each sample's index: it depends on nothing but how many there are.
    """
    order = sorted(range(len(samples)), key=lambda index: hashlib.sha256(str(index).encode()).digest())
    index = torch.tensor(sorted(order[:size]))
    arrays = {"index": index}
    if kinds:
        subject.module.eval()
        with autocast(subject.device, precision):
            seen = observe(
                subject.module,
                samples.inputs[index].to(subject.device),
                head=subject.spec.head,
                trace=subject.spec.trace,
                kinds=kinds,
            )
        for kind, layers in seen.trace.items():
            arrays |= {f"{kind}/{layer}": tensor.float().cpu().contiguous() for layer, tensor in enumerate(layers)}
    return arrays


def traced_kinds(metrics: Sequence[MetricSpec], model: ModelSpec) -> frozenset[str]:
    """Return the kinds of trace that those of `metrics` need which apply to `model`."""
    return frozenset(
        need for one in metrics if unmet_need(one, model) is None for need in one.needs if need not in BATCH_NEEDS
    )


@torch.inference_mode()
def _score_inside(
    subject: Subject,
    samples: Samples,
    logits: Tensor,
    metrics: Sequence[MetricSpec],
    *,
    batch_size: int,
    precision: str,
) -> dict[str, list[Score]]:
    scores: dict[str, list[Score]] = {}
    living: list[tuple[MetricSpec, torchmetrics.Metric]] = []
    for spec in metrics:
        if (reason := unmet_need(spec, subject.spec)) is not None:
            scores[spec.name] = [Score.missing(spec, reason)]
            continue
        try:
            living.append((spec, spec.build(subject.context).to(subject.device)))
        except (Exception, SystemExit) as error:
            scores[spec.name] = _raised(spec, error)
    subject.module.eval()
    for start in range(0, len(samples), batch_size):
        if not living:
            break
        kinds = traced_kinds([spec for spec, _ in living], subject.spec)
        try:
            rows = slice(start, start + batch_size)
            given, offered = _look_inside(subject, samples, logits, rows, kinds=kinds, precision=precision)
        except (Exception, SystemExit) as error:
            return scores | {spec.name: _raised(spec, error) for spec, _ in living}
        for spec, metric in list(living):
            if (reason := unmet_need(spec, subject.spec, offered)) is not None:
                living.remove((spec, metric))
                scores[spec.name] = [Score.missing(spec, reason)]
                continue
            try:
                metric.update(*[given[need] for need in spec.needs])
            except (Exception, SystemExit) as error:
                living.remove((spec, metric))
                scores[spec.name] = _raised(spec, error)
            beat()
    for spec, metric in living:
        beat()
        try:
            scores[spec.name] = _scores(spec, metric.compute())
        except (Exception, SystemExit) as error:
            scores[spec.name] = _raised(spec, error)
    return scores


def _look_inside(
    subject: Subject, samples: Samples, logits: Tensor, rows: slice, *, kinds: frozenset[str], precision: str
) -> tuple[Mapping[str, Any], frozenset[str]]:
    """Return everything that a metric may need of one batch, by the need's name, and the kinds of trace on offer."""
    inputs = samples.inputs[rows].to(subject.device)
    with autocast(subject.device, precision):
        seen = observe(subject.module, inputs, head=subject.spec.head, trace=subject.spec.trace, kinds=kinds)
    given = {
        "logits": logits[rows].to(subject.device),
        "labels": samples.labels[rows].to(subject.device),
        "inputs": inputs,
        "features": seen.features,
        **seen.trace,
    }
    return given, seen.offered


def unscored(spec: MetricSpec, error: BaseException) -> Score:
    """Return the score of a metric that raised; the traceback goes to the log."""
    _log.error("metric %s", spec.name, exc_info=error)
    return Score.missing(spec, f"{RAISED}{told(error)}")


def _raised(spec: MetricSpec, error: BaseException) -> list[Score]:
    return [unscored(spec, error)]


def _scores(spec: MetricSpec, computed: object) -> list[Score]:
    if isinstance(computed, Mapping):
        return [Score.from_reading(spec, str(part), _reading(one)) for part, one in computed.items()]
    return [Score.from_reading(spec, "", _reading(computed))]


def _reading(computed: object) -> Reading:
    """Return what a metric computed as a Reading of plain, finite numbers."""
    if isinstance(computed, Reading):
        return _plain(computed)
    if (isinstance(computed, torch.Tensor) and computed.numel() == 1) or isinstance(computed, int | float):
        return Reading(value=float(computed))
    raise WhitebenchError(
        f"compute returned {type(computed).__name__}; it must be a number, a Reading, or a mapping of names to these"
    )


def _plain(reading: Reading) -> Reading:
    profile = [float(value) for value in reading.profile]
    spread = [float(value) for value in reading.spread]
    nulls = {str(name): float(value) for name, value in reading.nulls.items()}
    plain = dataclasses.replace(
        reading,
        value=None if reading.value is None else float(reading.value),
        profile=profile,
        spread=spread if all(map(math.isfinite, spread)) else (),  # a single sample has none
        nulls={name: value for name, value in nulls.items() if math.isfinite(value)},
    )
    for layer, value in enumerate(profile, start=1):
        if not math.isfinite(value):
            return dataclasses.replace(plain, value=None, profile=(), spread=(), unscored=f"layer {layer} is {value}")
    return plain
