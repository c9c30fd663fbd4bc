"""The machine: what torch can compute on, cores, memory, disk, and how quickly a fit's process starts."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from whitebench.doctor.finding import PATIENCE, Finding
from whitebench.provenance import processor_name, usable_cores

GB = 10**9

ENOUGH_DISK, LEAST_DISK = 2 * GB, GB // 10
"""Below the first a large suite may not fit, below the second not even `smoke` (6 MB) with its log and trials."""

ENOUGH_MEMORY = GB // 2
"""For each fit: one of `smoke` takes 0.1 GB of its own, the libraries that all share 0.4."""

CONTAINER = Path("/sys/fs/cgroup")

ENOUGH_SHARED = 2**27
"""Docker's default, 64 MiB, is too little for tasks that load data in processes of their own."""

TRY_FITTING = "python -c 'import whitebench.fitting'"
"""Shows why a fit's process cannot start."""

ELSEWHERE = "export MLFLOW_TRACKING_URI=sqlite:////FOLDER/whitebench.db"


def look_at_torch() -> Iterator[Finding]:
    """Say what torch was built for, and compare it with what is plugged in."""
    import torch

    builds = (("CUDA", torch.version.cuda), ("ROCm", torch.version.hip))
    built = next((f"{name} {number}" for name, number in builds if number), "the processor alone")
    found = f"{torch.__version__}, built for {built}"
    if not _has_nvidia():
        yield Finding(what="torch", state="ok", detail=found)
    elif torch.version.cuda is None:
        plain = torch.__version__.partition("+")[0]
        detail = f"{found}, on a machine with an NVIDIA GPU: it will not be used"
        mend = f"python -m pip install --force-reinstall 'torch=={plain}'"
        yield Finding(what="torch", state="warning", detail=detail, mend=mend)
    else:
        is_usable, why = _cuda_is_usable()
        detail = found if is_usable else f"{found}, cannot use the NVIDIA GPU of this machine{why}"
        mend = "" if is_usable else "nvidia-smi"
        yield Finding(what="torch", state="ok" if is_usable else "warning", detail=detail, mend=mend)


def look_at_devices() -> Iterator[Finding]:
    """Name every accelerator with its memory."""
    import torch

    names = []
    if _cuda_is_usable()[0]:
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            names.append(f"{device.name} with {size(device.total_memory)}")
    if torch.backends.mps.is_available():
        names.append("Apple GPU (mps)")
    yield Finding(what="devices", state="ok", detail=", ".join(names) or "no accelerator: fits train on the processor")


def look_at_processor() -> Iterator[Finding]:
    """Say how many cores may be used, and what follows for fits at a time."""
    cores, every = usable_cores(), os.cpu_count() or 1
    of = f" of {every}" if every != cores else ""
    detail = f"{processor_name()}, {cores}{of} usable cores: {cores} fits at a time at 1 thread each"
    yield Finding(what="processor", state="ok", detail=detail)


def look_at_memory(group: Path = CONTAINER) -> Iterator[Finding]:
    """Share what is available among as many fits as run at a time by default."""
    import psutil

    memory, fits = psutil.virtual_memory(), usable_cores()
    limit = _memory_limit(group)
    available = min(memory.available, limit) if limit is not None else memory.available
    within = f" (its container allows {size(limit)} more)" if limit is not None else ""
    detail = f"{size(memory.available)} of {size(memory.total)} available{within}: "
    detail += f"{size(available / fits)} for each of {fits} fits at a time"
    if available / fits >= ENOUGH_MEMORY:
        yield Finding(what="memory", state="ok", detail=detail)
        return
    fewer = max(1, int(available // ENOUGH_MEMORY))
    yield Finding(what="memory", state="warning", detail=detail, mend=f"whitebench run SUITE --parallel {fewer}")


def look_at_shared_memory(folder: Path = Path("/dev/shm")) -> Iterator[Finding]:
    """See whether processes can hand each other tensors; only Linux has such a folder."""
    if not folder.is_dir():
        return
    usage = shutil.disk_usage(folder)
    detail = f"{size(usage.free)} of {size(usage.total)} free in {folder}"
    if usage.free >= ENOUGH_SHARED:
        yield Finding(what="shared memory", state="ok", detail=detail)
        return
    detail += ": too little for tasks that load their data in processes of their own; in Docker, --shm-size=1g"
    mend = f"sudo mount -o remount,size=1G {folder}"
    yield Finding(what="shared memory", state="warning", detail=detail, mend=mend)


def look_at_disk(what: str, folder: Path, mend: str = ELSEWHERE) -> Iterator[Finding]:
    """See how much can still be written to `folder`, or to where it would be made."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(there).free
    detail = f"{size(free)} free in {there}"
    if free >= ENOUGH_DISK:
        yield Finding(what=what, state="ok", detail=detail)
    else:
        yield Finding(what=what, state="warning" if free >= LEAST_DISK else "broken", detail=detail, mend=mend)


def look_at_temporary_files() -> Iterator[Finding]:
    """See how much can still be written to the folder for temporary files."""
    yield from look_at_disk("temporary files", Path(tempfile.gettempdir()), "export TMPDIR=/FOLDER")


class ForkServer:
    """A fork server on trial: it loads its libraries while other things are looked at."""

    def __init__(self) -> None:
        self._forked: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._fork_two, daemon=True)

    def start(self) -> Iterator[Finding]:
        """Let it begin; finds nothing unless that fails."""
        from whitebench.launch import Launcher

        Launcher(threads=1)
        self._began = time.monotonic()
        self._thread.start()
        yield from ()

    def look(self, seconds: float = 2 * PATIENCE) -> Iterator[Finding]:
        """Wait until it has forked twice; says how long the first child took, and the second."""
        if not self._thread.ident:
            return
        self._thread.join(seconds)
        complaints = [text for _, text in self._forked if text]
        if complaints or len(self._forked) < 2:
            detail = complaints[0] if complaints else f"did not fork a process in {seconds:g} s"
            yield Finding(what="fork server", state="broken", detail=f"no fit can start: {detail}", mend=TRY_FITTING)
            return
        (first, _), (second, _) = self._forked
        detail = f"loaded its libraries in {first - self._began:.1f} s; "
        detail += f"a fit's process then starts in {second - first:.2f} s"
        yield Finding(what="fork server", state="ok", detail=detail)

    def _fork_two(self) -> None:
        for _ in range(2):
            try:
                said = _ask_a_child()
            except (OSError, EOFError) as error:
                said = f"the server ended while it loaded its libraries ({type(error).__name__}: {error})"
            self._forked.append((time.monotonic(), said))


def size(count: float) -> str:
    """Return bytes as people say them, `3.2 GB`."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 1000 else f"{count / 1000:.3g} TB"


def _ask_a_child() -> str:
    """Fork one process; return what is wrong there, or nothing."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_tell_what_is_missing, args=(theirs,))
    process.start()
    theirs.close()
    try:
        return str(ours.recv())
    finally:
        process.join()


def _tell_what_is_missing(channel: Connection[Any, Any]) -> None:
    """Say, in a child of the server, which library it could not load: the server itself keeps that quiet."""
    from whitebench.launch import PRELOADED

    complaint = ""
    for name in PRELOADED:
        try:
            importlib.import_module(name)
        except Exception as error:
            complaint = f"{name} cannot be loaded: {type(error).__name__}: {error}"
            break
    channel.send(complaint)


def _has_nvidia() -> bool:
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def _cuda_is_usable() -> tuple[bool, str]:
    """Return whether torch can use a GPU (ROCm's too), and what it says where it cannot."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    return usable, f": {' '.join(str(said[0].message).split())[:200]}" if said else ""


def _memory_limit(group: Path) -> int | None:
    """Return what a container's control group still allows, in bytes; None where it sets no limit."""
    try:
        most, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        return None if most == "max" else max(0, int(most) - int(used))
    except (OSError, ValueError):
        return None
