"""The doors: what a plugin may implement. Each is called once, on its own, and may return nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from whitebench.events import Event
    from whitebench.specs import LauncherSpec, MetricSpec, ModelSpec, ObjectiveSpec, ReadoutSpec, TaskSpec

hookspec = pluggy.HookspecMarker("whitebench")
hookimpl = pluggy.HookimplMarker("whitebench")


@hookspec
def register_models() -> list[ModelSpec]:
    """Return the models this plugin brings."""
    raise AssertionError("a hook specification is never called")


@hookspec
def register_tasks() -> list[TaskSpec]:
    """Return the tasks this plugin brings."""
    raise AssertionError("a hook specification is never called")


@hookspec
def register_metrics() -> list[MetricSpec]:
    """Return the metrics this plugin brings."""
    raise AssertionError("a hook specification is never called")


@hookspec
def register_objectives() -> list[ObjectiveSpec]:
    """Return the objectives this plugin brings."""
    raise AssertionError("a hook specification is never called")


@hookspec
def register_readouts() -> list[ReadoutSpec]:
    """Return the read-outs this plugin brings."""
    raise AssertionError("a hook specification is never called")


@hookspec
def register_launchers() -> list[LauncherSpec]:
    """Return the launchers this plugin brings."""
    raise AssertionError("a hook specification is never called")


@hookspec
def observe(event: Event) -> None:
    """Be told what happens while a suite runs: see `whitebench.events` for what there is to hear."""
