"""The API: the printed JSON, by its schema, whatever is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from starlette.testclient import TestClient

from tests.leaderboards.server.conftest import Held
from whitebench.result import to_json as result_to_json
from whitebench.tags import OpenStudy
from whitebench_leaderboards.export import to_json
from whitebench_leaderboards.server.reader import Reader


def test_a_board_is_what_the_command_prints(reader: Reader, client: TestClient) -> None:
    assert client.get("/api/v1/boards/tiny").json() == json.loads(to_json(reader.board("tiny")))


def test_the_suites_are_those_of_the_first_page(held: Held, client: TestClient) -> None:
    held.keys.append(("mine", ""))
    suites = {one["suite"]: one for one in client.get("/api/v1/suites").json()}
    assert (suites["tiny"]["is_stored"], suites["tiny"]["is_known"]) == (True, True)
    assert (suites["mine"]["is_stored"], suites["mine"]["is_known"]) == (True, False)
    assert (suites["smoke"]["is_stored"], suites["smoke"]["is_known"]) == (False, True)


def test_the_tuning_that_is_under_way_is_told(held: Held, client: TestClient) -> None:
    held.under_way = [OpenStudy(suite="tiny", overrides="", contestant="vit", task="digits", ended=2)]
    [tiny] = [one for one in client.get("/api/v1/suites").json() if one["suite"] == "tiny"]
    assert tiny["tuning"] == [{"contestant": "vit", "task": "digits", "ended": 2, "allowed": 3}]


def test_a_cell_is_its_result_with_its_curves(held: Held, client: TestClient) -> None:
    told = client.get("/api/v1/cells/tiny/crate%5Bdim=64,depth=4%5D/digits/0").json()
    record = next(one for one in held.records if str(one.cell) == told["cell"])
    assert record.result is not None
    assert told["result"] == json.loads(result_to_json(record.result))
    assert told["curves"]["train/loss"] == [[1, 2.0], [2, 1.0]]
    assert client.get("/api/v1/cells/tiny/never/digits/0").json()["result"] is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/boards/nothing", 404),
        ("/api/v1/cells/tiny/vit/digits/99", 404),
        ("/api/v1/cells/tiny/vit/digits/x", 422),
        ("/api/v1/nothing", 404),
    ],
)
def test_what_is_not_there_is_said_in_json(client: TestClient, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_every_operation_is_explained_in_the_schema(client: TestClient) -> None:
    schema = client.get("/api/v1/openapi.json").json()
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    assert len(operations) == 3
    assert all(operation["description"] for operation in operations)


def test_whatever_is_asked_the_answer_keeps_to_the_schema(client: TestClient) -> None:
    """Made-up names, numbers and characters: never a 500, and every answer is one that the schema knows."""
    app, document = client.app, client.get("/api/v1/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    schema.app = app
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)

        @given(case=found.ok().as_strategy())
        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
        def ask(case: Any) -> None:
            case.call_and_validate(headers={"Host": "localhost"})

        ask()
