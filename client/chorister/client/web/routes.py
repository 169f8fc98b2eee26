"""The page's addresses. Each reads its input strictly, calls one function, and says how it went."""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import soundfile
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from chorister.client.vault_index import VaultError
from chorister.client.web import enrolling, papers, voices
from chorister.client.web.guard import refuse
from chorister.client.web.jobs import Busy, Job
from chorister.client.web.studio import Studio
from chorister.shared.errors import BadLedger, ChoristerError, ConsentRefused, UsageError
from chorister.shared.page import STYLE
from chorister.shared.settings import Settings
from chorister.shared.types import SAMPLE_RATE_HZ, Recording

MOST_JSON_BYTES = 16_384
# 90 s of 32-bit samples at 48 kHz are 17 MB; what is to be converted may be an hour of FLAC.
MOST_TAKE_BYTES = 24 * 2**20
MOST_SOURCE_BYTES = 200 * 2**20
AUDIO_TYPES = frozenset(
    {"audio/wav", "audio/flac", "audio/ogg", "audio/mpeg", "application/octet-stream"}
)
_FOLDER = Path(__file__).with_name("static")
_STATIC = {
    "page.css": "text/css", "studio.css": "text/css", "icon.svg": "image/svg+xml",
    **{
        f"{name}.js": "text/javascript"
        for name in (
            "main", "dom", "server", "microphone", "tap", "opening", "enrol", "statement",
            "voices", "papers", "wave",
        )
    },
}  # fmt: skip
_TOKEN_MARK = "TOKEN-OF-THIS-SESSION"  # noqa: S105 (a place in a page)
_Form = TypeVar("_Form", bound=Settings)


class Key(Settings):
    """A passphrase, and the same once more for a new vault."""

    passphrase: str
    again: str = ""


class JobName(Settings):
    """A job."""

    job: int


class TooLarge(ChoristerError):
    """A request holds more than is taken."""


class WrongKind(ChoristerError):
    """A request's content is of another kind than it has to be."""


def build(studio: Studio) -> Starlette:
    """Return the application; `guard.Guard` belongs around it.

    Args:
        studio: what it works on.
    """
    actions: list[tuple[str, type[Settings], Callable[[Studio, Any], Any]]] = [
        ("open", Key, _open),
        ("create", Key, _create),
        ("lock", enrolling.Nothing, _lock),
        ("enrol/begin", enrolling.Terms, enrolling.begin),
        ("enrol/discard", enrolling.Nothing, enrolling.discard),
        ("enrol/challenge", enrolling.Nothing, enrolling.challenge),
        ("enrol/sign", enrolling.Answer, enrolling.sign),
        ("voices/make", voices.NewVoice, voices.make),
        ("voices/convert", voices.Wish, voices.convert),
        ("voices/remove", voices.Named, voices.remove),
        ("consent/narrow", papers.Fewer, papers.narrow),
        ("consent/renew", papers.Longer, papers.renew),
        ("consent/withdraw", papers.End, papers.withdraw),
        ("jobs/cancel", JobName, _cancel),
    ]
    routes = [
        Route("/", _page, methods=["GET"]),
        Route("/static/{name}", _static, methods=["GET"]),
        Route("/state", _reader(studio, lambda request: _state(studio)), methods=["GET"]),
        Route("/jobs", _reader(studio, lambda request: _jobs(studio)), methods=["GET"]),
        Route("/ledger", _long_reader(lambda: papers.ledger(studio)), methods=["GET"]),
        Route("/budget", _long_reader(lambda: papers.budget(studio)), methods=["GET"]),
        Route("/take/{which}", _take_sound(studio), methods=["GET"]),
        Route("/sound/{sound}", _sound(studio), methods=["GET"]),
        Route("/receipt/{name}", _receipt(studio), methods=["GET"]),
        Route("/receipt/{name}/signed", _receipt_json(studio), methods=["GET"]),
        Route("/do/enrol/take/{number:int}", _upload(studio, MOST_TAKE_BYTES, _take),
              methods=["POST"]),
        Route("/do/enrol/statement/{challenge}", _upload(studio, MOST_TAKE_BYTES, _statement),
              methods=["POST"]),
        Route("/do/voices/source", _upload(studio, MOST_SOURCE_BYTES, _source), methods=["POST"]),
        *(Route(f"/do/{path}", _action(studio, form, act), methods=["POST"])
          for path, form, act in actions),
    ]  # fmt: skip
    return Starlette(
        routes=routes,
        exception_handlers={ChoristerError: _explain, HTTPException: _unknown},
    )


def _action(
    studio: Studio, form: type[_Form], act: Callable[[Studio, _Form], Any]
) -> Callable[[Request], Awaitable[Response]]:
    """An address that takes a form as JSON and changes something."""

    async def answer(request: Request) -> Response:
        body = await _body(request, MOST_JSON_BYTES, frozenset({"application/json"}))
        try:
            values = json.loads(body)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise WrongKind("A form is sent as a JSON object.", "something else", "Use the page.")
        return await _changed(studio, lambda: act(studio, form.parse(values, "the form")))

    return answer


def _upload(
    studio: Studio, most_bytes: int, act: Callable[[Studio, Request, bytes], Any]
) -> Callable[[Request], Awaitable[Response]]:
    """An address that takes sound."""

    async def answer(request: Request) -> Response:
        body = await _body(request, most_bytes, AUDIO_TYPES)
        return await _changed(studio, lambda: act(studio, request, body))

    return answer


async def _changed(studio: Studio, act: Callable[[], Any]) -> Response:
    def locked() -> Any:
        with studio.lock:
            studio.lock_if_idle()
            studio.touch()
            return act()

    found = await run_in_threadpool(locked)
    if isinstance(found, Job):
        return JSONResponse({"job": found.id}, HTTPStatus.ACCEPTED)
    return JSONResponse(found)


def _reader(
    studio: Studio, read: Callable[[Request], Any]
) -> Callable[[Request], Awaitable[Response]]:
    """An address that shows something; it does not keep the vault open."""

    async def answer(request: Request) -> Response:
        def locked() -> Any:
            with studio.lock:
                studio.lock_if_idle()
                return read(request)

        return JSONResponse(await run_in_threadpool(locked))

    return answer


def _long_reader(read: Callable[[], Any]) -> Callable[[Request], Awaitable[Response]]:
    """An address that shows what takes a while: nobody else waits for it."""

    async def answer(request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(read))

    return answer


async def _body(request: Request, most_bytes: int, kinds: frozenset[str]) -> bytes:
    """Return what a request holds, or refuse it before more than that was read."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise WrongKind(
            f"This address takes {', '.join(sorted(kinds))}.", repr(kind)[:60], "Use the page."
        )
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > most_bytes:
        raise _too_large(most_bytes)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            raise _too_large(most_bytes)
        parts.append(part)
    return b"".join(parts)


def _too_large(most_bytes: int) -> TooLarge:
    return TooLarge(
        f"A request here holds at most {most_bytes // 1024} KiB.", "more", "Send less at once."
    )


def _open(studio: Studio, key: Key) -> dict[str, Any]:
    studio.open(key.passphrase)
    return {}


def _create(studio: Studio, key: Key) -> dict[str, Any]:
    studio.create(key.passphrase, key.again)
    return {}


def _lock(studio: Studio, nothing: enrolling.Nothing) -> dict[str, Any]:
    studio.close()
    return {}


def _cancel(studio: Studio, named: JobName) -> dict[str, Any]:
    job = studio.worker.find(named.job)
    if job is None:
        raise UsageError("A job that waits or runs can be cancelled.", "none", "Reload the page.")
    job.cancel.set()
    return {}


def _take(studio: Studio, request: Request, data: bytes) -> dict[str, Any]:
    return enrolling.take(studio, int(request.path_params["number"]), data)


def _statement(studio: Studio, request: Request, data: bytes) -> dict[str, Any]:
    return enrolling.statement(studio, str(request.path_params["challenge"]), data)


def _source(studio: Studio, request: Request, data: bytes) -> dict[str, Any]:
    studio.home  # noqa: B018 (it must be open)
    made = studio.sounds.add_source(data, request.query_params.get("name", ""))
    return {"sound": made.id}


def _state(studio: Studio) -> dict[str, Any]:
    state = studio.state()
    plain: dict[str, Any] = {
        "vault": state,
        "folder": str(studio.place.folder),
        "needs_passphrase": studio.needs_passphrase() if state != "withdrawn" else False,
        "locked_by_time": studio.locked_by_time,
        "idle_minutes": round(studio.place.idle_s / 60.0, 1),
        "choices": enrolling.choices(),
        "receipts": papers.receipts(studio),
        "withdrawn": papers.withdrawn(studio),
        "jobs": _jobs(studio)["jobs"],
    }
    if state == "open":
        plain |= {
            "device": studio.home.device.name,
            "consent": papers.consent(studio),
            "draft": enrolling.view(studio),
            "studio": voices.view(studio),
        }
    return plain


def _jobs(studio: Studio) -> dict[str, Any]:
    return {
        "jobs": [
            {
                "id": job.id,
                "kind": job.kind,
                "title": job.title,
                "state": "cancelling" if job.active and job.cancel.is_set() else job.state,
                "done": job.done,
                "total": job.total,
                "result": job.result,
                "error": None if job.error is None else _parts(job.error),
            }
            for job in studio.worker.jobs()
        ]
    }


async def _page(request: Request) -> Response:
    text = _asset("page.html").replace(_TOKEN_MARK, request.state.token)
    return Response(text, media_type="text/html")


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    kind = _STATIC.get(name)
    if kind is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return Response(STYLE if name == "page.css" else _asset(name), media_type=kind)


def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _take_sound(studio: Studio) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        with studio.lock:
            found = enrolling.spoken(studio, request.path_params["which"])
        return Response(_wav(found), media_type="audio/wav")

    return answer


def _sound(studio: Studio) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        with studio.lock:
            found = studio.sounds.find(request.path_params["sound"])
        kind = "audio/wav" if found.of else "application/octet-stream"
        return FileResponse(found.path, media_type=kind, filename=_file_name(found.name, found.of))

    return answer


def _receipt(studio: Studio) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        page, policy = papers.receipt_page(studio, request.path_params["name"])
        headers = {"content-security-policy": policy}
        return Response(page, media_type="text/html", headers=headers)

    return answer


def _receipt_json(studio: Studio) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        text = papers.receipt_json(studio, request.path_params["name"])
        return Response(text, media_type="application/json")

    return answer


def _file_name(name: str, of: str) -> str:
    return f"{name}.wav" if of else name


def _wav(recording: Recording) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, recording.samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return file.getvalue()


async def _explain(request: Request, error: Exception) -> Response:
    status = HTTPStatus.CONFLICT
    if isinstance(error, TooLarge):
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    elif isinstance(error, WrongKind):
        status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    elif isinstance(error, UsageError):
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    elif isinstance(error, ConsentRefused | VaultError):
        status = HTTPStatus.FORBIDDEN
    elif isinstance(error, Busy):
        status = HTTPStatus.TOO_MANY_REQUESTS
    elif isinstance(error, BadLedger):
        status = HTTPStatus.CONFLICT
    if not isinstance(error, ChoristerError):
        raise error
    return JSONResponse({"error": _parts(error)}, status)


async def _unknown(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND
    found = f"{request.method} {request.url.path}"[:100]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return refuse(status, "Each address has its method.", found, "Use the page.")
    return refuse(status, "This server has the page's addresses alone.", found, "Use the page.")


def _parts(error: ChoristerError) -> dict[str, str]:
    return {"rule": error.rule, "found": error.found, "advice": error.advice}
