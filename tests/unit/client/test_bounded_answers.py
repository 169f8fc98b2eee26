"""Answers without an end, and such as unfold, are not read."""

from __future__ import annotations

import gzip

import httpx
import pytest

from chorister.client import bounded_answers
from chorister.client.bounded_answers import bound_answers


def _get(monkeypatch, parts, headers=()):
    monkeypatch.setattr(bounded_answers, "MAX_ANSWER_BYTES", 1000)
    taken = []

    def body():
        for part in parts:
            taken.append(part)
            yield part

    transport = httpx.MockTransport(
        lambda request: httpx.Response(200, headers=dict(headers), content=body())
    )
    with httpx.Client(transport=transport) as client:
        bound_answers(client)
        try:
            return client.get("http://127.0.0.1/").content, taken
        except httpx.RemoteProtocolError:
            return None, taken


def test_what_is_short_enough_is_read_whole(monkeypatch):
    assert _get(monkeypatch, [b"x" * 500] * 2)[0] == b"x" * 1000


def test_what_is_too_long_is_not_read_to_its_end(monkeypatch):
    found, taken = _get(monkeypatch, [b"x" * 500] * 100)
    assert found is None
    assert len(taken) == 3


@pytest.mark.parametrize("kind", ["gzip", "deflate", "br"])
def test_what_unfolds_is_not_read(monkeypatch, kind):
    found, taken = _get(
        monkeypatch, [gzip.compress(b"x" * 10**6)], [("content-encoding", kind)]
    )  # fmt: skip
    assert (found, taken) == (None, [])
