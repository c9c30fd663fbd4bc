"""The tasks that come with whitebench, one file each."""

from whitebench import TaskSpec, hookimpl
from whitebench_tasks.digits import DIGITS
from whitebench_tasks.glyphs import GLYPHS


@hookimpl
def register_tasks() -> list[TaskSpec]:
    """Return what there is to learn."""
    return [DIGITS, GLYPHS]
