"""One voice from its first word to its end: enrol, join, personalise, convert, withdraw, refused.

The speaker is a synthesiser, so that it can say the digits of the moment; everything else is what
`chorister` runs on a laptop, an authority's desk and a server.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from chorister.client import statement
from chorister.shared.errors import ConsentRefused
from chorister.shared.privacy.ledger import verify
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.signing import VerifyKey

espeak = pytest.importorskip("espeakng_loader", reason="needs the extra 'embedded'")
pytest.importorskip("pocketsphinx", reason="hears the statement's words")

NAME = ["--name", "Anna Miller", "--controller", "The Choir"]
MODULES = {
    "enrol": "chorister.client.enrol_cli",
    "membership": "chorister.client.membership_cli",
    "authority": "chorister.server.authority_cli",
    "personalise": "chorister.client.personalise_cli",
    "convert": "chorister.client.convert_cli",
    "consent": "chorister.client.consent_cli",
    "vault": "chorister.client.vault_cli",
}


class Laptop:
    """A folder to work in, and the commands; each is called as the entry point calls it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def run(self, command: str, *arguments: str | Path) -> dict[str, Any]:
        """Run a command of Chorister and return the JSON that it prints."""
        module = importlib.import_module(MODULES[command])
        self._capsys.readouterr()
        assert module.main([*map(str, arguments), "--json"]) == 0
        found: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return found

    def say(self, sentences: tuple[str, ...], where: Path) -> list[Path]:
        """Have the synthesiser say sentences in one voice, with a room's quiet around them."""
        from chorister.simulations.espeak import Voice, speak

        library, data = Path(espeak.get_library_path()), Path(espeak.get_data_path())
        rate_hz, spoken = speak(Voice("gmw/en-US", rate_wpm=150), sentences, library, data)
        rng, paths = np.random.default_rng(0), []
        where.mkdir(exist_ok=True)
        for number, block in enumerate(spoken):
            samples = np.frombuffer(block, "<i2") / 32768
            quiet = np.zeros(rate_hz // 3)
            whole = 0.5 * np.concatenate([quiet, samples, quiet])
            paths.append(where / f"{number}.wav")
            soundfile.write(paths[-1], whole + 1e-4 * rng.standard_normal(len(whole)), rate_hz)
        return paths


@pytest.fixture
def laptop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Laptop:
    (tmp_path / "passphrase").write_text("correct horse battery\n")
    monkeypatch.setenv("CHORISTER_VAULT", str(tmp_path / "vault"))
    monkeypatch.setenv("CHORISTER_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    # No test cuts the power: what a killed process wrote, the next one reads without it.
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    # The recogniser does not hear every six digits of a synthesiser: always the same ones here.
    monkeypatch.setattr(statement, "_draw_digits", lambda randomness: (2, 8, 5, 0, 1, 6))
    return Laptop(tmp_path, capsys)


def test_the_life_of_a_voice(laptop: Laptop, passage: tuple[str, ...]) -> None:
    run, at = laptop.run, laptop.folder
    desk = ("--folder", at / "desk")

    # Enrol: a sentence with the digits of the moment, spoken; recordings beside it.
    shown = run("enrol", "--challenge", *NAME)
    (spoken,) = laptop.say((shown["sentence"],), at / "statement")
    recordings = laptop.say(passage, at / "recordings")
    enrolled = run("enrol", *NAME, "--statement", spoken, at / "recordings")
    assert enrolled["words_checked"]
    assert enrolled["purposes"] == ["conversion", "training"]
    with pytest.raises(ConsentRefused, match="each challenge is answered once"):
        run("enrol", *NAME, "--statement", spoken, at / "recordings")

    # Join: a token, a proof, a certificate; the token is good once, and no name is in any of it.
    authority = run("authority", "init", "--federation", "The Choir", *desk)
    token = run("authority", "token", *desk)["token"]
    asked = run("membership", "request", token, "--out", at / "request")
    run("authority", "approve", at / "request", "--out", at / "certificate", *desk)
    run("membership", "accept", at / "certificate")
    assert run("authority", "list", *desk)["devices"][0]["device_id"] == asked["device"]
    assert run("authority", "approve", at / "request", "--out", at / "again", *desk)["again"]
    assert (at / "again").read_bytes() == (at / "certificate").read_bytes()
    for path in (at / "request", at / "certificate", at / "desk" / "authority.db"):
        assert b"Anna" not in path.read_bytes()

    # Personalise and convert: the voice file opens with the vault.
    made = run("personalise", "--out", at / "me.voice", "--steps", "4")
    assert made["form"] == "sealed"
    convert = ("convert", recordings[0], at / "as-me.wav", "--voice", at / "me.voice")
    assert run(*convert)["seconds"] == pytest.approx(
        soundfile.info(recordings[0]).duration, abs=0.05
    )

    # Narrow: training is over, conversion goes on.
    assert run("consent", "narrow", "--purpose", "conversion")["action"] == "narrowed"
    with pytest.raises(ConsentRefused, match="covers conversion only"):
        run("personalise", "--out", at / "more.voice")
    run(*convert, "--overwrite")

    # Withdraw: nothing is left that opens, and the receipt says what stays.
    (at / "copy.voice").write_bytes((at / "me.voice").read_bytes())
    done = run("consent", "withdraw", "--yes")
    assert not (at / "me.voice").exists()
    receipt = json.loads(Path(done["receipt"]).read_text())
    assert receipt["device"] == asked["device"]
    assert list(receipt["told"]) == ["The Choir"]
    assert "nothing of it was ever sent" in " ".join(receipt["cannot_be_undone"])

    # Refused, with its reason, and on the record.
    for again in (
        ("convert", recordings[0], at / "b.wav", "--voice", at / "copy.voice"),
        ("personalise", "--out", at / "more.voice"),
        ("membership", "request", token, "--out", at / "request2"),
    ):
        with pytest.raises(ConsentRefused, match="was withdrawn at"):
            run(*again)
    assert run("consent", "show")["state"] == "withdrawn"
    device = VerifyKey(bytes.fromhex(receipt["device_key"]))
    ledger = at / "vault" / "ledger.jsonl"
    assert verify(read_lines(ledger), keys=[device]).owner == device.name
    kinds = [json.loads(line)["kind"] for line in read_lines(ledger)]
    assert kinds.count("refusal") == 5  # the statement that came twice is one of them
    assert kinds.count("withdrawal") == 1

    # The server hears of it, by a notice that needs no key any more.
    _server_hears(at, Path(done["notices"][0]), authority["public_key"], device.name)


def _server_hears(at: Path, notice: Path, authority: str, device_id: str) -> None:
    from chorister.server.registry import Registry
    from chorister.server.withdrawals import Withdrawals
    from chorister.shared.privacy.ledger_file import LedgerFile

    server = Withdrawals(
        at / "withdrawals.json",
        authority=VerifyKey(bytes.fromhex(authority)),
        federation="The Choir",
        ledger=LedgerFile(at / "server.jsonl", owner="server", federation="The Choir"),
        registry=Registry(at / "adapters"),
    )
    assert server.hear(notice.read_bytes(), 0) is not None
    assert server.devices() == {device_id}
