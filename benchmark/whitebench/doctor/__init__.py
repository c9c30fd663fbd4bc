"""What works here and what does not: installation, machine, store and plugins, each fault with what mends it.

Looking makes nothing: no store, no folder. A look that raises is itself a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from whitebench.doctor import machine, plugins, software, storage
from whitebench.doctor.finding import PATIENCE, Finding, guarded

__all__ = ["Finding", "examine"]


def examine(store: str | None, files: Sequence[Path]) -> Iterator[Finding]:
    """Look at everything that a run with this store and these plugin files would need."""
    from whitebench.address import DEFAULT_URI, home_of, resolve_uri
    from whitebench.errors import StoreError

    server = machine.ForkServer()
    yield from guarded("fork server", server.start)
    try:
        uri, refusal = resolve_uri(store), ""
    except StoreError as error:
        uri, refusal = resolve_uri(None), str(error)
    yield from guarded("Python", software.look_at_python)
    yield from guarded("platform", software.look_at_platform)
    yield from guarded("whitebench", software.look_at_whitebench)
    yield from guarded("libraries", software.look_at_libraries)
    yield from guarded("git", software.look_at_git)
    yield from guarded("PostgreSQL", partial(software.look_at_postgresql, uri))
    yield from guarded("plugins", partial(plugins.look_at_plugins, files))
    yield from guarded("torch", machine.look_at_torch)
    yield from guarded("devices", machine.look_at_devices)
    yield from guarded("processor", machine.look_at_processor)
    yield from guarded("memory", machine.look_at_memory)
    yield from guarded("shared memory", machine.look_at_shared_memory)
    yield from guarded("temporary files", machine.look_at_temporary_files)
    if refusal:
        yield Finding(what="store", state="broken", detail=refusal, mend=f"export MLFLOW_TRACKING_URI={DEFAULT_URI}")
    else:
        yield from _store(uri, home_of(uri))
    yield from guarded("fork server", server.look)


def _store(uri: str, home: Path) -> Iterator[Finding]:
    # From threads of their own: a file system on another machine may not answer for ever.
    looks = {
        "store": storage.look_at_store,
        "file system": storage.look_at_file_system,
        "lock": storage.look_at_lock,
        "trials": storage.look_at_trials,
        "left over": storage.look_at_leftovers,
    }
    for what, look in looks.items():
        yield from guarded(what, partial(look, uri), seconds=PATIENCE)
    yield from guarded("disk", partial(machine.look_at_disk, "disk", home), seconds=PATIENCE)
