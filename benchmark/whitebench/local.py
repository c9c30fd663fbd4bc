"""The launcher that everybody has: each fit in a process group of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whitebench.hookspecs import hookimpl
from whitebench.specs import LauncherSpec, NoOptions

if TYPE_CHECKING:
    from whitebench.launch import Launcher
    from whitebench.launching import LaunchOptions


@hookimpl
def register_launchers() -> list[LauncherSpec]:
    """Return the launcher `local`."""
    summary = "each fit in a process of this machine, with its share of the cores and GPUs"
    return [LauncherSpec(name="local", summary=summary, build=build)]


def build(_: NoOptions, options: LaunchOptions) -> Launcher:
    """Return a launcher whose server loads torch from now on."""
    from whitebench.launch import Launcher

    return Launcher(threads=options.threads, devices=options.devices)
