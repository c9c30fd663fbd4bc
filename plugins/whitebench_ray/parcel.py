"""What travels between the conductor and a node: a plan with its plugin files there, what a fit has left behind back.

No file system is shared: files travel as bytes. Checkpoints stay where they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from whitebench.launching import FitPlan, Message, Outcome


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A plan on its way to a node."""

    plan: FitPlan
    plugins: Mapping[str, bytes]
    """Local plugin files, by their path on the conductor's machine."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a node has to say of its fit."""

    node: str
    """The id of Ray's node."""
    seconds: float = 0.0
    """How long the fit has been at work."""
    said: Message | Outcome | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What the fit has left in its folder, once it has ended."""
    complaint: str = ""
    """Why no fit can run there."""


def pack(plan: FitPlan) -> Parcel:
    """Return a plan with its plugin files."""
    return Parcel(plan=plan, plugins={str(path): path.read_bytes() for path in plan.plugins})


def unpack(parcel: Parcel, folder: Path) -> FitPlan:
    """Write what a parcel holds into `folder`, and return its plan as it is to be carried out there."""
    place_by_path = {path: _place(folder, number, path) for number, path in enumerate(parcel.plugins)}
    for path, place in place_by_path.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(parcel.plugins[path])
    plan = parcel.plan
    owners = plan.owners
    return dataclasses.replace(
        plan,
        plugins=[place_by_path[str(path)] for path in plan.plugins],
        owners=None if owners is None else [str(place_by_path.get(owner, owner)) for owner in owners],
        folder=folder / "fit",
    )


def left_in(folder: Path) -> dict[str, bytes]:
    """Return the files that a fit has left in its folder, by name: no checkpoints, and nothing hidden."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    return {file.name: file.read_bytes() for file in files}


def lay(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what a fit has left into its folder on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / Path(name).name).write_bytes(content)


def _place(folder: Path, number: int, path: str) -> Path:
    return folder / "plugins" / str(number) / Path(path).name
