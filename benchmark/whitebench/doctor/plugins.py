"""What is registered, which plugins were turned away, and which names have two owners."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from whitebench.catalog import Catalog, load_catalog
from whitebench.doctor.finding import Finding
from whitebench.doctor.software import NAME, reinstall
from whitebench.plugin import Owner

LOCAL = "local file"
"""What the owner of a `--plugin` calls its distribution."""


def look_at_plugins(files: Sequence[Path]) -> Iterator[Finding]:
    """Load every plugin, as a run would, and say what is not usable."""
    for file in files:
        if not file.is_file():
            yield _lost(file)
    catalog = load_catalog([file for file in files if file.is_file()])
    for one in catalog.quarantined:
        detail = f"not loaded: {one.owner}: {one.reason}"
        yield Finding(what="plugins", state="broken", detail=detail, mend=_rid_of(one.owner))
    for (kind, name), owners in catalog.disputed.items():
        listing = " and by ".join(map(str, owners))
        detail = f"{kind} {name!r} cannot be used: it is registered by {listing}"
        yield Finding(what="plugins", state="broken", detail=detail, mend=_rid_of(_strangest(owners)))
    yield Finding(what="plugins", state="ok", detail=_count(catalog))


def _count(catalog: Catalog) -> str:
    numbers = ", ".join(f"{len(names)} {kind}{'s' * (len(names) != 1)}" for kind, names in catalog.entries.items())
    owners = Counter(entry.owner.distribution for names in catalog.entries.values() for entry in names.values())
    return f"{numbers}; from {', '.join(owners)}"


def _lost(file: Path) -> Finding:
    is_named = str(file) in os.environ.get("WHITEBENCH_PLUGINS", "").split(os.pathsep)
    mend = "unset WHITEBENCH_PLUGINS" if is_named else ""
    where = "WHITEBENCH_PLUGINS" if is_named else "--plugin"
    return Finding(what="plugins", state="broken", detail=f"{where}: there is no file {file}", mend=mend)


def _rid_of(owner: Owner) -> str:
    """Return the command that mends a plugin: edit a file, install ours again, uninstall a stranger's."""
    if owner.distribution == LOCAL:
        return f"${{EDITOR:-vi}} {shlex.quote(owner.plugin)}"
    return reinstall() if owner.distribution == NAME else f"python -m pip uninstall {shlex.quote(owner.distribution)}"


def _strangest(owners: Sequence[Owner]) -> Owner:
    """Return the owner that gives way: a local file before a stranger's distribution before ours."""
    return min(owners, key=lambda owner: (owner.distribution != LOCAL, owner.distribution == NAME))
