"""The objectives and read-outs that come with whitebench, one file each."""

from whitebench import ObjectiveSpec, ReadoutSpec, hookimpl
from whitebench_objectives.cross_entropy import CROSS_ENTROPY
from whitebench_objectives.linear_probe import LINEAR_PROBE
from whitebench_objectives.mcr2 import MCR2_SPEC
from whitebench_objectives.nearest_subspace import NEAREST_SUBSPACE


@hookimpl
def register_objectives() -> list[ObjectiveSpec]:
    """Return what training may minimise."""
    return [CROSS_ENTROPY, MCR2_SPEC]


@hookimpl
def register_readouts() -> list[ReadoutSpec]:
    """Return how classes may be read off features."""
    return [LINEAR_PROBE, NEAREST_SUBSPACE]
