"""whitebench: the benchmark suite for transformers whose layers claim to do something one can write down.

This is the plugin author's one import: the Specs, the words they use, and the hook marker.
"""

from whitebench.errors import TaskDataError, WhitebenchError
from whitebench.hookspecs import hookimpl
from whitebench.reading import Picture, Reading
from whitebench.space import Choice, FloatRange, IntRange
from whitebench.specs import (
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
    Split,
    TaskSpec,
    Trace,
)

__version__ = "0.1.0"

__all__ = [
    "Choice",
    "FloatRange",
    "IntRange",
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
    "Split",
    "TaskDataError",
    "TaskSpec",
    "Trace",
    "WhitebenchError",
    "__version__",
    "hookimpl",
]
