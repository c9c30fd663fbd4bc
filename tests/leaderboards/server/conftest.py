"""A small server: the records of a tiny suite behind it, held in hand in place of a store's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import torch
from playwright.sync_api import Browser, sync_playwright
from starlette.testclient import TestClient

from tests.leaderboards.server.window import CHROMIUM
from whitebench import Picture
from whitebench.catalog import Catalog, load_catalog
from whitebench.ledger import Ledger
from whitebench.result import CellRecord
from whitebench.store import Store
from whitebench.suite import Contestant, load_suite
from whitebench.tags import OpenStudy, StoredCell, StoredStudy
from whitebench_leaderboards.server.app import make_app
from whitebench_leaderboards.server.reader import Reader
from whitebench_leaderboards.server.source import Key

if TYPE_CHECKING:
    from tests.leaderboards.conftest import World

TINY = """
name = "tiny"
version = 1
summary = "Two small models on small images."
primary = "accuracy"
tasks = ["digits"]
seeds = 3
metrics = ["accuracy"]
budget = { epochs = 10, batch_size = 64, trials = 3 }
recipes = { plain = { learning_rate = { value = 1e-3 } } }
contestants = [{ label = "vit", model = "vit" }, { label = "crate[dim=64,depth=4]", model = "crate[dim=64,depth=4]" }]
"""


@dataclass
class Held:
    """Records in hand that stand in for a store: what the server asks of a source, and of the store for details."""

    records: list[CellRecord]
    keys: list[Key] = field(default_factory=lambda: [("tiny", "")])
    under_way: list[OpenStudy] = field(default_factory=list)
    asked: int = 0
    """How often a ledger was made."""
    is_changed: bool = False
    broken: Exception | None = None
    noise_floor: Mapping[str, float] = field(default_factory=dict)

    def refresh(self) -> frozenset[Key]:
        changed, self.is_changed = self.is_changed, False
        return frozenset(self.keys) if changed else frozenset()

    def suites(self) -> list[Key]:
        return self.keys

    def open_studies(self, suite: str, overrides: str) -> list[OpenStudy]:
        return [one for one in self.under_way if (one.suite, one.overrides) == (suite, overrides)]

    def ledger(self, suite: str, overrides: Sequence[str] = (), plugins: Sequence[Path] = ()) -> Ledger:
        self.asked += 1
        if self.broken:
            raise self.broken
        return Ledger(
            suite=load_suite(suite, overrides),
            overrides=tuple(overrides),
            direction="higher",
            unit="share",
            records=tuple(self.records),
            store_uri="sqlite:////home/mallory/hidden/whitebench.db",
            source=suite,
            noise_floor=self.noise_floor,
        )

    def change(self, records: Sequence[CellRecord]) -> None:
        self.records, self.is_changed = list(records), True

    # What is asked of a store.

    def curves(self, run_id: str, primary: str) -> dict[str, list[tuple[int, float]]]:
        return {"train/loss": [(1, 2.0), (2, 1.0)], f"validation/{primary}": [(1, 0.5), (2, 0.75)]}

    def pictures(self, run_id: str) -> Mapping[str, Picture]:
        lines = Picture(kind="lines", title="a <b>spectrum</b>", x="rank", y="value", series={"a": torch.ones(3)})
        return {"spectrum": lines}

    def studies(self, suite: str, overrides: str, primary: str) -> list[StoredStudy]:
        return [StoredStudy(contestant="vit", task="digits", choice="", validation={0: 0.5, 1: 0.75, 2: 0.7})]

    def cells(self, suite: str, overrides: str) -> list[StoredCell]:
        return [
            StoredCell(
                cell=one.cell, run_id=one.run_id or "", state=one.state, identity="1" * 64, key="", failure="",
                contestant=Contestant(model=one.cell.contestant), is_guest=False, started=place, result_sha256="",
                claim="",
            )
            for place, one in enumerate(self.records)
        ]  # fmt: skip


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def held(world: World) -> Held:
    return Held(world.full())


@pytest.fixture
def reader(held: Held, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setattr("whitebench_leaderboards.server.reader.PAUSE", 0.0)
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    return Reader(held, lambda: cast("Store", held), catalog, files=[str(tmp_path / "tiny.toml")])


@pytest.fixture
def client(reader: Reader) -> TestClient:
    return TestClient(make_app(reader), base_url="http://localhost", follow_redirects=False)
