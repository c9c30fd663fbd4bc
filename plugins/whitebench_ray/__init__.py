"""The launcher `ray`: each fit on a node of a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whitebench import LauncherSpec, Reference, WhitebenchError, hookimpl

if TYPE_CHECKING:
    from whitebench.launching import LaunchOptions
    from whitebench_ray.fleet import Fleet


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where the cluster is, and what a fit takes of it."""

    address: str = ""
    """HOST:PORT of its head, or `auto` for one that runs on this machine; where not given, what RAY_ADDRESS says, or
    else a Ray of one's own on this machine."""
    gpus: float = 1.0
    """Of each device of a fit, where the cluster has any; 0.5 lets two fits of one device share one."""

    def __post_init__(self) -> None:
        if not 0 < self.gpus <= 1:
            raise ValueError(f"gpus={self.gpus:g}: 1, or a part of one, as 0.5; --devices says how many a fit has")


@hookimpl
def register_launchers() -> list[LauncherSpec]:
    """Return the launcher `ray`."""
    return [
        LauncherSpec(
            name="ray",
            summary="each fit on a node of a Ray cluster; one whose node dies is done again elsewhere",
            config=RayOptions,
            build=build,
            reference=Reference(
                title="Moritz et al., Ray: A Distributed Framework for Emerging AI Applications, OSDI 2018",
                url="https://arxiv.org/abs/1712.05889",
            ),
        )
    ]


def build(config: RayOptions, options: LaunchOptions) -> Fleet:
    """Return the launcher, connected to its cluster.

    Raises:
        WhitebenchError: Ray is not installed, no cluster is at the address, or no node of it has room for a fit.
    """
    if config.gpus < 1 and options.devices > 1:
        raise WhitebenchError(
            f"--launcher ray[gpus={config.gpus:g}]: with --devices {options.devices} each takes a whole GPU: "
            "leave out one of the two"
        )
    try:
        from whitebench_ray.fleet import Fleet, connect
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise WhitebenchError("--launcher ray needs Ray: pip install 'whitebench[ray]', on every node too") from error
    is_ours = connect(config.address)
    return Fleet(options, gpus=config.gpus, is_ours=is_ours)
