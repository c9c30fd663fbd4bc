"""MLflow's own pages beside ours, as far as they read: everything that is not on the list below is refused.

MLflow serves its pages with Flask; they run in this process, so that no second port is open that could write.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from whitebench.address import BESIDE, home_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

PREFIX = "/mlflow"
_API = "/ajax-api/[23].0/mlflow"
ALLOWED = {
    "GET": re.compile(
        r"/|/static-files/.+|/version|/health|/get-artifact"
        rf"|{_API}/(experiments/(get|get-by-name|search)|runs/get|artifacts/list|metrics/get-history(-bulk)?(-interval)?"
        r"|server-info|registered-models/search|model-versions/search|logged-models/[\w-]+)"
    ),
    "POST": re.compile(
        rf"/graphql|{_API}/(runs/search|experiments/search|experiments/search-datasets|logged-models/search"
        r"|traces/search)"
    ),
}
"""What reads: paths below `/mlflow`, whole, by method. MLflow's GraphQL knows searches alone (3.17)."""

MOST_BYTES = 1_000_000
"""Of a query."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; manifest-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""Looser than ours in one thing: MLflow's pages write their styles themselves."""


def is_allowed(method: str, path: str) -> bool:
    """Return whether a request below `/mlflow` only reads."""
    pattern = ALLOWED.get("GET" if method == "HEAD" else method)
    return pattern is not None and pattern.fullmatch(path) is not None and ".." not in path


def make_mlflow_pages(load: Callable[[], WSGIApplication]) -> FastAPI:
    """Return MLflow's pages as an application to stand under `/mlflow`; they are loaded when first asked for."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    loaded: list[WSGIApplication] = []
    lock = threading.Lock()

    def flask() -> WSGIApplication:
        with lock:
            if not loaded:
                loaded.append(load())
            return loaded[0]

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    async def forward(request: Request, path: str) -> Response:
        if not is_allowed(request.method, f"/{path}"):
            return PlainTextResponse("Beside the boards MLflow's pages only read.\n", status_code=403)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return PlainTextResponse("This query is too long.\n", status_code=413)
        return await run_in_threadpool(lambda: _ask(flask(), request, f"{PREFIX}/{path}", body))

    return app


def tell_mlflow(uri: str) -> None:
    """Tell MLflow's server, before anything imports it, to stand below `/mlflow`, over the store at `uri`."""
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = uri
    os.environ["_MLFLOW_SERVER_ARTIFACT_ROOT"] = (home_of(uri) / BESIDE).as_uri()
    os.environ["_MLFLOW_STATIC_PREFIX"] = PREFIX  # read when its routes are made
    os.environ["MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE"] = "true"  # hosts and origins are the guard's business


def load_mlflow(uri: str) -> WSGIApplication:
    """Return MLflow's Flask application over the store at `uri`, served below `/mlflow`."""
    tell_mlflow(uri)
    # MLflow 3.17 against starlette 1.
    warnings.filterwarnings("ignore", message="starlette.middleware.wsgi is deprecated")
    from mlflow.server import app

    application: WSGIApplication = app
    return application


def _ask(app: WSGIApplication, request: Request, path: str, body: bytes) -> Response:
    from werkzeug.test import EnvironBuilder, run_wsgi_app

    kept = ("accept", "content-type", "if-none-match", "if-modified-since", "range")
    headers = [(name, value) for name, value in request.headers.items() if name in kept]
    environ = EnvironBuilder(
        path=path, method=request.method, query_string=request.url.query, headers=headers, data=body
    ).get_environ()
    content: Iterable[bytes]
    content, status, found = run_wsgi_app(app, environ)
    told: dict[str, Any] = {name: value for name, value in found if name.lower() not in ("server", "set-cookie")}
    told["Content-Security-Policy"] = POLICY if path != f"{PREFIX}/get-artifact" else "default-src 'none'; sandbox"
    return StreamingResponse(content, status_code=int(status.split()[0]), headers=told)
