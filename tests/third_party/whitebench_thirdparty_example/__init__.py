"""What a stranger's package looks like: a model, a metric and a task, found through the entry point alone."""

from whitebench import MetricSpec, ModelSpec, TaskSpec, hookimpl
from whitebench_thirdparty_example.hopfield import HOPFIELD
from whitebench_thirdparty_example.top2 import TOP2_ACCURACY
from whitebench_thirdparty_example.wine import WINE


@hookimpl
def register_models() -> list[ModelSpec]:
    """Return the Hopfield memory."""
    return [HOPFIELD]


@hookimpl
def register_metrics() -> list[MetricSpec]:
    """Return top-2 accuracy."""
    return [TOP2_ACCURACY]


@hookimpl
def register_tasks() -> list[TaskSpec]:
    """Return wine."""
    return [WINE]
