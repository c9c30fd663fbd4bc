"""One suite, one store, one conductor at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whitebench.errors import AlreadyRunningError
from whitebench.provenance import now


@contextmanager
def only_one(suite: str, home: Path) -> Iterator[None]:
    """Hold `suite` on the store in `home` for this process.

    Raises:
        AlreadyRunningError: another process holds it; names the process and when it started.
    """
    path = home / ".whitebench" / f"{suite}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the system however the holder ends
        except BlockingIOError:
            file.seek(0)
            holder = json.loads(file.read() or "{}")
            raise AlreadyRunningError(
                f"suite {suite} is already being run on this store by process {holder.get('pid', 'unknown')}, "
                f"since {holder.get('started', 'a moment ago')}: wait for it to end"
            ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "started": now()}))
        file.flush()
        yield
