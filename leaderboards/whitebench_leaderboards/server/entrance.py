"""Where a browser hands over the token, once, and is known from then on."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from jinja2 import Environment
from starlette.responses import HTMLResponse, RedirectResponse, Response

from whitebench_leaderboards.server.guard import COOKIE, is_token, pass_of

MONTH = 30 * 24 * 3600
MOST_BYTES = 4096
"""Of the form that hands over the token."""


def make_entrance(templates: Environment, token: str) -> APIRouter:
    """Return the page that asks for `token`, and what takes it."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    def ask() -> Response:
        return HTMLResponse(templates.get_template("login.html").render(is_refused=False))

    @router.post("/login")
    async def take(request: Request) -> Response:
        if not token or not is_token(await _form_token(request), token):
            return HTMLResponse(templates.get_template("login.html").render(is_refused=True), status_code=401)
        answer = RedirectResponse("/", status_code=303)
        is_secret = request.url.scheme == "https"
        answer.set_cookie(COOKIE, pass_of(token), max_age=MONTH, httponly=True, samesite="strict", secure=is_secret)
        return answer

    return router


async def _form_token(request: Request) -> str:
    """Return the token of the form, empty where there is none or the form is too long to be one."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return ""
    return parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
