"""Results on their way into the store: each whole on disk before it is written there, and kept until it has arrived.

A cell's result is described in the folder of its fit, beside predictions and weights. Where the store cannot take it,
or the conductor is killed before it has, the next run stores it: nothing is fitted, and no test split opened, twice.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whitebench.events import EpochEnded
from whitebench.fit import DELIVERY
from whitebench.identity import CellName
from whitebench.result import Result
from whitebench.store import Store
from whitebench.suite import Contestant

if TYPE_CHECKING:
    from pydantic import TypeAdapter

RESERVE = 256 * 1024
"""Bytes set aside on disk while a fit runs, so that its result can be described there even when the disk is full."""

_RESERVED = ".reserved"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A result with all that the store wants to know of its cell."""

    result: Result
    contestant: Contestant
    overrides: str
    parts: dict[str, Any]
    """Of the cell's identity."""
    is_guest: bool
    claim: str
    epochs: Sequence[EpochEnded]

    @property
    def cell(self) -> CellName:
        """The cell it is the result of."""
        return self.result.cell


class Spool:
    """The folders, below `.whitebench` in the home of a store, in which results lie that are not stored yet."""

    def __init__(self, home: Path) -> None:
        self.fits, self.kept = home / ".whitebench" / "fits", home / ".whitebench" / "spool"

    def reserve(self, folder: Path) -> None:
        """Set some room on disk aside for the description of a fit's result."""
        with suppress(OSError):  # too full already: its fit will say so, or have room elsewhere
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _RESERVED).write_bytes(os.urandom(RESERVE))  # zeros might be kept as a hole

    def describe(self, folder: Path, delivery: Delivery) -> None:
        """Write down in a fit's folder what is to be stored of it; where it cannot, the store may still take it."""
        new = folder / f"{DELIVERY}.new"
        try:
            (folder / _RESERVED).unlink(missing_ok=True)
            with new.open("wb") as file:
                file.write(_adapter().dump_json(delivery))
                file.flush()
                os.fsync(file.fileno())
            new.replace(folder / DELIVERY)
        except OSError:
            _log.exception("%s: its result could not be written down", delivery.cell)

    def keep(self, folder: Path) -> Path:
        """Put a fit's folder where results wait for the store, if it can be moved; return where it is."""
        place = self.kept / folder.name
        try:
            self.kept.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            return folder.rename(place)
        except OSError:
            _log.exception("%s could not be moved", folder)
            return folder

    def waiting(self) -> list[tuple[Path, Delivery]]:
        """Return the results that are not stored yet, by folder; one that cannot be read is put aside and noted."""
        found = []
        for folder in sorted({file.parent for root in (self.kept, self.fits) for file in root.glob(f"*/{DELIVERY}")}):
            try:
                found.append((folder, _adapter().validate_json((folder / DELIVERY).read_bytes())))
            except FileNotFoundError:  # its conductor has just stored it
                continue
            except (OSError, ValueError):
                _log.exception("%s cannot be read: it is left there as %s.damaged", folder / DELIVERY, DELIVERY)
                (folder / DELIVERY).rename(folder / f"{DELIVERY}.damaged")
        return found


def deliver(spool: Spool, store: Store) -> list[Delivery]:
    """Store the results that wait in `spool` and return them; those that another conductor is at are left to it.

    Raises:
        StoreError: the store cannot take one; it goes on waiting.
    """
    delivered = []
    for folder, delivery in spool.waiting():
        if not store.claims.take(delivery.claim):
            continue
        try:
            if not _is_stored(store, delivery):
                store_delivery(store, delivery, folder)
                delivered.append(delivery)
        finally:
            store.claims.release(delivery.claim)
        shutil.rmtree(folder, ignore_errors=True)
    return delivered


def store_delivery(store: Store, delivery: Delivery, folder: Path) -> str:
    """Store one result whose claim is ours, remove its folder, and return the id of its run."""
    # In a run of its own: what the first one has got of the result already would be there twice.
    run_id = store.open_cell(
        delivery.cell,
        contestant=delivery.contestant,
        overrides=delivery.overrides,
        identity=delivery.result.identity,
        parts=delivery.parts,
        chosen=delivery.result.chosen,
        is_guest=delivery.is_guest,
        claim=delivery.claim,
    )
    for epoch in delivery.epochs:
        store.log_epoch(run_id, epoch, delivery.result.primary)
    store.finish_cell(run_id, delivery.result, folder)
    shutil.rmtree(folder, ignore_errors=True)
    return run_id


def _is_stored(store: Store, delivery: Delivery) -> bool:
    runs = store.runs_of(delivery.cell, delivery.overrides)
    return any(one.result_sha256 and one.identity == delivery.result.identity for one in runs)


@cache
def _adapter() -> TypeAdapter[Delivery]:
    from pydantic import TypeAdapter  # 0.1 s, and a cell has one delivery

    return TypeAdapter(Delivery)
