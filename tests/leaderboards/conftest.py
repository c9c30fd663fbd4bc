"""Small true worlds for the board: cell records and headings, made without store or training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from tests.benchmark.conftest import catalog, new_store, plugin, write_suite
from whitebench.identity import CellName
from whitebench.provenance import Provenance
from whitebench.reading import Direction
from whitebench.result import CellRecord, CellState, Chosen, Result, Score
from whitebench_leaderboards.heading import Heading

__all__ = ["catalog", "new_store", "plugin", "write_suite"]  # fixtures

_PROVENANCE = Provenance(
    commit=None,
    is_dirty=None,
    distributions={},
    python="3.11",
    torch="2.13",
    cuda=None,
    platform="Linux",
    device="a processor",
    threads=1,
    precision="32",
    seed=0,
    started="2026-01-01T00:00:00.000Z",
)


@dataclass(frozen=True)
class World:
    """Makes the records of a tiny suite, called `tiny`, and its heading."""

    suite: str = "tiny"
    primary: str = "accuracy"
    directions: Mapping[str, Direction] = field(
        default_factory=lambda: {"accuracy": "higher", "cross-entropy": "lower", "calibration-error": "lower"}
    )

    def heading(
        self,
        *,
        seeds: Sequence[int] = (0, 1, 2),
        tasks: Sequence[str] = ("digits",),
        primary: str = "accuracy",
        overrides: Sequence[str] = (),
        trials: int = 3,
        summary: str = "Two small models on small images.",
    ) -> Heading:
        return Heading(
            suite=self.suite,
            version=1,
            summary=summary,
            primary=primary,
            direction=self.directions.get(primary, "none"),
            unit=self.unit_of(primary),
            tasks=tuple(tasks),
            seeds=tuple(seeds),
            epochs=10,
            trials=trials,
            batch_size=64,
            precision="32",
            threads=1,
            overrides=tuple(overrides),
        )

    @staticmethod
    def unit_of(name: str) -> str:
        return "share" if name in ("accuracy", "calibration-error") else ""

    def score(
        self,
        name: str,
        value: float | None,
        unit: str = "",
        unscored: str | None = None,
        nulls: Mapping[str, float] | None = None,
    ) -> Score:
        return Score(
            name=name,
            metric=name.partition("/")[0],
            version=1,
            direction=self.directions.get(name, "none"),
            unit=unit or self.unit_of(name),
            value=value,
            unscored=unscored,
            nulls=nulls or {},
        )

    def record(
        self,
        contestant: str,
        seed: int,
        accuracy: float | None,
        *,
        task: str = "digits",
        state: CellState = "finished",
        reason: str = "",
        scores: Sequence[Score] = (),
        costs: Sequence[Score] = (),
        per_sample: Sequence[float] | None = None,
        is_guest: bool = False,
        edges: Sequence[str] = (),
        test_openings: int = 1,
        trials: tuple[int, int, int, int] = (3, 3, 0, 0),
    ) -> CellRecord:
        """Return a finished cell; `trials` are those allowed, complete, pruned and failed."""
        cell = CellName(suite=self.suite, contestant=contestant, task=task, seed=seed)
        primary = self.score("accuracy", accuracy, unscored=None if accuracy is not None else "no logits")
        allowed, complete, pruned, failed = trials
        chosen = Chosen(
            hyperparameters={"learning_rate": 1e-3},
            trial=0,
            validation=0.9,
            edges=tuple(edges),
            trials_allowed=allowed,
            trials_complete=complete,
            trials_pruned=pruned,
            trials_failed=failed,
        )
        result = Result(
            cell=cell,
            identity="1" * 64,
            primary="accuracy",
            scores=(primary, *scores),
            costs=tuple(costs),
            chosen=chosen,
            epochs_allowed=10,
            reported_epoch=10,
            validation=None if accuracy is None else accuracy - 0.01,
            test_samples=len(per_sample) if per_sample is not None else 360,
            test_openings=test_openings,
            predictions_sha256="",
            weights_sha256="",
            provenance=_PROVENANCE,
        )
        return CellRecord(
            cell=cell,
            state=state,
            reason=reason,
            result=result,
            per_sample=per_sample,
            run_id=f"run-{contestant}-{task}-{seed}",
            is_guest=is_guest,
            test_openings=test_openings,
        )

    def absent(
        self, contestant: str, seed: int, state: CellState, reason: str = "", *, task: str = "digits"
    ) -> CellRecord:
        cell = CellName(suite=self.suite, contestant=contestant, task=task, seed=seed)
        return CellRecord(cell=cell, state=state, reason=reason)

    def entry(self, contestant: str, accuracies: Sequence[float], *, task: str = "digits") -> list[CellRecord]:
        """Return a finished cell per accuracy, seeds from 0 up."""
        return [self.record(contestant, seed, value, task=task) for seed, value in enumerate(accuracies)]

    def costs(self, parameters: float) -> list[Score]:
        stated = (
            ("parameters", "", parameters),
            ("macs", "", 75 * parameters),
            ("training-rate", "samples/s", 12_345.0),
            ("inference-rate", "samples/s", 54_321.0),
            ("peak-memory", "bytes", 84 * 1024.0**2),
            ("tuning-time", "s", 31.4),
            ("training-time", "s", 12.34),
        )
        return [self.score(name, value, unit) for name, unit, value in stated]

    def full(self) -> list[CellRecord]:
        """Return a board with everything that can stand on one: leaders, a guest, stale, failed, missing, unscored."""
        records = []
        for label, correct, parameters in (
            ("vit", 346, 41_234.0),
            ("crate[dim=64,depth=4]", 344, 28_900.0),
            ("slow", 300, 3e6),
        ):
            for seed in range(3):
                right = correct + {"vit": (0, 2, -3), "slow": (1, -4, 5)}.get(label, (3, 0, -1))[seed]
                scores = [
                    self.score("cross-entropy", 0.142 + 0.01 * seed, "nats"),
                    self.score("calibration-error", 0.021 + 0.001 * seed),
                    self.score("coding-rate", 30.5 + seed, "nats"),
                    self.score("coding-rate/share", 0.71 + 0.01 * seed),
                    self.score("sparsity/nonzero", 0.4 + 0.01 * seed)
                    if label.startswith("crate")
                    else self.score("sparsity/nonzero", None, unscored="the model offers no trace 'codes'"),
                ]
                records.append(
                    self.record(
                        label,
                        seed,
                        right / 360,
                        scores=scores,
                        costs=self.costs(parameters),
                        per_sample=[1.0] * right + [0.0] * (360 - right),
                        is_guest=label == "slow",
                        edges=("learning_rate",) if label == "vit" else (),
                        test_openings=seed + (4 if label == "slow" else 1),
                    )
                )
        records += [self.record("partial", seed, 0.9 + 0.01 * seed, costs=self.costs(1e4)) for seed in range(2)]
        records.append(self.absent("partial", 2, "failed", "oom: needs 3 GiB more"))
        why = "the model's source has changed"
        records += [
            self.record("old", seed, 0.8 + 0.01 * seed, state="stale", reason=why, costs=self.costs(1e4))
            for seed in range(3)
        ]
        records += [self.absent("never", seed, "missing", "not run yet") for seed in range(3)]
        return records


@pytest.fixture
def world() -> World:
    return World()
