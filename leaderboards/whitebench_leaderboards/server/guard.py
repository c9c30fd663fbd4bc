"""Who may ask, and what a browser may do with the answer: checked before and beside every page."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whitebench_leaderboards.server.users import Users

COOKIE = "whitebench"
READING = frozenset({"GET", "HEAD"})
OPEN = ("/login", "/static/")
"""What is answered without a token: the page that asks for it, and what that is drawn with."""

SHORTEST_TOKEN = 16
"""Characters: what is shorter can be guessed."""

STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": STRICT,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer; one that has its own is left alone."""


_log = logging.getLogger(__name__)


class Guard:
    """Lets through who asks to read, by a name of this server, and with its token, or as a user, where it has these."""

    def __init__(self, app: ASGIApp, *, token: str = "", users: Users | None = None) -> None:
        """Guard `app`; without a token and users it may be asked for by names of the loopback alone."""
        self.app, self.token, self.users = app, token, users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let `app` do so."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        is_head = scope["method"] == "HEAD"
        if is_head:  # answered as GET is, without the body
            scope = {**scope, "method": "GET"}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        refusal = self._refusal(scope) or await self._stranger(scope)
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        if not self.token and self.users is None and not is_loopback(host_of(headers.get("host", ""))):
            return PlainTextResponse("This server answers to localhost only.\n", status_code=421)
        if method not in READING and not (method == "POST" and path == "/login") and not path.startswith("/mlflow/"):
            return PlainTextResponse("This server only reads.\n", status_code=405, headers={"Allow": "GET, HEAD"})
        if not self.token or path.startswith(OPEN) or self._is_known(headers):
            return None
        if path.startswith("/api/"):
            return JSONResponse(
                {"detail": "a token is needed: Authorization: Bearer TOKEN"},
                status_code=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
        return RedirectResponse("/login", status_code=303)

    async def _stranger(self, scope: Scope) -> Response | None:
        """Return what somebody is told who is not one of the users, if there are any; the same whoever it is."""
        if self.users is None:
            return None
        try:
            if await self.users.know(Headers(scope=scope).get("authorization", "")):
                return None
        except Exception as error:
            # Not the whole of it: what a database says may tell who asked.
            _log.error("MLflow's users cannot be read (%s)", type(error).__name__)
            return JSONResponse({"detail": "Who may read cannot be looked up at the moment."}, status_code=503)
        return JSONResponse(
            {"detail": "a name and a password of MLflow's are needed: Authorization: Basic"},
            status_code=401,
            headers={"WWW-Authenticate": 'Basic realm="whitebench", charset="UTF-8"'},
        )

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and is_token(given.strip(), self.token):
            return True
        kept = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return hmac.compare_digest(kept.encode(), pass_of(self.token).encode())


def is_token(given: str, token: str) -> bool:
    """Return whether the token given is the right one, in a time that does not tell how much of it is."""
    return hmac.compare_digest(given.encode(), token.encode())


def pass_of(token: str) -> str:
    """Return what a browser keeps as a cookie in the token's place; of no use but here."""
    return hmac.new(token.encode(), b"whitebench serve", hashlib.sha256).hexdigest()


def host_of(header: str) -> str:
    """Return the name in a Host header, without port and brackets; empty where it is none."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]*))(?::\d*)?", header)
    return (found[1] or found[2]).lower() if found else ""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
