"""What a model makes of samples: its predictions, each exactly once, and what is kept of its inside.

Knows no trainer and no store. Legend: N samples, C classes.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from whitebench import group
from whitebench.feed import Inputs, Scaling, batches, scale, to_numbers
from whitebench.pulse import beat
from whitebench.tracing import observe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from whitebench.specs import MetricContext, MetricSpec, ModelSpec, Samples, Trace

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A built model with what its Spec says of it."""

    module: nn.Module
    spec: ModelSpec
    context: MetricContext
    scaling: Scaling | None = None
    """What a task's images are scaled by before the model sees them."""

    def take(self, batch: Tensor) -> Tensor:
        """Return a batch of samples as the model sees it: on its device, in numbers, scaled."""
        return scale(to_numbers(batch.to(self.device)), self.scaling)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next((weight.device for weight in self.module.parameters()), torch.device("cpu"))


@torch.inference_mode()
def predict(subject: Subject, inputs: Inputs, *, batch_size: int, precision: str = "32") -> Tensor:
    """Return the logits (N, C) of every sample exactly once, float32 on the CPU, in the samples' order.

    Of several processes each predicts its share, and all have the whole.
    """
    subject.module.eval()
    logits = []
    with group.all_or_none(), autocast(subject.device, precision):
        for batch in batches(inputs, batch_size):
            logits.append(subject.module(subject.take(batch)).float().cpu())
            beat()
    return group.whole(torch.cat(logits), len(inputs))


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


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a budget's precision computes."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16-mixed")


@torch.inference_mode()
def trace_sample(
    subject: Subject, samples: Samples[Any], kinds: frozenset[str], *, size: int = 8, precision: str = "32"
) -> dict[str, Tensor]:
    """Return the traces of a fixed sample of at most `size` samples: `KIND/LAYER` and `index`.

    The sample is keyed by the hash of each sample's index: it depends on nothing but how many there are. Traces that
    are weights, which come whole with every batch, are left out: the weights are kept as they are.
    """
    order = sorted(range(len(samples)), key=lambda index: hashlib.sha256(str(index).encode()).digest())
    index = torch.tensor(sorted(order[:size]))
    arrays = {"index": index}
    if kinds:
        subject.module.eval()
        alone, seen = (_traced(subject, samples.inputs[rows], kinds, precision) for rows in (index[:1], index))
        for kind, layers in seen.items():
            if all(len(layer) == 1 for layer in alone[kind]):
                arrays |= {f"{kind}/{layer}": tensor.float().cpu().contiguous() for layer, tensor in enumerate(layers)}
    return arrays


def _traced(subject: Subject, inputs: Tensor, kinds: frozenset[str], precision: str) -> Trace:
    spec, given = subject.spec, subject.take(inputs)
    with autocast(subject.device, precision):
        return observe(subject.module, given, head=spec.head, trace=spec.trace, kinds=kinds).trace
