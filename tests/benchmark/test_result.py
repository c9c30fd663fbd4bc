"""Scores and their reasons, and results as bytes."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from whitebench import MetricSpec, Reading
from whitebench.identity import CellName
from whitebench.provenance import Provenance
from whitebench.result import Chosen, Failure, FailureKind, Result, Score, digest, result_from_json, to_json


def build(_: object) -> Any:
    raise AssertionError("never called")


METRIC = MetricSpec(name="rate", version=3, summary="", direction="lower", unit="nats", needs=("logits",), build=build)


def test_a_reading_takes_what_it_does_not_say_from_its_metric() -> None:
    score = Score.from_reading(
        METRIC, "", Reading(value=2.0, profile=[1.0, 3.0], spread=[0.1, 0.2], nulls={"random": 9.0})
    )
    assert score == Score(
        name="rate", metric="rate", version=3, direction="lower", unit="nats", value=2.0,
        profile=(1.0, 3.0), spread=(0.1, 0.2), nulls={"random": 9.0},
    )  # fmt: skip


def test_a_part_has_its_own_name_and_may_have_its_own_direction_and_unit() -> None:
    score = Score.from_reading(METRIC, "share", Reading(value=0.5, direction="none", unit=""))
    assert (score.name, score.metric, score.direction, score.unit) == ("rate/share", "rate", "none", "")


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (Reading(value=math.nan), "the value is nan"),
        (Reading(value=math.inf), "the value is inf"),
        (Reading(value=None), "the metric gave no value and no reason"),
        (Reading(value=None, unscored="no codes"), "no codes"),
        (Reading(value=math.nan, profile=[1.0, math.nan]), "the value is nan (layer 2 is nan)"),
        (Reading(value=1.0, profile=[math.inf, 1.0]), "the value is 1.0 (layer 1 is inf)"),
    ],
)
def test_what_is_no_number_is_unscored_with_the_reason(reading: Reading, reason: str) -> None:
    score = Score.from_reading(METRIC, "", reading)
    assert (score.value, score.unscored, score.profile) == (None, reason, ())


def test_a_null_or_a_spread_that_is_no_number_is_left_out() -> None:
    reading = Reading(value=1.0, profile=[1.0], spread=[math.nan], nulls={"a": math.nan, "b": 2.0})
    score = Score.from_reading(METRIC, "", reading)
    assert (score.value, score.profile, score.spread, score.nulls) == (1.0, (1.0,), (), {"b": 2.0})


def test_tensors_in_a_reading_become_numbers() -> None:
    reading: Any = Reading(value=torch.tensor(1.5), profile=torch.tensor([1.0, 2.0]), nulls={"a": torch.tensor(3)})  # type: ignore[arg-type, dict-item]
    score = Score.from_reading(METRIC, "", reading)
    assert [type(number) for number in (score.value, *score.profile, *score.nulls.values())] == [float] * 4


def test_a_missing_score_has_its_reason() -> None:
    assert Score.missing(METRIC, "no trace").unscored == "no trace"


RESULT = Result(
    cell=CellName(suite="tiny", contestant="vit[dim=8]", task="digits", seed=0),
    identity="a" * 64,
    primary="accuracy",
    scores=[Score.from_reading(METRIC, "", Reading(value=1 / 3, profile=[0.1], nulls={"é": 2.0})),
            Score.missing(METRIC, "x")],
    costs=[],
    chosen=Chosen(hyperparameters={"learning_rate": 1e-3, "depth": 2, "pool": "cls"}, trial=None, validation=None),
    epochs_allowed=2,
    reported_epoch=2,
    validation=0.5,
    test_samples=10,
    test_openings=1,
    predictions_sha256="",
    weights_sha256="",
    provenance=Provenance(
        commit=None, is_dirty=None, distributions={}, python="3.11", torch="2", cuda=None, platform="Linux",
        device="cpu", threads=1, precision="32", seed=0, started="2026-01-01T00:00:00.000Z",
    ),
)  # fmt: skip


def test_a_result_reads_back_from_its_bytes_to_the_last_digit() -> None:
    again = result_from_json(to_json(RESULT))
    assert to_json(again) == to_json(RESULT)
    assert again.scores[0].value == 1 / 3
    assert again.chosen.hyperparameters == {"learning_rate": 1e-3, "depth": 2, "pool": "cls"}
    assert type(again.chosen.hyperparameters["depth"]) is int


def test_the_bytes_are_plain_json() -> None:
    assert json.loads(to_json(RESULT))["cell"] == {
        "suite": "tiny",
        "contestant": "vit[dim=8]",
        "task": "digits",
        "seed": 0,
    }


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"not json"])
def test_what_is_no_result_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="Result"):
        result_from_json(text)


def test_a_score_or_cost_is_found_by_its_name() -> None:
    assert RESULT.score("rate") == RESULT.scores[0]
    assert RESULT.score("zebra") is None


def test_a_failure_says_its_kind_by_its_word() -> None:
    failure = Failure(kind=FailureKind.OOM, message="memory ran out")
    assert json.loads(to_json(failure))["kind"] == "oom"


def test_the_digest_is_sha256() -> None:
    # printf '' | sha256sum
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
