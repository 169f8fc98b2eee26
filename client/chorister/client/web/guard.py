"""What every request passes before anything else sees it: host, session, origin, token.

The page is for one person at this machine. Other users of the machine and every web site that the
person has open in the same browser can send requests to this port, so each one has to show:

- the address in `Host`, to the digit: a name that was made to point here is refused (DNS rebinding)
- a session cookie, which a link with a random token gives once; no other site can read or send it
- for whatever changes something: this page's own `Origin`, and a token that only this page holds
"""

from __future__ import annotations

import asyncio
import hmac
import traceback
from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chorister.shared.console import complain
from chorister.shared.randomness import Randomness

HOST = "127.0.0.1"
LINK = "/open"
TOKEN_HEADER = "x-chorister-token"  # noqa: S105 (the name of a header)
MOST_SESSIONS = 8
_TOKEN_BYTES = 32
_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
HEADERS: Mapping[str, str] = {
    "cache-control": "no-store",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Sessions:
    """Who was let in. A link lets one browser in, once; then there is another link.

    Args:
        randomness: of links, sessions and tokens.
    """

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness
        self._link = self._draw()
        self._tokens: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Sessions({len(self._tokens)})"

    @property
    def link(self) -> str:
        """The token that the next browser is let in by."""
        return self._link

    def enter(self, link: str) -> str | None:
        """Return a new session for a link's token, None for another; the link is used up."""
        if not _same(link, self._link):
            return None
        self._link = self._draw()
        session = self._draw()
        while len(self._tokens) >= MOST_SESSIONS:
            self._tokens.pop(next(iter(self._tokens)))
        self._tokens[session] = self._draw()
        return session

    def token(self, session: str) -> str | None:
        """Return the token that changes are asked with in a session, None if there is no such."""
        return next((t for known, t in self._tokens.items() if _same(session, known)), None)

    def _draw(self) -> str:
        return self._randomness.bytes(_TOKEN_BYTES).hex()


class Guard:
    """The outermost layer of the page's server.

    Args:
        app: what is behind it; `request.state.token` is the session's token there.
        sessions: who was let in.
        port: that the server listens at.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions, port: int) -> None:
        self._app = app
        self._sessions = sessions
        self._address = f"{HOST}:{port}"
        # Cookies know no ports: two servers on one machine must not take each other's.
        self._cookie = f"chorister-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return  # no websocket is served; a server without lifespan sends nothing else

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in HEADERS.items()
                        if name.encode() not in own
                    ),
                ]
            await send(message)

        request = Request(scope)
        answer = self._refusal(request)
        if answer is None and request.url.path == LINK:
            answer = self._enter(request)
        if answer is None:
            answer = self._without_session(request)
        try:
            await (answer or self._app)(scope, receive, send_guarded)
        except asyncio.CancelledError:
            return  # the server ends, and nobody waits for this answer any more
        except Exception:
            complain(f"a request failed by a defect; please report it:\n{traceback.format_exc()}")
            raise

    def _refusal(self, request: Request) -> Response | None:
        """Refuse what no page of this server would send, whoever is logged in."""
        if request.headers.getlist("host") != [self._address]:
            return refuse(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"This page is served at http://{self._address} and under no other name.",
                "another name in the request's Host",
                "Open the link that the terminal shows.",
            )
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return _foreign("a request that another site began")
        if request.method in _CHANGES and request.headers.getlist("origin") != [
            f"http://{self._address}"
        ]:
            return _foreign("another Origin, or none")
        return None

    def _enter(self, request: Request) -> Response:
        if request.method != "GET":
            return refuse(
                HTTPStatus.METHOD_NOT_ALLOWED, "A link is opened.", request.method, "Use GET."
            )
        session = self._sessions.enter(request.query_params.get("token", ""))
        if session is None:
            return PlainTextResponse(
                "This link was used before, or is not the newest.\n"
                "The terminal in which `chorister ui` runs shows the one that works.\n",
                HTTPStatus.FORBIDDEN,
            )
        answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        answer.set_cookie(self._cookie, session, path="/", httponly=True, samesite="strict")
        return answer

    def _without_session(self, request: Request) -> Response | None:
        token = self._sessions.token(request.cookies.get(self._cookie, ""))
        if token is None:
            return refuse(
                HTTPStatus.FORBIDDEN,
                "Only the browser that opened the terminal's link sees this page.",
                "no session, or one of a server that has ended",
                "Open the link that the terminal shows.",
            )
        if request.method in _CHANGES:
            sent = request.headers.getlist(TOKEN_HEADER)
            if len(sent) != 1 or not _same(sent[0], token):
                return refuse(
                    HTTPStatus.FORBIDDEN,
                    "What changes something carries this page's own token.",
                    "another token, or none",
                    "Reload the page.",
                )
        request.state.token = token
        return None


def refuse(status: int, rule: str, found: str, advice: str) -> Response:
    """Return a refusal in the three parts of every error of Chorister."""
    return JSONResponse({"error": {"rule": rule, "found": found, "advice": advice}}, status)


def _foreign(found: str) -> Response:
    return refuse(
        HTTPStatus.FORBIDDEN, "Requests come from this page alone.", found, "Use the page itself."
    )


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
