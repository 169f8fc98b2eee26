import json
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from chorister.client import convert_cli, home
from chorister.client.consent import give, narrow, renew
from chorister.client.sealed import (
    MAGIC,
    announce_plain,
    exported,
    is_sealed,
    open_any_voice,
    open_sealed,
    read_head,
    seal_voice,
)
from chorister.client.vault_index import VaultError
from chorister.shared.errors import BadWeights, ConsentRefused, UsageError

NOW_S, LATER_S = 1_800_000_000, 1_800_003_600
pytestmark = pytest.mark.usefixtures("quick_vault", "passphrase_file")


class Clock:
    now_s = NOW_S

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def a_home(folder, clock, purposes=("conversion", "speech")):
    mine = home.create_home(folder, "correct horse", clock=clock)
    return mine.keep_consent(consent_of(mine, purposes), "given")


def consent_of(mine, purposes, given_s=NOW_S, expires_s=LATER_S):
    return give(
        mine.key, controller="me", purposes=purposes, given_s=given_s, expires_s=expires_s,
        jurisdiction="EU",
    )  # fmt: skip


@pytest.fixture
def mine(tmp_path, clock):
    return a_home(tmp_path / "vault", clock)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "me.voice"


@pytest.fixture
def made(mine, path, voice_path):
    return seal_voice(mine, voice_path.read_bytes(), path, mine.permit("conversion"))


def reasons(mine):
    lines = (mine.folder / "ledger.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [e["fields"]["reason"] for e in entries if e["kind"] == "refusal"]


def test_a_sealed_voice_says_little_and_holds_nothing_readable(made, mine, path):
    head = read_head(path)
    assert (head.vault, head.target) == (mine.vault.id, mine.device.name)
    assert (head.consent_sha256, head.expires_s) == (mine.consent.sha256, LATER_S)
    data = path.read_bytes()
    assert b"onnx" not in data
    assert b"source_mel_mean" not in data
    assert path.stat().st_mode & 0o077 == 0
    assert "key" not in repr(made)


def test_its_own_vault_opens_it_and_the_ledger_says_so(made, mine, path):
    voice = open_sealed(mine, path)
    assert len(voice.run(np.zeros(3200, np.float32)).samples) == 3200
    last = json.loads((mine.folder / "ledger.jsonl").read_text().splitlines()[-1])
    assert (last["kind"], last["fields"]["voice"]) == ("conversion", made.sha256)


def test_after_the_consents_end_it_is_refused_even_if_the_clock_goes_back(made, mine, path, clock):
    clock.now_s = LATER_S
    with pytest.raises(ConsentRefused, match="expired"):
        open_sealed(mine, path)
    clock.now_s = LATER_S - 400
    with pytest.raises(ConsentRefused, match="clock was set back"):
        open_sealed(mine, path)
    assert len(reasons(mine)) == 2


def test_another_vault_does_not_open_it(made, mine, path, tmp_path, clock):
    other = a_home(tmp_path / "other", clock)
    with pytest.raises(ConsentRefused, match=f"vault {mine.vault.id}"):
        open_sealed(other, path)
    # Nor one that was told that the voice is its own.
    other.vault.put(f"voice-{made.voice}", mine.vault.get(f"voice-{made.voice}"), "voice")
    path.write_bytes(path.read_bytes().replace(mine.vault.id.encode(), other.vault.id.encode()))
    with pytest.raises(ConsentRefused, match="another one took the place of"):
        open_sealed(other, path)
    assert len(reasons(other)) == 2


def test_without_its_key_every_copy_is_noise(made, mine, path):
    mine.vault.delete(f"voice-{made.voice}")
    with pytest.raises(ConsentRefused, match="no longer in the vault"):
        open_sealed(mine, path)


def test_a_consent_without_conversion_opens_nothing(made, mine, path, clock):
    clock.now_s += 1
    record = narrow(mine.consent, mine.key, purposes=["speech"], now_s=clock.now_s)
    narrowed = mine.keep_consent(record, "narrowed")
    with pytest.raises(ConsentRefused, match="covers speech only"):
        open_sealed(narrowed, path)
    open_sealed(narrowed, path, purpose="speech")


def test_a_renewed_consent_carries_its_voices_and_a_new_one_does_not(made, mine, path, clock):
    clock.now_s = LATER_S - 1
    record = consent_of(mine, ["conversion"], LATER_S - 1, LATER_S + 100)
    with pytest.raises(ConsentRefused, match="another one took the place of"):
        open_sealed(mine.keep_consent(record, "given"), path)
    record = renew(mine.consent, mine.key, given_s=LATER_S - 1, expires_s=LATER_S + 100)
    renewed = mine.keep_consent(record, "renewed")
    clock.now_s = LATER_S + 1
    open_sealed(renewed, path)
    assert exported(renewed)[0].expires_s == LATER_S + 100


@pytest.mark.parametrize("where", [len(MAGIC) + 8, 300, -1])
def test_an_altered_file_is_refused(made, mine, path, where):
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises((BadWeights, ConsentRefused)):
        open_sealed(mine, path)


@pytest.mark.parametrize("kept", [0, 10, len(MAGIC), len(MAGIC) + 2, 100, 5000])
def test_a_file_that_was_cut_off_is_refused(made, mine, path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadWeights):
        open_sealed(mine, path)


def test_sealing_needs_a_permit_for_it_and_a_place(mine, tmp_path):
    with pytest.raises(ConsentRefused, match="for 'conversion'"):
        seal_voice(mine, b"x", tmp_path / "v.voice", mine.permit("speech"))
    with pytest.raises(UsageError, match="must be writable"):
        seal_voice(mine, b"x", tmp_path / "none" / "v.voice", mine.permit("conversion"))
    with pytest.raises(ConsentRefused, match="plain_export"):
        announce_plain(mine, tmp_path / "v.onnx", mine.permit("conversion"))
    assert not (tmp_path / "v.voice").exists()


def test_plain_files_open_as_they_are_and_missing_ones_are_said(voice_path, tmp_path, path):
    options = Namespace(vault=tmp_path / "none", passphrase_file=None)
    assert not is_sealed(voice_path)
    assert open_any_voice(voice_path, options).card.target == "somebody"
    with pytest.raises(BadWeights, match="must exist"):
        open_any_voice(tmp_path / "no.voice", options)
    with pytest.raises(BadWeights, match="must exist"):
        read_head(tmp_path / "no.voice")


def test_convert_opens_it_with_the_vault_and_not_without(tmp_path, voice_path, speech, monkeypatch):
    mine = home.create_home(tmp_path / "vault", "correct horse")
    now_s = mine.now_s()
    mine = mine.keep_consent(consent_of(mine, ["conversion"], now_s, now_s + 3600), "given")
    sealed = tmp_path / "me.voice"
    seal_voice(mine, voice_path.read_bytes(), sealed, mine.permit("conversion"))
    soundfile.write(tmp_path / "in.wav", speech(1.0, 1), 16_000)
    arguments = [str(tmp_path / "in.wav"), str(tmp_path / "out.wav"), "--voice", str(sealed)]
    assert convert_cli.main([*arguments, "--quiet"]) == 0
    with pytest.raises(VaultError, match="Enrol first"):
        convert_cli.main([*arguments, "--overwrite", "--vault", str(tmp_path / "none")])
    (tmp_path / "vault" / "withdrawn.json").write_text(
        json.dumps({"device_id": mine.device.name, "at_s": now_s})
    )
    with pytest.raises(ConsentRefused, match="was withdrawn at"):
        convert_cli.main([*arguments, "--overwrite"])
    assert "was withdrawn" in reasons(mine)[-1]


def test_a_listed_voice_keeps_its_key_to_itself(made):
    assert repr(replace(made, key=b"")) == f"Exported({made.voice}, plain)"
    assert made.key.hex() not in repr(made)
