"""The GPUs of this machine, and which of them a fit gets where several run at a time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

PATIENCE = 20.0
"""Seconds that nvidia-smi may take: on a machine with eight GPUs it takes some two."""


def visible_gpus() -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES could name here, without any use of CUDA, which bears no fork afterwards.

    What is in that variable where somebody has set it; else the UUIDs that nvidia-smi lists, of which CUDA, unlike of
    numbers, has no order of its own.
    """
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return _named_in(said)
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=PATIENCE, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return _listed_in(done.stdout)


def least_used(gpus: Sequence[str], taken: Sequence[Sequence[str]], count: int = 1) -> tuple[str, ...]:
    """Return the `count` GPUs that the fewest fits use, the first listed among equals.

    Args:
        gpus: all there are.
        taken: for each fit under way, those it uses.
        count: how many are wanted; all of them where there are no more.
    """
    uses = {gpu: sum(gpu in one for one in taken) for gpu in gpus}
    return tuple(sorted(gpus, key=lambda gpu: uses[gpu])[:count])


def _named_in(variable: str) -> list[str]:
    """Return the GPUs in CUDA_VISIBLE_DEVICES: those before the first that is none, as CUDA reads it."""
    found: list[str] = []
    for name in (part.strip() for part in variable.split(",")):
        if not re.fullmatch(r"\d+|(GPU|MIG)-\S+", name):
            break
        found.append(name)
    return found


def _listed_in(listing: str) -> list[str]:
    """Return the UUIDs in what `nvidia-smi -L` prints; of a GPU that is split (MIG), its parts."""
    found: list[str] = []
    for line in listing.splitlines():
        uuid = re.search(r"UUID: ((?:GPU|MIG)-[^)\s]+)", line)
        if uuid is None:
            continue
        if uuid[1].startswith("MIG") and found and found[-1].startswith("GPU"):
            found.pop()
        found.append(uuid[1])
    return found
