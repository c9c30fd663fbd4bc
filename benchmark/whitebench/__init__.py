"""whitebench: the benchmark suite for transformers whose layers claim to do something one can write down.

This is the plugin author's one import: the Specs, the words they use, and the hook marker. In a notebook it also looks
into a network of one's own, and loads a board.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whitebench.errors import TaskDataError, WhitebenchError
from whitebench.hookspecs import hookimpl
from whitebench.pulse import beat
from whitebench.reading import Picture, Reading
from whitebench.space import Choice, FloatRange, IntRange
from whitebench.specs import (
    LauncherSpec,
    Layout,
    MetricContext,
    MetricSpec,
    ModelSpec,
    NoOptions,
    ObjectiveSpec,
    ReadoutSpec,
    Reference,
    Samples,
    Shape,
    Solution,
    Split,
    Stream,
    TaskSpec,
    Trace,
    TraceSpec,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from whitebench.frames import Frames
    from whitebench.lens import Data, Plan
    from whitebench.scoring import Scored

__version__ = "0.1.0"

__all__ = [
    "Choice",
    "FloatRange",
    "IntRange",
    "LauncherSpec",
    "Layout",
    "MetricContext",
    "MetricSpec",
    "ModelSpec",
    "NoOptions",
    "ObjectiveSpec",
    "Picture",
    "Reading",
    "ReadoutSpec",
    "Reference",
    "Samples",
    "Shape",
    "Solution",
    "Split",
    "Stream",
    "TaskDataError",
    "TaskSpec",
    "Trace",
    "TraceSpec",
    "WhitebenchError",
    "__version__",
    "beat",
    "hookimpl",
    "load_board",
    "score",
    "trace",
]


def trace(model: nn.Module, batch: Tensor, spec: Plan, kinds: Collection[str] | None = None) -> Trace:
    """Return what a network of one's own lets see of one batch (B, …); see `whitebench.lens.trace_model`."""
    from whitebench.lens import trace_model  # torch, which nobody pays for who only registers

    return trace_model(model, batch, spec, kinds)


def score(
    model: nn.Module,
    data: Data,
    metrics: Sequence[str | MetricSpec],
    spec: Plan,
    *,
    untrained: nn.Module | None = None,
    batch_size: int = 64,
) -> Scored:
    """Return what metrics say of a network of one's own; see `whitebench.lens.score_model`."""
    from whitebench.lens import score_model

    return score_model(model, data, metrics, spec, untrained=untrained, batch_size=batch_size)


def load_board(
    suite: str, *, store: str | None = None, plugins: Sequence[str | Path] = (), overrides: Sequence[str] = ()
) -> Frames:
    """Return a suite's board as pandas frames; see `whitebench.frames.load_frames`."""
    from whitebench.frames import load_frames

    return load_frames(suite, store=store, plugins=plugins, overrides=overrides)
