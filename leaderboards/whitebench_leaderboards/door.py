"""Door: the store at an address, opened for reading once there is one, and anew when another takes its place."""

from __future__ import annotations

import threading

from whitebench.address import exists, sqlite_file
from whitebench.store import Store


class Door:
    """What a reader gets at the store through; threads may share it."""

    def __init__(self, uri: str, patience: float) -> None:
        """Name the store, which need not exist yet, and how many seconds one that is locked or away is waited for."""
        self.uri, self.patience = uri, patience
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._inode = 0

    def store(self) -> Store | None:
        """Return the store, the same one for as long as it is; None while there is none.

        Raises:
            StoreError: it cannot be opened.
        """
        with self._lock:
            if not exists(self.uri):
                self._store = None
                return None
            file = sqlite_file(self.uri)
            # The number of a file that was deleted is free for the next, but not while a connection to it is open;
            # and while none is there is nothing that could be out of date.
            inode = file.stat().st_ino if file else 0
            if self._store is None or inode != self._inode:
                self._store, self._inode = Store(self.uri, patience=self.patience, is_reader=True), inode
            return self._store
