"""MLflow's pages beside ours: they read, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from whitebench_leaderboards.server.app import make_app
from whitebench_leaderboards.server.mlflow_pages import is_allowed, make_mlflow_pages
from whitebench_leaderboards.server.reader import Reader


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/static-files/static/js/main.js"),
        ("GET", "/ajax-api/2.0/mlflow/runs/get"),
        ("POST", "/ajax-api/2.0/mlflow/runs/search"),
        ("POST", "/graphql"),
        ("GET", "/get-artifact"),
    ],
)
def test_what_reads_is_let_through(method: str, path: str) -> None:
    assert is_allowed(method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/ajax-api/2.0/mlflow/runs/create"),
        ("POST", "/ajax-api/2.0/mlflow/runs/set-tag"),
        ("POST", "/ajax-api/2.0/mlflow/runs/delete"),
        ("POST", "/ajax-api/2.0/mlflow/runs/search/../create"),
        ("POST", "/api/2.0/mlflow/runs/search"),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact"),
        ("DELETE", "/ajax-api/2.0/mlflow/logged-models/m-1"),
        ("PATCH", "/ajax-api/2.0/mlflow/logged-models/m-1"),
        ("GET", "/ajax-api/2.0/mlflow/gateway-proxy"),
        ("POST", "/ajax-api/2.0/mlflow/gateway-proxy"),
        ("GET", "/ajax-api/3.0/mlflow/gateway/secrets/list"),
        ("GET", "/static-files/../../secret"),
        ("PUT", "/ajax-api/2.0/mlflow-artifacts/artifacts/x"),
        ("GET", "/\n"),
    ],
)
def test_everything_else_is_refused(method: str, path: str) -> None:
    assert not is_allowed(method, path)


def test_what_is_refused_never_reaches_mlflow_and_what_is_let_through_may_run_nothing_of_others(reader: Reader) -> None:
    asked: list[str] = []

    def flask(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {environ['wsgi.input'].read().decode()}")
        start_response("200 OK", [("Content-Type", "application/json"), ("Set-Cookie", "x=y")])
        return [b"{}"]

    client = TestClient(make_app(reader, mlflow=make_mlflow_pages(lambda: flask)), base_url="http://localhost")
    answer = client.post("/mlflow/ajax-api/2.0/mlflow/runs/search", content=b'{"max_results": 1}')
    assert answer.json() == {}
    assert "set-cookie" not in answer.headers
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    assert client.post("/mlflow/ajax-api/2.0/mlflow/runs/delete", content=b"{}").status_code == 403
    assert client.delete("/mlflow/").status_code == 403
    assert client.post("/mlflow/graphql", content=b"x" * 2_000_000).status_code == 413
    assert "sandbox" in client.get("/mlflow/get-artifact?path=a.html").headers["content-security-policy"]
    assert asked == [
        'POST /mlflow/ajax-api/2.0/mlflow/runs/search {"max_results": 1}', "GET /mlflow/get-artifact ",
    ]  # fmt: skip


@pytest.mark.slow
def test_mlflow_itself_answers_below_its_prefix(tmp_path: Path) -> None:
    """In a process of its own: MLflow reads where it stands when it is imported."""
    code = f"""
from starlette.testclient import TestClient
from whitebench.store import Store
from whitebench_leaderboards.server.mlflow_pages import load_mlflow, make_mlflow_pages
from starlette.applications import Starlette
from starlette.routing import Mount
uri = "sqlite:///{tmp_path / "whitebench.db"}"
Store(uri).tracking._create_experiment("smoke")
app = Starlette(routes=[Mount("/mlflow", make_mlflow_pages(lambda: load_mlflow(uri)))])
client = TestClient(app, base_url="http://localhost")
page = client.get("/mlflow/")
found = client.post("/mlflow/ajax-api/2.0/mlflow/experiments/search", json={{"max_results": 10}})
made = client.post("/mlflow/ajax-api/2.0/mlflow/experiments/create", json={{"name": "written"}})
names = sorted(one["name"] for one in found.json()["experiments"])
import json
print(json.dumps([page.status_code, "MLflow" in page.text, made.status_code, names]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout.splitlines()[-1]) == [200, True, 403, ["Default", "smoke"]]
