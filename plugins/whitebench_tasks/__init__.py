"""The tasks that come with whitebench, one file each."""

from whitebench import MetricSpec, TaskSpec, hookimpl
from whitebench_tasks.digits import DIGITS
from whitebench_tasks.glyphs import GLYPHS
from whitebench_tasks.images import CIFAR10, CIFAR100, IMAGEFOLDER, IMAGENET, PARQUET
from whitebench_tasks.sparse_codes import SPARSE_CODES
from whitebench_tasks.subspaces import SUBSPACES
from whitebench_tasks.token_selection import TOKEN_SELECTION
from whitebench_tasks.yields import YIELDS


@hookimpl
def register_tasks() -> list[TaskSpec]:
    """Return what there is to learn."""
    images = [CIFAR10, CIFAR100, IMAGENET, IMAGEFOLDER, PARQUET]
    return [DIGITS, GLYPHS, *images, SUBSPACES, TOKEN_SELECTION, SPARSE_CODES]


@hookimpl
def register_metrics() -> list[MetricSpec]:
    """Return what tasks that solve themselves yield."""
    return YIELDS
