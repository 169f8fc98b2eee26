"""A page without a browser: what the scripts of the page would send, and what they get."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from chorister.client.web.guard import Guard, Sessions
from chorister.client.web.routes import build
from chorister.client.web.studio import Place, Studio
from chorister.shared.randomness import SystemRandomness
from chorister.shared.types import FloatArray

PORT = 8123
ADDRESS = f"http://127.0.0.1:{PORT}"
PASSPHRASE = "correct horse"
TERMS = {
    "name": "Anna Miller",
    "controller": "The Choir",
    "purposes": ["training", "conversion"],
    "locale": "en",
    "jurisdiction": "EU",
    "days": 365,
}


class Page:
    """One browser that was let in."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self._sessions = Sessions(SystemRandomness())
        self._app = Guard(build(studio), self._sessions, PORT)
        self.browser = self.new_browser()
        self.token = self._token(self.browser)

    def new_browser(self) -> TestClient:
        browser = TestClient(self._app, base_url=ADDRESS, raise_server_exceptions=True)
        browser.get(f"/open?token={self._sessions.link}")
        return browser

    def _token(self, browser: TestClient) -> str:
        return browser.get("/").text.partition('chorister-token" content="')[2][:64]

    def headers(self) -> dict[str, str]:
        return {"origin": ADDRESS, "x-chorister-token": self.token}

    def do(self, path: str, form: Any = None, *, expect: int = 200) -> dict[str, Any]:
        found = self.browser.post(f"/do/{path}", json=form or {}, headers=self.headers())
        assert found.status_code == expect, found.text
        plain: dict[str, Any] = found.json()
        return plain

    def upload(self, path: str, data: bytes, *, expect: int = 200) -> dict[str, Any]:
        headers = self.headers() | {"content-type": "audio/wav"}
        found = self.browser.post(f"/do/{path}", content=data, headers=headers)
        assert found.status_code == expect, found.text
        plain: dict[str, Any] = found.json()
        return plain

    def get(self, path: str, *, expect: int = 200) -> dict[str, Any]:
        found = self.browser.get(path)
        assert found.status_code == expect, found.text
        plain: dict[str, Any] = found.json()
        return plain

    def state(self) -> dict[str, Any]:
        return self.get("/state")


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def page(tmp_path: Path, quick_vault: None, clock: Clock) -> Iterator[Page]:
    studio = Studio(Place(folder=tmp_path / "vault", voices=tmp_path / "voices"), clock=clock)
    yield Page(studio)
    studio.stop()


@pytest.fixture
def opened(page: Page) -> Page:
    page.do("create", {"passphrase": PASSPHRASE, "again": PASSPHRASE})
    return page


def wav(samples: FloatArray, rate_hz: int = 48_000) -> bytes:
    """What the page sends: 32-bit floats at the sound card's rate."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="WAV", subtype="FLOAT")
    return file.getvalue()


def speech_at_48_khz(speech: Any, seconds: float, seed: int = 0) -> FloatArray:
    import soxr

    found: FloatArray = soxr.resample(speech(seconds, seed), 16_000, 48_000)
    return found + np.float32(1e-4) * np.random.default_rng(seed).standard_normal(
        len(found), dtype=np.float32
    )
