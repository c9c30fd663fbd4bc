"""The objectives that come with whitebench, one file each."""

from whitebench import ObjectiveSpec, hookimpl
from whitebench_objectives.cross_entropy import CROSS_ENTROPY


@hookimpl
def register_objectives() -> list[ObjectiveSpec]:
    """Return what training may minimise."""
    return [CROSS_ENTROPY]
