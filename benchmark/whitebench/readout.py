"""How classes are read off features: read-outs fitted in one pass over the training split, without a gradient.

Legend: B batch, N samples, D width of the features, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from whitebench import group
from whitebench.errors import MetricError
from whitebench.evaluation import Subject, autocast
from whitebench.feed import Inputs, batches, to_numbers
from whitebench.pulse import beat
from whitebench.quotation import told
from whitebench.specs import ReadoutSpec, Samples
from whitebench.tracing import observe

if TYPE_CHECKING:
    import torchmetrics
    from torch import Tensor

Predictor: TypeAlias = "Callable[[Tensor], Tensor]"
"""From features (B, D) to logits (B, C)."""


RAW = "raw inputs"
"""The null of every read-out: the same one, on the samples as they are."""

WIDEST_RAW = 4096
"""Numbers in a sample above which it is not read out as it is: a read-out's sums are of that size squared."""


@dataclass(frozen=True, kw_only=True)
class Readout:
    """A read-out with its options."""

    spec: ReadoutSpec
    config: Any


class Reader:
    """The read-outs of one fit, fitted to the training split.

    Of one that raises, the error stands in its place: none costs another its predictor.
    """

    def __init__(
        self,
        subject: Subject,
        readouts: Mapping[str, Readout],
        training: Samples[Any],
        *,
        batch_size: int,
        precision: str = "32",
    ) -> None:
        self._subject, self._batch_size, self._precision = subject, batch_size, precision
        self._readouts, self._training = readouts, training
        self._raw: dict[str, Predictor | MetricError] = {}
        self._fitted = self._fit(readouts, self._features(training.inputs)) if readouts else {}

    def predictor(self, name: str) -> Predictor:
        """Return the fitted read-out.

        Raises:
            MetricError: it raised.
        """
        return _sound(self._fitted[name])

    def logits(self, name: str, inputs: Inputs) -> Tensor:
        """Return the logits (N, C) of `inputs` by their features, float32, on the CPU, in their order.

        Raises:
            MetricError: the read-out raised; names it.
        """
        return _read(name, self.predictor(name), self._features(inputs), len(inputs))

    def raw_logits(self, name: str, inputs: Inputs) -> Tensor | None:
        """Return the logits (N, C) by the inputs as they are; None where they are too wide for that.

        Raises:
            MetricError: the read-out raised; names it.
        """
        if math.prod(inputs.shape[1:]) > WIDEST_RAW:
            return None
        if name not in self._raw:
            self._raw |= self._fit({name: self._readouts[name]}, self._flat(self._training.inputs))
        return _read(name, _sound(self._raw[name]), self._flat(inputs), len(inputs))

    def _flat(self, inputs: Inputs) -> Iterator[Tensor]:
        return (to_numbers(batch).flatten(1) for batch in batches(inputs, self._batch_size))

    @torch.inference_mode()
    def _features(self, inputs: Inputs) -> Iterator[Tensor]:
        """Yield the features (B, D) of this process's share of every batch, float32, on the model's device."""
        subject = self._subject
        subject.module.eval()
        for batch in batches(inputs, self._batch_size):
            with autocast(subject.device, self._precision):
                seen = observe(subject.module, subject.take(batch), head=subject.spec.head, trace={}, kinds=())
            yield seen.features.float()
            beat()

    @torch.inference_mode()
    def _fit(self, readouts: Mapping[str, Readout], features: Iterable[Tensor]) -> dict[str, Predictor | MetricError]:
        fitted: dict[str, Predictor | MetricError] = {}
        living: dict[str, torchmetrics.Metric] = {}
        start, own_labels = 0, group.share(self._training.labels)
        with group.all_or_none():
            for batch in features:
                labels = own_labels[start : start + len(batch)].to(batch.device)
                for name in [one for one in readouts if one not in fitted]:
                    with _error_in(fitted, name):
                        living[name] = living.get(name) or self._build(readouts[name], batch)
                        living[name].update(batch, labels)
                start += len(batch)
        for errors in group.everyone_says({name: str(error) for name, error in fitted.items()}):
            fitted |= {name: MetricError(error) for name, error in errors.items() if name not in fitted}
        for name in [one for one in living if one not in fitted]:
            with _error_in(fitted, name):
                fitted[name] = living[name].compute()
        return fitted

    def _build(self, readout: Readout, features: Tensor) -> torchmetrics.Metric:
        classes = self._subject.context.classes
        return readout.spec.build(readout.config, classes, features.shape[1]).to(features.device)


def _sound(fitted: Predictor | MetricError) -> Predictor:
    if isinstance(fitted, MetricError):
        raise fitted
    return fitted


@torch.inference_mode()
def _read(name: str, predictor: Predictor, features: Iterable[Tensor], count: int) -> Tensor:
    try:
        with group.all_or_none():
            logits = torch.cat([predictor(batch).float().cpu() for batch in features])
        return group.whole(logits, count)
    except Exception as error:
        raise _raised(name, error) from error


@contextmanager
def _error_in(fitted: dict[str, Predictor | MetricError], name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a stranger's read-out does
        fitted[name] = _raised(name, error)


def _raised(name: str, error: Exception) -> MetricError:
    raised = MetricError(f"readout {name!r} raised {told(error)}")
    raised.__cause__ = error
    return raised
