"""Scoring: predictions first, then every metric on its own, so that none can lose another's work.

Knows no trainer and no store: a subject, samples and metric Specs are all it takes. Legend: N samples, C classes.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from whitebench import group
from whitebench.errors import MetricError, UnknownNameError, WhitebenchError
from whitebench.evaluation import autocast, predict
from whitebench.gallery import checked
from whitebench.needs import PREDICTION_NEEDS, traced_kinds, unmet_need, untold
from whitebench.pulse import beat
from whitebench.quotation import told
from whitebench.reading import Picture, Reading
from whitebench.result import RAISED, Score
from whitebench.specs import TRUTH
from whitebench.tracing import observe

if TYPE_CHECKING:
    import torchmetrics
    from torch import Tensor

    from whitebench.evaluation import Subject
    from whitebench.specs import MetricContext, MetricSpec, Samples

UNTRAINED = "untrained"
"""The null that the same network is, as it was drawn and before it learnt anything."""
FIRST_LOOK = 8
"""Samples in the first look inside, which shows how much memory a sample's traces take."""
TRACED_BYTES = 2**28
"""How much the traces of one look may take: of a large model at 224 pixels, a sample's are some 40 MB."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, repr=False)
class Scored:
    """What metrics made of one model."""

    scores: list[Score]
    """In the metrics' order."""
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    """By the score's name and the picture's own, `coding-rate/share/profile`."""

    def __getitem__(self, name: str) -> Score:
        """Return the score called `name`.

        Raises:
            UnknownNameError: there is none; says which there are.
        """
        found = next((one for one in self.scores if one.name == name), None)
        if found is None:
            raise UnknownNameError("score", name, [one.name for one in self.scores])
        return found

    def __repr__(self) -> str:
        """Return a line for each score: value, layers and nulls, or why there is no value."""
        width = max((len(one.name) for one in self.scores), default=0)
        return "\n".join(_line(one, width) for one in self.scores)


def _line(one: Score, width: int) -> str:
    if one.value is None:
        return f"{one.name:{width}}  unscored: {one.unscored}"
    layers = [" ".join(f"{layer:.4g}" for layer in one.profile)] if one.profile else []
    nulls = [f"{name} {value:.4g}" for name, value in one.nulls.items()]
    value = f"{one.value:.4g} {one.unit}".strip()
    return "  ".join([f"{one.name:{width}}", f"{value:12}", *(f"({part})" for part in layers + nulls)]).rstrip()


def score(
    subject: Subject,
    samples: Samples[Any],
    logits: Tensor,
    metrics: Sequence[MetricSpec],
    *,
    batch_size: int,
    precision: str = "32",
    untrained: Callable[[], Subject] | None = None,
) -> Scored:
    """Return the scores of `metrics` in their order, given the logits (N, C) of `samples`.

    What needs only predictions is computed from them; the rest in one more pass that looks inside.
    A metric that does not apply, or raises, is unscored with its reason and costs no other its score.
    `untrained` gives the network as it was before it learnt anything: the null of the metrics that ask for it.
    """
    found = _score(subject, samples, logits, metrics, batch_size=batch_size, precision=precision)
    is_scored = {one.metric for one in found.scores if one.value is not None}
    compared = [spec for spec in metrics if spec.untrained and spec.name in is_scored]
    if untrained is None or not compared:
        return found
    try:
        blank = untrained()
        blank_logits = predict(blank, samples.inputs, batch_size=batch_size, precision=precision)
        null = _score(blank, samples, blank_logits, compared, batch_size=batch_size, precision=precision)
    except (Exception, SystemExit):  # a null that cannot be had costs no score
        _log.exception("the untrained network")
        return found
    return _beside(found, null)


def _score(
    subject: Subject,
    samples: Samples[Any],
    logits: Tensor,
    metrics: Sequence[MetricSpec],
    *,
    batch_size: int,
    precision: str,
) -> Scored:
    done: dict[str, Scored] = {}
    for spec in metrics:
        if set(spec.needs) <= PREDICTION_NEEDS:
            try:
                done[spec.name] = _score_predictions(spec, subject.context, logits, samples.labels)
            except (Exception, SystemExit) as error:  # whatever a stranger's metric does
                done[spec.name] = _raised(spec, error)
    inside = [spec for spec in metrics if spec.name not in done]
    done |= _score_inside(subject, samples, logits, inside, batch_size=batch_size, precision=precision)
    return Scored(
        scores=[score for spec in metrics for score in done[spec.name].scores],
        pictures={name: one for spec in metrics for name, one in done[spec.name].pictures.items()},
    )


def _beside(found: Scored, null: Scored) -> Scored:
    """Return `found` with the untrained network's values as nulls, and its series in the same pictures."""
    nulls = {one.name: one for one in null.scores}

    def compare(one: Score) -> Score:
        other = nulls.get(one.name)
        if one.value is None or other is None or other.value is None:
            return one
        profiles = {UNTRAINED: other.profile} if len(other.profile) == len(one.profile) > 0 else {}
        return dataclasses.replace(
            one, nulls={**one.nulls, UNTRAINED: other.value}, null_profiles={**one.null_profiles, **profiles}
        )

    def overlay(name: str, one: Picture) -> Picture:
        other = null.pictures.get(name)
        drawn = {} if other is None else other.series
        # A null of the metric's own, such as random tokens, is the same for both networks.
        changed = [
            label for label in drawn if label not in one.series or not torch.equal(drawn[label], one.series[label])
        ]
        series = {f"{label}, {UNTRAINED}": drawn[label] for label in changed}
        return dataclasses.replace(one, series={**one.series, **series})

    return Scored(
        scores=[compare(one) for one in found.scores],
        pictures={name: overlay(name, one) for name, one in found.pictures.items()},
    )


def score_predictions(spec: MetricSpec, context: MetricContext, logits: Tensor, labels: Tensor) -> list[Score]:
    """Return the scores of one metric that needs nothing but logits (N, C) and labels (N,)."""
    return _score_predictions(spec, context, logits, labels).scores


def _score_predictions(spec: MetricSpec, context: MetricContext, logits: Tensor, labels: Tensor) -> Scored:
    return _scored(spec, filled(spec, context, logits, labels).compute())


def filled(spec: MetricSpec, context: MetricContext, logits: Tensor, labels: Tensor) -> torchmetrics.Metric:
    """Return a metric that has seen all predictions; of several processes each its share, which `compute` merges."""
    given = {"logits": group.share(logits), "labels": group.share(labels)}
    with group.all_or_none():
        metric = spec.build(context)
        metric.update(*[given[need] for need in spec.needs])
    return metric


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
        scores = _scored(spec, metric.compute()).scores
    found = next((one for one in scores if one.name == spec.name), None)
    if found is None or found.value is None:
        why = (
            found.unscored if found else f"it computes {', '.join(one.name for one in scores)}, none called by its name"
        )
        raise MetricError(f"metric {spec.name!r} gives nothing to rank by: {why}")
    return found.value


def score_solution(metrics: Sequence[MetricSpec], task: str, readings: Mapping[str, Reading]) -> Scored:
    """Return the scores of `metrics` in their order, given what a task that solves itself has yielded."""
    done = [_yielded(spec, task, readings) for spec in metrics]
    return Scored(
        scores=[score for one in done for score in one.scores],
        pictures={name: picture for one in done for name, picture in one.pictures.items()},
    )


def _yielded(spec: MetricSpec, task: str, readings: Mapping[str, Reading]) -> Scored:
    parts = {name.partition("/")[2]: one for name, one in readings.items() if name.partition("/")[0] == spec.name}
    if not parts:
        return _missing(spec, f"task {task} solves itself, and yields no {spec.name}")
    try:
        return _scored(spec, parts)
    except (Exception, SystemExit) as error:
        return _raised(spec, error)


@torch.inference_mode()
def _score_inside(
    subject: Subject,
    samples: Samples[Any],
    logits: Tensor,
    metrics: Sequence[MetricSpec],
    *,
    batch_size: int,
    precision: str,
) -> dict[str, Scored]:
    done: dict[str, Scored] = {}
    living: list[tuple[MetricSpec, torchmetrics.Metric]] = []
    for spec in metrics:
        if (reason := unmet_need(spec, subject.spec) or untold(spec, samples)) is not None:
            done[spec.name] = _missing(spec, reason)
            continue
        try:
            living.append((spec, spec.build(subject.context).to(subject.device)))
        except (Exception, SystemExit) as error:
            done[spec.name] = _raised(spec, error)
    subject.module.eval()
    start, most = 0, group.largest_share(batch_size)
    size = min(most, FIRST_LOOK)
    while start < group.share_of(len(samples)) and living:
        kinds = traced_kinds([spec for spec, _ in living], subject.spec)
        rows = group.rows(start, size)
        try:
            given, offered = _look_inside(subject, samples, logits, rows, kinds=kinds, precision=precision)
        except (Exception, SystemExit) as error:
            done |= {spec.name: _raised(spec, error) for spec, _ in living}
            living = []
            break
        for spec, metric in list(living):
            if (reason := unmet_need(spec, subject.spec, offered)) is not None:
                living.remove((spec, metric))
                done[spec.name] = _missing(spec, reason)
                continue
            try:
                metric.update(*[given[need] for need in spec.needs])
            except (Exception, SystemExit) as error:
                living.remove((spec, metric))
                done[spec.name] = _raised(spec, error)
            beat()
        start += size
        size = max(1, min(most, TRACED_BYTES * len(given["index"]) // max(_traced_bytes(given, kinds), 1)))
        del given  # before the next look: two of them would be held at once
    for elsewhere in group.everyone_says(done):  # what one process cannot measure, all have no score of
        done = elsewhere | done
    for spec, metric in [one for one in living if one[0].name not in done]:
        beat()
        try:
            done[spec.name] = _scored(spec, metric.compute())
        except (Exception, SystemExit) as error:
            done[spec.name] = _raised(spec, error)
    return done


def _look_inside(
    subject: Subject, samples: Samples[Any], logits: Tensor, rows: slice, *, kinds: frozenset[str], precision: str
) -> tuple[Mapping[str, Any], frozenset[str]]:
    """Return everything that a metric may need of one batch, by the need's name, and the kinds of trace on offer."""
    inputs = subject.take(group.taken(samples.inputs, rows))
    with autocast(subject.device, precision):
        seen = observe(subject.module, inputs, head=subject.spec.head, trace=subject.spec.trace, kinds=kinds)
    given = {
        "logits": logits[rows].to(subject.device),
        "labels": samples.labels[rows].to(subject.device),
        "inputs": inputs,
        "index": torch.arange(len(samples), device=subject.device)[rows],
        "features": seen.features,
        **{f"{TRUTH}{name}": tensor.to(subject.device) for name, tensor in samples.truth.items()},
        **seen.trace,
    }
    return given, seen.offered


def _traced_bytes(given: Mapping[str, Any], kinds: Collection[str]) -> int:
    return sum(layer.nbytes for kind in kinds for layer in given.get(kind, ()))


def unscored(spec: MetricSpec, error: BaseException) -> Score:
    """Return the score of a metric that raised; the traceback goes to the log."""
    _log.error("metric %s", spec.name, exc_info=error)
    return Score.missing(spec, f"{RAISED}{told(error)}")


def _raised(spec: MetricSpec, error: BaseException) -> Scored:
    return Scored(scores=[unscored(spec, error)])


def _missing(spec: MetricSpec, reason: str) -> Scored:
    return Scored(scores=[Score.missing(spec, reason)])


def _scored(spec: MetricSpec, computed: object) -> Scored:
    parts = {str(part): one for part, one in computed.items()} if isinstance(computed, Mapping) else {"": computed}
    readings = {part: _reading(one) for part, one in parts.items()}
    scores = {part: Score.from_reading(spec, part, reading) for part, reading in readings.items()}
    return Scored(
        scores=list(scores.values()),
        pictures={
            f"{scores[part].name}/{name}": picture
            for part, reading in readings.items()
            for name, picture in checked(reading.pictures).items()
        },
    )


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
    null_profiles = {str(name): [float(value) for value in one] for name, one in reading.null_profiles.items()}
    plain = dataclasses.replace(
        reading,
        value=None if reading.value is None else float(reading.value),
        profile=profile,
        spread=spread if all(map(math.isfinite, spread)) else (),  # a single sample has none
        nulls={name: value for name, value in nulls.items() if math.isfinite(value)},
        null_profiles={name: one for name, one in null_profiles.items() if all(map(math.isfinite, one))},
    )
    for layer, value in enumerate(profile, start=1):
        if not math.isfinite(value):
            return dataclasses.replace(plain, value=None, profile=(), spread=(), unscored=f"layer {layer} is {value}")
    return plain
