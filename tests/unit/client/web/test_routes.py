"""Bad input over HTTP, each refused with a status and a reason; and what one page may do."""

from __future__ import annotations

import json
import math
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from chorister.client.budget_cli import Seen
from chorister.client.home import Home
from chorister.client.own_voice import give_own_consent
from chorister.client.web import papers, routes
from chorister.shared.privacy.crosscheck import JournalFacts
from chorister.shared.types import FloatArray

from .conftest import ADDRESS, PASSPHRASE, TERMS, speech_at_48_khz, wav

if TYPE_CHECKING:
    from .conftest import Clock, Page

    Speech = Callable[[float, int], FloatArray]


def reason(found: dict[str, Any]) -> str:
    return " ".join(found["error"].values())


def test_a_vault_is_made_locked_and_opened(page: Page) -> None:
    assert page.state()["vault"] == "absent"
    page.do("create", {"passphrase": PASSPHRASE, "again": PASSPHRASE})
    assert page.state()["vault"] == "open"
    page.do("lock")
    assert page.state()["vault"] == "locked"
    assert "consent" not in page.state()
    page.do("open", {"passphrase": PASSPHRASE})
    assert page.state()["vault"] == "open"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"passphrase": "short", "again": "short"}, "8 characters or more"),
        ({"passphrase": PASSPHRASE, "again": PASSPHRASE + "x"}, "Both times the same"),
        ({"passphrase": PASSPHRASE}, "Both times the same"),
        ({"again": PASSPHRASE}, "passphrase"),
        ({"passphrase": 12345678, "again": 12345678}, "passphrase"),
        ({"passphrase": PASSPHRASE, "again": PASSPHRASE, "folder": "/tmp"}, "folder"),
    ],
)
def test_a_vault_is_not_made_by_a_bad_form(page: Page, form: dict[str, Any], said: str) -> None:
    assert said in reason(page.do("create", form, expect=422))
    assert page.state()["vault"] == "absent"


def test_a_wrong_passphrase_is_refused_and_waits(opened: Page) -> None:
    opened.do("lock")
    for _ in range(3):
        assert "The passphrase opens the vault" in reason(
            opened.do("open", {"passphrase": "wrong horse"}, expect=403)
        )
    assert "one waits before the next" in reason(
        opened.do("open", {"passphrase": PASSPHRASE}, expect=403)
    )
    assert opened.state()["vault"] == "locked"


def test_a_passphrase_is_said_nowhere(
    page: Page, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    secret = "a phrase that nobody sees"
    page.do("create", {"passphrase": secret, "again": secret})
    page.do("lock")
    page.do("open", {"passphrase": secret + "!"}, expect=403)
    said = capfd.readouterr()
    assert secret not in said.out + said.err + caplog.text + json.dumps(page.state())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'"x"', b"\xff", b"[" * 9000, b'{"passphrase":NaN}']
)
def test_what_is_no_form_is_refused(page: Page, body: bytes) -> None:
    headers = page.headers() | {"content-type": "application/json"}
    found = page.browser.post("/do/create", content=body, headers=headers)
    assert found.status_code in (415, 422)
    assert found.json()["error"]["rule"]


def test_another_kind_of_content_is_refused(page: Page) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        headers = page.headers() | {"content-type": kind}
        found = page.browser.post("/do/create", content=b"{}", headers=headers)
        assert found.status_code == 415
        assert "application/json" in reason(found.json())


def test_too_much_is_refused_before_it_is_read(opened: Page, monkeypatch: Any) -> None:
    big = {"passphrase": "x" * routes.MOST_JSON_BYTES}
    assert "at most 16 KiB" in reason(opened.do("open", big, expect=413))
    opened.do("enrol/begin", TERMS)
    headers = opened.headers() | {"content-type": "audio/wav"}
    announced = opened.browser.post(
        "/do/enrol/take/0", content=b"RIFF",
        headers=headers | {"content-length": str(routes.MOST_TAKE_BYTES + 1)},
    )  # fmt: skip
    assert announced.status_code == 413

    read = 0

    def endless() -> Any:
        nonlocal read
        while read < 4 * routes.MOST_TAKE_BYTES:
            read += 2**20
            yield bytes(2**20)

    unannounced = opened.browser.post("/do/enrol/take/0", content=endless(), headers=headers)
    assert unannounced.status_code == 413
    assert opened.state()["draft"]["takes"] == {}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_wrong_method_is_refused(opened: Page, method: str) -> None:
    found = opened.browser.request(method, "/do/lock", headers=opened.headers())
    assert found.status_code == 405
    assert opened.browser.post("/state", headers=opened.headers(), json={}).status_code == 405
    assert opened.state()["vault"] == "open"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../routes.py", "/static/..%2froutes.py", "/static/%2e%2e/studio.py",
        "/static//etc/passwd", "/static/page.html", "/receipt/../vault.json", "/nothing",
        "/receipt/..%2fvault", "/.git/config",
    ],
)  # fmt: skip
def test_a_path_leads_nowhere_else(opened: Page, path: str) -> None:
    found = opened.browser.get(path)
    assert found.status_code in (404, 422)
    assert found.json()["error"]["rule"]


@pytest.mark.parametrize(
    "which", ["..%2f..%2fetc%2fpasswd", "1", "statement", "-1", "²", "x" * 500]
)
def test_no_sound_of_another_name_is_played(opened: Page, which: str) -> None:
    opened.do("enrol/begin", TERMS)
    for kind in ("sound", "take"):
        found = opened.browser.get(f"/{kind}/{which}")
        assert found.status_code == (404 if "%2f" in which else 422)
        assert found.json()["error"]["rule"]


def test_every_file_of_the_page_is_served_and_comes_from_here(page: Page) -> None:
    folder = Path(routes.__file__).with_name("static")
    text = page.browser.get("/").text
    assert page.token in text
    assert len(page.token) == 64
    for path in sorted(folder.iterdir()):
        if path.name != "page.html":
            assert page.browser.get(f"/static/{path.name}").status_code == 200
        content = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http" not in content, f"{path.name} names another address"
        assert "innerHTML" not in content
        assert "eval(" not in content
    assert "<style" not in text
    assert "style=" not in text
    assert "onclick=" not in text
    assert page.browser.get("/static/page.css").text.startswith(":root")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "named by at most 80 printable"),
        ({"name": "A\nB"}, "named by at most 80 printable"),
        ({"name": "x" * 300}, "name"),
        ({"controller": " "}, "named by at most 80 printable"),
        ({"purposes": []}, "names purposes"),
        ({"purposes": ["everything"]}, "purposes"),
        ({"locale": "xx"}, "statement is there in some languages"),
        ({"locale": "de"}, "none for the locale 'de'"),
        ({"days": 0}, "days"),
        ({"days": 1.5}, "days"),
        ({"jurisdiction": " "}, "whose law"),
        ({"consent": True}, "consent"),
    ],
)
def test_terms_that_cannot_be_said_are_refused(
    opened: Page, change: dict[str, Any], said: str
) -> None:
    assert said in reason(opened.do("enrol/begin", TERMS | change, expect=422))
    assert opened.state()["draft"] is None


def test_a_take_has_its_figures_and_may_be_taken_again(opened: Page, speech: Speech) -> None:
    opened.do("enrol/begin", TERMS)
    opened.upload("enrol/take/0", wav(speech_at_48_khz(speech, 4.0)))
    draft = opened.state()["draft"]
    assert draft["takes"]["0"]["seconds"] == pytest.approx(4.0, abs=0.01)
    assert {one["name"] for one in draft["takes"]["0"]["checks"]} == {
        "signal to noise", "clipped", "bandwidth", "speech share",
    }  # fmt: skip
    assert not draft["speech"]["passed"]
    loud = np.clip(40.0 * speech_at_48_khz(speech, 3.0), -1.0, 1.0)
    assert "heavily clipped" in reason(opened.upload("enrol/take/0", wav(loud), expect=422))
    assert opened.state()["draft"]["takes"]["0"]["seconds"] == pytest.approx(4.0, abs=0.01)
    opened.upload("enrol/take/0", wav(speech_at_48_khz(speech, 5.0)))
    assert opened.state()["draft"]["takes"]["0"]["seconds"] == pytest.approx(5.0, abs=0.01)
    played = opened.browser.get("/take/0")
    assert played.headers["content-type"] == "audio/wav"
    assert played.content[:4] == b"RIFF"
    # Nothing of it is in the vault or beside it.
    assert set(opened.studio.home.vault.names()) == {"identity"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:30], "readable audio"),
        (lambda data: b"", "zero bytes"),
        (lambda data: b"not a sound" * 99, "readable audio"),
        (lambda data: data[:-4000] + struct.pack("<f", float("nan")) * 1000, "NaN or infinity"),
        (lambda data: data[:-4000] + struct.pack("<f", float("inf")) * 1000, "NaN or infinity"),
        (lambda data: wav(np.zeros(48_000, np.float32)), "silent"),
        (lambda data: wav(np.ones(4_800, np.float32)), "at least 0.3 s"),
    ],
)
def test_a_damaged_take_is_refused_with_its_reason(
    opened: Page, speech: Speech, damage: Callable[[bytes], bytes], said: str
) -> None:
    opened.do("enrol/begin", TERMS)
    data = damage(wav(speech_at_48_khz(speech, 2.0)))
    found = reason(opened.upload("enrol/take/3", data, expect=422))
    assert said in found
    assert "/proc" not in found
    assert "take 04" in found
    assert opened.state()["draft"]["takes"] == {}


def test_takes_belong_to_prompts_and_to_an_enrolment(opened: Page, speech: Speech) -> None:
    data = wav(speech_at_48_khz(speech, 2.0))
    assert "none under way" in reason(opened.upload("enrol/take/0", data, expect=422))
    opened.do("enrol/begin", TERMS)
    assert "number 99" in reason(opened.upload("enrol/take/99", data, expect=422))
    assert opened.browser.post("/do/enrol/take/-1", headers=opened.headers()).status_code == 404
    opened.upload("enrol/take/0", data)
    opened.do("enrol/discard")
    assert opened.state()["draft"] is None


def test_a_statement_answers_the_digits_that_were_shown_last(opened: Page, speech: Speech) -> None:
    opened.do("enrol/begin", TERMS)
    data = wav(speech_at_48_khz(speech, 6.0))
    assert "answers the digits" in reason(opened.upload("enrol/statement/x", data, expect=403))
    opened.do("enrol/challenge")
    first = opened.state()["draft"]["challenge"]
    assert len(first["digits"]) == 6
    assert "Anna Miller" in first["sentence"]
    assert "no statement yet" in reason(
        opened.do("enrol/sign", {"challenge": first["id"]}, expect=403)
    )
    opened.upload(f"enrol/statement/{first['id']}", data)
    assert opened.state()["draft"]["statement"]["checks"][0]["name"] == "speech"
    # Another window asks for new digits: what the first one holds answers nothing any more.
    opened.do("enrol/challenge")
    assert opened.state()["draft"]["statement"] is None
    assert opened.state()["draft"]["challenge"]["id"] != first["id"]
    for refused in (
        opened.upload(f"enrol/statement/{first['id']}", data, expect=403),
        opened.do("enrol/sign", {"challenge": first["id"]}, expect=403),
    ):
        assert "newer ones" in reason(refused)


@pytest.mark.parametrize(
    "path",
    [
        "enrol/begin",
        "enrol/challenge",
        "enrol/sign",
        "voices/make",
        "consent/narrow",
        "consent/renew",
    ],
)
def test_a_locked_vault_does_nothing(opened: Page, path: str) -> None:
    opened.do("lock")
    forms: dict[str, Any] = {
        "enrol/begin": TERMS, "enrol/sign": {"challenge": "x"}, "voices/make": {"name": "me"},
        "consent/narrow": {"purposes": ["training"]}, "consent/renew": {"days": 3},
    }  # fmt: skip
    assert "locked" in reason(opened.do(path, forms.get(path), expect=403))
    assert "locked" in reason(opened.get("/budget", expect=403))


def test_the_vault_is_locked_when_nobody_does_anything(opened: Page, clock: Clock) -> None:
    opened.do("enrol/begin", TERMS)
    clock.now_s += 800
    opened.do("enrol/begin", TERMS)
    clock.now_s += 800
    for _ in range(3):
        assert opened.state()["vault"] == "open"
    clock.now_s += 101  # looking alone does not keep it open
    state = opened.state()
    assert (state["vault"], state["locked_by_time"]) == ("locked", True)
    assert opened.studio.draft is None


def test_work_under_way_keeps_the_vault_open(opened: Page, clock: Clock) -> None:
    gate = threading.Event()
    job = opened.studio.worker.add("x", "", 1, lambda step: (gate.wait(20) and {}) or {})
    clock.now_s += 10_000
    assert opened.state()["vault"] == "open"
    gate.set()
    while job.active:
        pass
    # What it made is there to be heard: from now on idle time counts.
    assert opened.state()["vault"] == "open"
    clock.now_s += 901
    assert opened.state()["vault"] == "locked"


def test_a_reader_without_a_turn_does_not_open_what_was_locked(
    opened: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, began, gate = opened.studio, threading.Event(), threading.Event()
    reread = Home.reread

    def slowly(home: Home) -> Home:
        began.set()
        gate.wait(20)
        return reread(home)

    monkeypatch.setattr(Home, "reread", slowly)
    reader = threading.Thread(target=lambda: studio.home)
    locker = threading.Thread(target=opened.do, args=("lock",))
    reader.start()
    assert began.wait(20)
    locker.start()
    locker.join(0.5)
    gate.set()
    reader.join(20)
    locker.join(20)
    assert studio.state() == "locked"


def test_a_time_that_somebody_wrote_does_not_end_the_page(opened: Page) -> None:
    marker = opened.studio.place.folder / "withdrawn.json"
    marker.write_text(json.dumps({"at_s": 10**30}))
    assert opened.state()["vault"] == "unfinished"
    assert opened.state()["withdrawn"] == {"at": "an unknown time"}


def test_what_nothing_bounds_is_not_told_as_a_number(
    opened: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opened.studio.place.folder
    monkeypatch.setattr(papers, "budgets_of", lambda _: [folder / "ledger.jsonl"] * 2)
    seen = Seen("x", JournalFacts(), [], [])
    monkeypatch.setattr(papers, "look", lambda _: seen)
    monkeypatch.setattr(papers, "together_of", lambda _: {"delta": 1e-3, "epsilon": math.inf})
    assert opened.get("/budget")["together"] == {"delta": 1e-3, "epsilon": None}


@pytest.mark.parametrize(
    "name", ["", "../me", "/tmp/me", "me.voice", "a/b", "me\n", "..", "x" * 41, "é"]
)
def test_a_voice_is_named_not_placed(opened: Page, name: str) -> None:
    give_own_consent(opened.studio.home, plain=False)
    assert "error" in opened.do("voices/make", {"name": name}, expect=422)
    assert not opened.studio.place.voices.exists()


def test_a_voice_is_not_made_without_consent(opened: Page) -> None:
    assert "error" in opened.do("voices/make", {"name": "me"}, expect=403)


def test_a_source_is_kept_under_a_name_that_is_no_path(opened: Page, speech: Speech) -> None:
    data = wav(speech_at_48_khz(speech, 2.0))
    made = opened.upload("voices/source?name=..%2F..%2F%2Fetc%2Fp%0Aass.wav", data)
    (sound,) = opened.state()["studio"]["sounds"]
    assert (sound["id"], sound["name"]) == (made["sound"], "pass.wav")
    path = opened.studio.sounds.find(made["sound"]).path
    assert path.name == f"{made['sound']}.audio"
    assert path.parent.stat().st_mode & 0o077 == 0
    answer = opened.browser.get(f"/sound/{made['sound']}")
    assert answer.content == data
    assert answer.headers["content-disposition"].startswith("attachment")
    opened.do("voices/remove", {"sound": made["sound"]})
    assert not path.exists()
    assert "error" in opened.do("voices/remove", {"sound": made["sound"]}, expect=422)
    opened.upload("voices/source", data)
    opened.do("lock")
    assert not path.parent.exists()


def test_a_bad_source_leaves_nothing(opened: Page) -> None:
    found = opened.upload("voices/source?name=x.wav", b"no sound", expect=422)
    assert "x.wav" in reason(found)
    assert opened.state()["studio"]["sounds"] == []
    _, path = opened.studio.sounds.place(".audio")
    assert [file.name for file in path.parent.iterdir()] == [".lock"]


def test_a_disk_that_is_full_leaves_no_half_of_a_source(
    opened: Page, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        opened.studio.sounds.add_source(wav(speech_at_48_khz(speech, 2.0)), "x.wav")
    _, path = opened.studio.sounds.place(".audio")
    assert [file.name for file in path.parent.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "9"}, "sound of this sitting"),
        ({"voice": "file-9"}, "voice file is chosen"),
        ({"voice": "../../voice.onnx"}, "voice file is chosen"),
        ({"pitch_st": 99}, "pitch"),
        ({"rate": 0}, "speed"),
        ({"loudness": 1}, "loudness"),
        ({"pitch_st": "high"}, "pitch_st"),
    ],
)
def test_a_bad_conversion_is_refused(
    opened: Page, speech: Speech, change: dict[str, Any], said: str
) -> None:
    made = opened.upload("voices/source", wav(speech_at_48_khz(speech, 2.0)))
    wish = {"source": made["sound"], "voice": "file-0", **change}
    assert said in reason(opened.do("voices/convert", wish, expect=422))


def test_a_withdrawal_takes_its_word(opened: Page) -> None:
    give_own_consent(opened.studio.home, plain=False)
    for word in ("", "yes", "withdrawn", "delete"):
        assert "Nothing was done" in reason(
            opened.do("consent/withdraw", {"word": word}, expect=422)
        )
    assert opened.state()["consent"]["valid"]
    second = opened.new_browser()
    done = opened.do("consent/withdraw", {"word": " Withdraw "})
    assert done["unread"] == []
    state = opened.state()
    assert state["vault"] == "withdrawn"
    assert state["receipts"] == ["withdrawal"]
    assert second.get("/state").json()["vault"] == "withdrawn"
    page = opened.browser.get("/receipt/withdrawal")
    assert "Withdrawal receipt" in page.text
    assert "sha256-" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    signed = opened.browser.get("/receipt/withdrawal/signed").json()
    assert signed["format"].startswith("chorister withdrawal receipt")
    assert [one["kind"] for one in opened.get("/ledger")["entries"]][:2] == [
        "checkpoint", "withdrawal",
    ]  # fmt: skip
    # Once more, from the window that came late, does no harm.
    assert opened.do("consent/withdraw", {"word": "withdraw"})["items"] == 0


def test_work_under_way_has_ended_before_anything_is_destroyed(opened: Page) -> None:
    give_own_consent(opened.studio.home, plain=False)
    began, keys = threading.Event(), []

    def work(step: Callable[[int], None]) -> dict[str, Any]:
        try:
            while True:
                step(1)
                began.set()
        finally:
            time.sleep(0.3)  # it cleans up
            keys.append((opened.studio.place.folder / "vault.json").exists())

    job = opened.studio.worker.add("personalise", "", 10, work)
    assert began.wait(20)
    opened.do("consent/withdraw", {"word": "withdraw"})
    assert (job.state, keys) == ("cancelled", [True])
    assert opened.state()["vault"] == "withdrawn"


def test_a_withdrawal_beside_a_damaged_ledger_needs_no_open_vault(opened: Page) -> None:
    give_own_consent(opened.studio.home, plain=False)
    opened.do("consent/narrow", {"purposes": ["training"]})
    opened.do("lock")
    ledger = opened.studio.place.folder / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b"given", b"taken"))
    assert "error" in opened.do("open", {"passphrase": PASSPHRASE}, expect=409)
    assert opened.get("/ledger")["broken"]
    assert "error" in opened.do(
        "consent/withdraw", {"word": "withdraw", "passphrase": "x"}, expect=403
    )
    done = opened.do("consent/withdraw", {"word": "withdraw", "passphrase": PASSPHRASE})
    assert done["unread"]
    assert opened.state()["vault"] == "withdrawn"


def test_consent_is_narrowed_and_renewed_by_any_window(opened: Page) -> None:
    give_own_consent(opened.studio.home, plain=False)
    before = opened.state()["consent"]
    opened.do("consent/narrow", {"purposes": ["conversion"]})
    assert [one["name"] for one in opened.state()["consent"]["purposes"]] == ["conversion"]
    assert "error" in opened.do("consent/narrow", {"purposes": ["training"]}, expect=422)
    opened.do("consent/renew", {"days": 400})
    assert opened.state()["consent"]["sha256"] != before["sha256"]
    assert "error" in opened.do("consent/renew", {"days": 10}, expect=422)


def test_a_consent_that_a_command_changed_is_seen(opened: Page) -> None:
    from chorister.client import home as homes
    from chorister.client.consent_acts import narrow_to

    give_own_consent(opened.studio.home, plain=False)
    narrow_to(homes.open_home(opened.studio.place.folder, PASSPHRASE), ["training"])
    assert [one["name"] for one in opened.state()["consent"]["purposes"]] == ["training"]


def test_without_a_federation_nothing_is_spent(opened: Page) -> None:
    assert opened.get("/budget") == {"budgets": [], "together": None}


def test_a_budget_is_shown_in_both_units_by_the_commands_own_figures(opened: Page) -> None:
    from chorister.client.budget import DeviceBudget
    from chorister.client.budget_cli import look
    from chorister.shared.privacy.budget import Limit
    from chorister.shared.privacy.charges import segment_event
    from chorister.shared.privacy.events import SPEAKER_MECHANISM, PrivacyEvent

    home = opened.studio.home
    limit = Limit(9.0, 1e-3, lambda events: float(len(events)))
    budget = DeviceBudget(
        home.folder / "budget.jsonl", segment=limit, speaker=limit, device_id=home.device.name,
        federation="choir",
    )  # fmt: skip
    for name in ("r1", "r2"):
        budget.reserve(
            name,
            segment=segment_event(2.0, 0.1, 10),
            speaker=PrivacyEvent(SPEAKER_MECHANISM, 4.0, 1.0, 1),
        )
    budget.spend("r1")
    (found,) = opened.get("/budget")["budgets"]
    seen = look(home.folder)
    for row, shown in zip(seen.rows, found["rows"], strict=True):
        assert shown["account"] == row.account
        assert shown["spent"] == row.spent > 0
        assert shown["reserved"] == row.reserved > 0
        assert shown["left"] == row.left
    assert {row["account"] for row in found["rows"]} == {"segment", "speaker"}


def test_two_windows_at_once_corrupt_nothing(opened: Page, speech: Speech) -> None:
    from concurrent.futures import ThreadPoolExecutor

    opened.do("enrol/begin", TERMS)
    data = [wav(speech_at_48_khz(speech, 1.0 + n / 4, n)) for n in range(4)]

    def work(n: int) -> int:
        headers = opened.headers() | {"content-type": "audio/wav"}
        path = f"/do/enrol/take/{n % 3}" if n % 2 else "/do/enrol/challenge"
        if n % 2:
            return opened.browser.post(path, content=data[n % 4], headers=headers).status_code
        return opened.browser.post(path, json={}, headers=opened.headers()).status_code

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(work, range(16))) == {200}
    assert opened.studio.home.vault.verify().damaged == ()
    assert ADDRESS.startswith("http://127.0.0.1:")
