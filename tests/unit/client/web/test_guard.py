"""What another site, another user of the machine or a stale page sends is refused, each by name."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from chorister.client.web.guard import HEADERS, MOST_SESSIONS, POLICY, Guard, Sessions
from chorister.shared.randomness import SystemRandomness

PORT = 8123
ADDRESS = f"http://127.0.0.1:{PORT}"


class Door:
    """A guarded application that says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.token = ""
        self.sessions = Sessions(SystemRandomness())
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=["GET", "POST"])])
        self._guard = Guard(app, self.sessions, PORT)

    def browser(self) -> TestClient:
        return TestClient(self._guard, base_url=ADDRESS, follow_redirects=False)

    def enter(self) -> TestClient:
        """A browser that opened the link and read the page."""
        found = self.browser()
        link = f"/open?token={self.sessions.link}"
        assert found.get(link).status_code == 303
        assert found.get("/").status_code == 200
        return found

    async def _answer(self, request: Request) -> Response:
        self.asked.append(f"{request.method} {request.url.path}")
        self.token = request.state.token
        return PlainTextResponse("inside")


@pytest.fixture
def door() -> Door:
    return Door()


def post(browser: TestClient, token: str | None, **headers: str | None) -> Response:
    wanted: dict[str, str | None] = {"origin": ADDRESS, "x-chorister-token": token, **headers}
    sent = {name: value.encode() for name, value in wanted.items() if value is not None}
    found: Response = browser.post("/do/something", headers=sent, json={})  # type: ignore[assignment]
    return found


def test_without_the_link_nothing_is_seen(door: Door) -> None:
    browser = door.browser()
    for path in ("/", "/state", "/static/main.js", "/receipt/consent", "/nothing"):
        found = browser.get(path)
        assert found.status_code == 403
        assert "Open the link" in found.json()["error"]["advice"]
    assert door.asked == []


def test_a_link_lets_one_browser_in_once(door: Door) -> None:
    link = door.sessions.link
    found = door.browser().get(f"/open?token={link}")
    assert (found.status_code, found.headers["location"]) == (303, "/")
    cookie = found.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "domain" not in cookie
    again = door.browser().get(f"/open?token={link}")
    assert again.status_code == 403
    assert "used before" in again.text
    assert "set-cookie" not in again.headers
    assert door.sessions.link != link


@pytest.mark.parametrize("token", ["", "0" * 64, "x", "é"])
def test_a_guessed_link_lets_nobody_in(door: Door, token: str) -> None:
    link = door.sessions.link
    assert door.browser().get("/open", params={"token": token}).status_code == 403
    assert door.sessions.link == link, "a wrong guess uses nothing up"


def test_a_link_is_not_posted_to(door: Door) -> None:
    found = door.browser().post(f"/open?token={door.sessions.link}", headers={"origin": ADDRESS})
    assert found.status_code == 405
    assert "set-cookie" not in found.headers


@pytest.mark.parametrize(
    "host",
    ["localhost:8123", "evil.example:8123", "127.0.0.1", "127.0.0.1:8124", "127.0.0.1.evil:8123"],
)
def test_another_name_for_this_machine_is_refused(door: Door, host: str) -> None:
    browser = door.enter()
    before = list(door.asked)
    found = browser.get("/state", headers={"host": host})
    assert found.status_code == 421
    assert "under no other name" in found.json()["error"]["rule"]
    # Nor does it use a link up, or get a cookie.
    link = door.sessions.link
    found = door.browser().get(f"/open?token={link}", headers={"host": host})
    assert found.status_code == 421
    assert door.sessions.link == link
    assert door.asked == before


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "https://127.0.0.1:8123", "http://127.0.0.1"]
)
def test_what_another_site_posts_is_refused(door: Door, origin: str | None) -> None:
    browser = door.enter()
    found = post(browser, door.token, origin=origin)
    assert found.status_code == 403
    assert "another Origin" in found.json()["error"]["found"]  # type: ignore[attr-defined]
    assert "POST /do/something" not in door.asked


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_site_reads_is_refused(door: Door, site: str) -> None:
    browser = door.enter()
    found = browser.get("/sound/1", headers={"sec-fetch-site": site})
    assert found.status_code == 403
    assert browser.get("/sound/1", headers={"sec-fetch-site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("token", [None, "", "0" * 64, "ü"])
def test_a_wrong_token_changes_nothing(door: Door, token: str | None) -> None:
    browser = door.enter()
    found = post(browser, token)
    assert found.status_code == 403
    assert "own token" in found.json()["error"]["rule"]  # type: ignore[attr-defined]
    assert post(browser, door.token).status_code == 200


def test_one_browsers_token_is_not_anothers(door: Door) -> None:
    first = door.enter()
    of_first = door.token
    second = door.enter()
    assert post(second, of_first).status_code == 403
    assert post(first, of_first).status_code == 200


def test_a_cookie_alone_or_a_token_alone_opens_nothing(door: Door) -> None:
    door.enter()
    stranger = door.browser()
    assert post(stranger, door.token).status_code == 403
    stranger.cookies.set(f"chorister-{PORT}", "0" * 64)
    assert post(stranger, door.token).status_code == 403


def test_every_answer_carries_the_headers(door: Door) -> None:
    browser = door.enter()
    for found in (
        browser.get("/"),
        door.browser().get("/"),
        browser.get("/", headers={"host": "x"}),
    ):
        for name, value in HEADERS.items():
            assert found.headers[name] == value
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    assert HEADERS["cache-control"] == "no-store"


def test_old_sessions_make_room(door: Door) -> None:
    first = door.enter()
    for _ in range(MOST_SESSIONS):
        door.enter()
    assert first.get("/").status_code == 403


def test_no_secret_is_in_a_repr(door: Door) -> None:
    door.enter()
    assert door.sessions.link not in repr(door.sessions)


def test_an_answer_that_the_servers_end_cuts_off_is_no_defect() -> None:
    import asyncio

    async def cut_off(scope: object, receive: object, send: object) -> None:
        raise asyncio.CancelledError

    sessions = Sessions(SystemRandomness())
    guard = Guard(cut_off, sessions, PORT)
    session = sessions.enter(sessions.link)
    scope = {
        "type": "http", "method": "GET", "path": "/budget", "query_string": b"", "scheme": "http",
        "headers": [(b"host", f"127.0.0.1:{PORT}".encode()),
                    (b"cookie", f"chorister-{PORT}={session}".encode())],
    }  # fmt: skip

    async def nothing(*_: object) -> dict[str, object]:
        return {}

    asyncio.run(guard(scope, nothing, nothing))  # type: ignore[arg-type]


def test_a_defect_is_shown_on_the_terminal_and_not_in_the_browser(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    async def break_down(request: Request) -> Response:
        raise ZeroDivisionError("what only the terminal sees")

    app = Starlette(routes=[Route("/{path:path}", break_down)])
    browser = TestClient(
        Guard(app, door.sessions, PORT), base_url=ADDRESS, raise_server_exceptions=False
    )
    browser.get(f"/open?token={door.sessions.link}", follow_redirects=False)
    found = browser.get("/state")
    assert found.status_code == 500
    assert "only the terminal" not in found.text
    assert "what only the terminal sees" in capsys.readouterr().err
