"""Who may ask, and what a browser may do with the answer."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from whitebench_leaderboards.server.app import make_app
from whitebench_leaderboards.server.guard import COOKIE, Guard, host_of, is_loopback, pass_of
from whitebench_leaderboards.server.reader import Reader

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
def open_client(reader: Reader) -> TestClient:
    """Return a browser at a server that others may reach."""
    return TestClient(make_app(reader, token=TOKEN), base_url="http://board.example", follow_redirects=False)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.1:8765", "LOCALHOST:1", "[::1]:8765", "[::1]"])
def test_this_machine_is_answered_by_all_its_names(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1", "a:b:c"]
)
def test_a_name_that_was_bound_to_this_machine_by_somebody_else_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "MADEUP"])
@pytest.mark.parametrize("path", ["/", "/suite/tiny", "/api/v1/suites", "/static/whitebench.css"])
def test_nothing_but_reading_is_answered(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 405


def test_whoever_asks_for_the_head_alone_gets_it(client: TestClient) -> None:
    whole, head = client.get("/suite/tiny"), client.head("/suite/tiny")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == whole.headers["etag"]


@pytest.mark.parametrize("path", ["/", "/suite/tiny", "/suite/none", "/api/v1/suites", "/static/whitebench.css", "/x"])
def test_every_answer_forbids_a_browser_all_but_our_own_files(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_a_refusal_has_the_same_headers(client: TestClient) -> None:
    assert "content-security-policy" in client.get("/", headers={"Host": "evil.example"}).headers


def test_without_the_token_only_the_page_that_asks_for_it_is_answered(open_client: TestClient) -> None:
    for path in ("/", "/suite/tiny", "/suite/tiny/board.csv", "/mlflow/"):
        answer = open_client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert "tiny" not in answer.text
    assert open_client.get("/api/v1/suites").status_code == 401
    assert open_client.get("/login").status_code == 200
    assert open_client.get("/static/whitebench.css").status_code == 200


def test_a_program_shows_the_token_as_its_bearer(open_client: TestClient) -> None:
    assert open_client.get("/api/v1/suites", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    for wrong in (f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", "Bearer ü"):
        assert open_client.get("/api/v1/suites", headers={b"Authorization": wrong.encode()}).status_code == 401


def test_a_browser_hands_the_token_over_once(open_client: TestClient) -> None:
    assert open_client.post("/login", data={"token": "something else"}).status_code == 401
    assert open_client.get("/").status_code == 303
    answer = open_client.post("/login", data={"token": TOKEN})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    assert open_client.get("/").status_code == 200


def test_the_token_itself_is_no_cookie_and_no_part_of_an_address(open_client: TestClient) -> None:
    assert open_client.get(f"/?token={TOKEN}").status_code == 303
    open_client.cookies.set(COOKIE, TOKEN)
    assert open_client.get("/").status_code == 303


def test_a_form_too_long_to_be_a_token_is_refused(open_client: TestClient) -> None:
    assert open_client.post("/login", content=b"token=" + b"x" * 100_000).status_code == 401


def test_where_no_token_is_needed_none_is_taken(client: TestClient) -> None:
    assert client.post("/login", data={"token": ""}).status_code == 401


def test_what_a_browser_keeps_is_of_no_use_with_another_token() -> None:
    assert pass_of("one-token-of-many") != pass_of("another-token-of-many")


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x", False)]
)
def test_only_this_machine_reaches_a_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_header_that_names_no_host_gives_none() -> None:
    assert host_of("name:8x") == ""
    assert host_of("[fe80::1]:80") == "fe80::1"


def test_an_answer_may_be_stricter_or_looser_by_itself() -> None:
    app = Guard(PlainTextResponse("x", headers={"Content-Security-Policy": "sandbox"}))
    headers = TestClient(app, base_url="http://localhost").get("/").headers
    assert headers.get_list("content-security-policy") == ["sandbox"]
