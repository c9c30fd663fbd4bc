"""What is said when a page cannot be had: what happened and what to do, and nothing of this machine."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from jinja2 import Environment
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from whitebench.errors import WhitebenchError
from whitebench_leaderboards.server.discretion import discreet
from whitebench_leaderboards.server.reader import NotHereError

TERMINAL = "the terminal in which the server runs"

_log = logging.getLogger(__name__)


def tell_failures(app: FastAPI, templates: Environment) -> None:
    """Let `app` answer every failure with a page, or with JSON under `/api/`."""

    def failed(request: Request, status: int, heading: str, message: str) -> Response:
        if request.url.path.startswith("/api/"):
            return JSONResponse({"detail": message}, status_code=status)
        page = templates.get_template("error.html").render(status=status, heading=heading, message=message)
        return HTMLResponse(page, status_code=status)

    @app.exception_handler(NotHereError)
    def not_here(request: Request, error: Exception) -> Response:
        return failed(request, 404, "There is no such page", discreet(str(error)))

    @app.exception_handler(WhitebenchError)
    def cannot(request: Request, error: Exception) -> Response:
        _log.error("%s: %s", request.url.path, error)
        return failed(
            request, 503, "This cannot be read at the moment", f"Why stands in {TERMINAL}. The page tries again."
        )

    @app.exception_handler(HTTPException)
    def nowhere(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return failed(request, status, "There is no such page", "Nothing stands under this address.")

    @app.exception_handler(RequestValidationError)
    def unclear(request: Request, _: Exception) -> Response:
        return failed(request, 422, "This address says something that cannot be", "A seed is a whole number.")

    @app.exception_handler(Exception)
    def broken(request: Request, _: Exception) -> Response:
        return failed(
            request, 500, "Something broke", f"This is a bug in whitebench. Its traceback stands in {TERMINAL}."
        )
