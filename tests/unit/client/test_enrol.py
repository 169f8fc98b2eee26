"""Enrolment: what must not pass does not, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Thread

import numpy as np
import pytest
import soundfile
import soxr

from chorister.client import enrol_cli
from chorister.client.consent import ConsentRecord
from chorister.client.enrol import (
    CHALLENGE,
    CHALLENGE_TIMES,
    GAIN,
    HELD_OUT,
    TRAINING,
    Wanted,
    ask,
    enrol,
    enrolled_recordings,
    pcm_sha256,
    waiting_challenge,
)
from chorister.client.enrolment_checks import EnrolmentPolicy, EnrolmentRefused
from chorister.client.home import IDENTITY, PROFILE, STATEMENT, Home, create_home, open_home
from chorister.client.material import Segments, analyse
from chorister.client.prepare import divide, enrolment_gain, level_by, segments
from chorister.client.recogniser import Heard
from chorister.client.sealed import seal_voice, unsealed
from chorister.client.statement import Challenge, find_template
from chorister.client.vault import Vault
from chorister.shared import codec
from chorister.shared.errors import BadAudio, BadCorpus, ConsentRefused, UsageError
from chorister.shared.privacy.ledger_file import read_lines
from chorister.shared.randomness import SystemRandomness
from chorister.shared.types import FloatArray, Recording
from chorister.shared.voice.base import save_base
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import profile_from
from chorister.shared.voice.speaker import load_speaker_encoder

RATE = 16_000
NOW = 1_800_000_000
WANTED = Wanted("Anna Miller", "The Choir", ("training", "conversion"))
POLICY = EnrolmentPolicy()

pytestmark = [
    pytest.mark.skipif(find_spec("espeakng_loader") is None, reason="needs the extra 'embedded'"),
    pytest.mark.usefixtures("quick_vault"),
]


class Ears:
    """Hears what it was told to."""

    name = "ears"

    def __init__(self, text: str, digits: Sequence[int], from_s: float | None = None) -> None:
        self._heard = Heard(text, tuple(digits), from_s)

    def hear(self, samples: object, words: object, digit_words: object) -> Heard:
        return self._heard


@dataclass
class Clock:
    now_s: int = NOW

    def __call__(self) -> int:
        return self.now_s


@pytest.fixture(scope="module")
def voices() -> dict[str, list[Recording]]:
    """Two synthetic speakers, each a long statement and some sentences."""
    from chorister.simulations.embedded import SENTENCES
    from chorister.simulations.espeak import Voice, speak

    library, data = espeak()
    sentences = [
        " ".join(SENTENCES[:4]),
        *(" ".join(SENTENCES[i : i + 2]) for i in range(4, 16, 2)),
    ]
    found = {}
    for name, voice in (("anna", "gmw/en-US"), ("boris", "gmw/en-GB-x-rp+travis")):
        rate_hz, pcm = speak(Voice(voice), sentences, library, data)
        takes = [np.frombuffer(one, "<i2").astype(np.float32) / 32768.0 for one in pcm]
        found[name] = [
            Recording(in_a_room(soxr.resample(take, rate_hz, RATE)), f"{name}-{at}.wav")
            for at, take in enumerate(takes)
        ]
    return found


def espeak() -> tuple[Path, Path]:
    import espeakng_loader

    return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


def in_a_room(samples: FloatArray) -> FloatArray:
    noise = np.random.default_rng(len(samples)).normal(0, 5e-4, len(samples))
    return (samples + noise).astype(np.float32)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path: Path, clock: Clock) -> Home:
    return create_home(tmp_path / "home", "correct horse", clock=clock)


@pytest.fixture
def take_part(
    home: Home, voices: dict[str, list[Recording]], small_model: VoiceModel
) -> Iterator[Callable[..., object]]:
    """Enrols Anna with what she said and brought, or with what a test puts in its place."""

    def do(**changes: object) -> object:
        choices: dict[str, object] = {
            "wanted": WANTED,
            "statement": voices["anna"][0],
            "recordings": voices["anna"][1:],
            "challenge": None,
            "policy": POLICY,
            "digits": None,
            "text": None,
            "recogniser": ...,
            "denoise": False,
            **changes,
        }
        challenge = choices["challenge"] or ask(home, WANTED, SystemRandomness(), POLICY)
        assert isinstance(challenge, Challenge)
        ears = choices["recogniser"]
        if ears is ...:
            digits = challenge.digits if choices["digits"] is None else choices["digits"]
            text = challenge.sentence.lower() if choices["text"] is None else choices["text"]
            ears = Ears(text, digits)  # type: ignore[arg-type]
        return enrol(
            home,
            choices["wanted"],  # type: ignore[arg-type]
            choices["statement"],  # type: ignore[arg-type]
            choices["recordings"],  # type: ignore[arg-type]
            encoder=load_speaker_encoder(),
            listener=small_model,
            recogniser=ears,  # type: ignore[arg-type]
            policy=choices["policy"],  # type: ignore[arg-type]
            denoise=bool(choices["denoise"]),
            silero=False,
        )

    yield do


def kept(home: Home) -> set[str]:
    return set(home.vault.names()) - {CHALLENGE, CHALLENGE_TIMES}


def refused(take_part: Callable[..., object], home: Home, **changes: object) -> str:
    """Why, and that nothing was stored."""
    with pytest.raises(EnrolmentRefused) as caught:
        take_part(**changes)
    assert kept(home) == {IDENTITY}
    assert home.consent is None
    assert "Nothing was stored." in str(caught.value)
    for finding in caught.value.findings:
        assert finding.passed or (finding.reason and finding.advice)
    return str(caught.value)


def last_refusal(home: Home) -> str:
    entry = json.loads(list(read_lines(home.folder / "ledger.jsonl"))[-1])
    assert (entry["kind"], entry["fields"]["action"]) == ("refusal", "enrolment")
    return str(entry["fields"]["reason"])


def test_a_voice_whose_owner_said_so_is_enrolled(
    take_part: Callable[..., object], home: Home, voices: dict[str, list[Recording]]
) -> None:
    done = take_part()
    record = done.record  # type: ignore[attr-defined]
    record.check(home.device)
    assert record.statement.sha256 == pcm_sha256(voices["anna"][0].samples)
    assert (record.statement.locale, record.statement.words_checked) == ("en", True)
    named = {check.name for check in record.statement.checks}
    assert {"statement: digits", "statement: same speaker", "recordings: clipped"} <= named
    assert all(check.passed for check in record.statement.checks)
    assert "Anna" not in json.dumps(record.to_plain())
    assert done.segments > 5  # type: ignore[attr-defined]
    again = open_home(home.folder, "correct horse", clock=home.now_s)
    assert again.consent == record
    again.permit("training")
    assert not again.vault.has(CHALLENGE)
    entries = [json.loads(line) for line in read_lines(home.folder / "ledger.jsonl")]
    assert entries[1]["fields"]["action"] == "given"


def test_what_was_made_of_the_recordings_can_be_made_again_from_the_vault(
    take_part: Callable[..., object], home: Home, small_model: VoiceModel
) -> None:
    take_part()
    parts = divide(enrolled_recordings(home))
    gain = enrolment_gain(parts.enrolment)
    assert home.vault.get(GAIN) == np.array([gain], "<f8").tobytes()
    for name, part in ((TRAINING, parts.training), (HELD_OUT, parts.held_out)):
        made = analyse(segments(part, gain=gain))
        assert made.to_bytes() == home.vault.get(name)
        assert len(Segments.from_bytes(home.vault.get(name))) > 0
    own = [level_by(one, gain) for one in parts.enrolment]
    profile = profile_from(own, load_speaker_encoder(), small_model)
    assert profile.to_bytes() == home.vault.get(PROFILE)
    used = [
        {one.name for one in part} for part in (parts.enrolment, parts.training, parts.held_out)
    ]
    assert not used[0] & used[1] and not used[1] & used[2] and not used[0] & used[2]


def test_a_louder_training_recording_changes_neither_gain_nor_profile(
    take_part: Callable[..., object], home: Home, voices: dict[str, list[Recording]]
) -> None:
    own = voices["anna"][1:]
    trained_on = {one.name for one in divide(own).training}
    take_part()
    before = [home.vault.get(name) for name in (GAIN, PROFILE)]
    held_out, trained = home.vault.get(HELD_OUT), home.vault.get(TRAINING)
    changed = [
        Recording(one.samples * np.float32(0.5), one.name) if one.name in trained_on else one
        for one in own
    ]
    assert trained_on, "whole files are divided"
    take_part(recordings=changed)
    assert [home.vault.get(name) for name in (GAIN, PROFILE)] == before
    assert home.vault.get(HELD_OUT) == held_out
    assert home.vault.get(TRAINING) != trained


def test_denoising_changes_what_conditions_the_model_and_nothing_that_is_trained_on(
    take_part: Callable[..., object], home: Home
) -> None:
    take_part()
    before = {name: home.vault.get(name) for name in (GAIN, PROFILE, TRAINING, HELD_OUT)}
    take_part(denoise=True)
    after = {name: home.vault.get(name) for name in before}
    assert after[PROFILE] != before[PROFILE]
    assert {n: d for n, d in after.items() if n != PROFILE} == {
        n: d for n, d in before.items() if n != PROFILE
    }


def test_another_persons_statement_is_refused(
    take_part: Callable[..., object], home: Home, voices: dict[str, list[Recording]]
) -> None:
    reason = refused(take_part, home, statement=voices["boris"][0])
    assert "statement: same speaker" in reason
    assert "another voice than in the recordings" in reason


def test_one_recording_of_another_person_is_named(
    take_part: Callable[..., object], home: Home, voices: dict[str, list[Recording]]
) -> None:
    reason = refused(take_part, home, recordings=[*voices["anna"][1:], voices["boris"][3]])
    assert "boris-3.wav: same speaker" in reason
    assert "recordings: same speaker" in last_refusal(home)
    assert "boris" not in last_refusal(home)


def test_two_speakers_in_turn_are_refused(
    take_part: Callable[..., object], home: Home, voices: dict[str, list[Recording]]
) -> None:
    anna, boris = voices["anna"][0].samples, voices["boris"][0].samples
    at = [slice(4 * RATE * i, 4 * RATE * (i + 1)) for i in range(2)]
    turns = np.concatenate([anna[at[0]], boris[at[0]], anna[at[1]], boris[at[1]]])
    reason = refused(
        take_part, home, recordings=[*voices["anna"][1:], Recording(turns, "turns.wav")]
    )
    assert "turns.wav: one speaker throughout" in reason
    assert "two voices in turn" in reason


def test_the_right_person_with_the_wrong_digits_is_refused(
    take_part: Callable[..., object], home: Home
) -> None:
    challenge = ask(home, WANTED, SystemRandomness(), POLICY)
    absent = next(digit for digit in range(10) if digit not in challenge.digits)
    wrong = [absent] * 6
    reason = refused(take_part, home, challenge=challenge, digits=wrong)
    assert "digits that were shown were not heard" in reason
    two = [*challenge.digits[:4], *wrong[4:]]
    assert "statement: digits 4" in refused(take_part, home, challenge=challenge, digits=two)
    # An honest slip costs nothing: the challenge still waits. One misheard digit is allowed for.
    take_part(challenge=challenge, digits=[*challenge.digits[:-1], wrong[-1]])


def test_digits_by_another_voice_after_an_old_statement_are_refused(
    take_part: Callable[..., object], home: Home, voices: dict[str, list[Recording]]
) -> None:
    challenge = ask(home, WANTED, SystemRandomness(), POLICY)
    old, digits = voices["anna"][0].samples, voices["boris"][1].samples[: 3 * RATE]
    ears = Ears(challenge.sentence.lower(), challenge.digits, len(old) / RATE)
    spliced = Recording(np.concatenate([old, digits]), "statement")
    reason = refused(take_part, home, challenge=challenge, statement=spliced, recogniser=ears)
    assert "digits by the same speaker" in reason
    assert "said by another voice" in reason
    own = Recording(np.concatenate([old, voices["anna"][1].samples[: 3 * RATE]]), "statement")
    done = take_part(challenge=challenge, statement=own, recogniser=ears)
    names = {one.name for one in done.record.statement.checks}  # type: ignore[attr-defined]
    assert "statement: digits by the same speaker" in names


def test_digits_in_which_no_speech_is_found_are_refused(
    take_part: Callable[..., object], home: Home, voices: dict[str, list[Recording]]
) -> None:
    challenge = ask(home, WANTED, SystemRandomness(), POLICY)
    old = voices["anna"][0].samples
    ears = Ears(challenge.sentence.lower(), challenge.digits, len(old) / RATE)
    spliced = Recording(np.concatenate([old, np.zeros(RATE, np.float32)]), "statement")
    reason = refused(take_part, home, challenge=challenge, statement=spliced, recogniser=ears)
    assert "digits by the same speaker 0 " in reason


def test_another_sentence_is_refused(take_part: Callable[..., object], home: Home) -> None:
    reason = refused(take_part, home, text="the morning boat leaves before the fog has lifted")
    assert "statement: key words 0 " in reason
    assert "not heard: allow, recordings" in reason


@pytest.mark.parametrize("left_out", ["training", "conversion"])
def test_a_statement_that_leaves_out_a_purpose_is_refused_and_the_purpose_is_named(
    take_part: Callable[..., object], home: Home, left_out: str
) -> None:
    challenge = ask(home, WANTED, SystemRandomness(), POLICY)
    purposes = find_template("en").purposes
    (said,) = set(WANTED.purposes) - {left_out}
    shorter = replace(challenge, purposes=(said,)).sentence.lower()
    reason = refused(take_part, home, challenge=challenge, text=shorter)
    assert "statement: purposes 0 " in reason
    assert f"not heard: {purposes[left_out]}" in reason
    assert purposes[said] not in reason
    assert "key words" not in reason, "that check alone would let it pass"
    assert last_refusal(home) == "failed checks: statement: purposes"


def test_one_misheard_word_of_a_purpose_costs_nothing(
    take_part: Callable[..., object], home: Home
) -> None:
    challenge = ask(home, WANTED, SystemRandomness(), POLICY)
    misheard = challenge.sentence.lower().replace("converting", "covering")
    done = take_part(challenge=challenge, text=misheard.replace("model", "bottle"))
    figures = {one.name: one.figure for one in done.record.statement.checks}  # type: ignore[attr-defined]
    assert figures["statement: purposes"] == 0.5


def test_a_statement_is_answered_once(
    take_part: Callable[..., object], home: Home, voices: dict[str, list[Recording]]
) -> None:
    first = ask(home, WANTED, SystemRandomness(), POLICY)
    take_part(challenge=first)
    with pytest.raises(ConsentRefused, match="no challenge that waits"):
        take_part(challenge=first)
    assert last_refusal(home) == "no challenge that waits for an answer"
    # The same recording against a new challenge holds the old digits.
    second = replace(first, digits=tuple((d + 3) % 10 for d in first.digits))
    home.vault.put(CHALLENGE, second.to_bytes(), "challenge")
    with pytest.raises(EnrolmentRefused, match="digits that were shown were not heard"):
        take_part(challenge=second, digits=first.digits)
    assert last_refusal(home) == "failed checks: statement: digits"


def test_challenges_are_so_many_an_hour_answered_or_not(
    take_part: Callable[..., object], home: Home, clock: Clock
) -> None:
    policy = EnrolmentPolicy(challenges_an_hour=3)
    shown = [ask(home, WANTED, SystemRandomness(), policy)]
    clock.now_s += 600
    shown += [ask(home, WANTED, SystemRandomness(), policy) for _ in range(2)]
    for later_s in (0, 2999):
        clock.now_s = NOW + 600 + later_s
        with pytest.raises(ConsentRefused, match="at most 3 challenges an hour") as caught:
            ask(home, WANTED, SystemRandomness(), policy)
        assert f"in {-(-(3000 - later_s) // 60)} min" in str(caught.value)
    assert last_refusal(home) == "3 challenges within an hour"
    # A clock that is set back shows no further one, and the last one still waits.
    clock.now_s = NOW - 2400
    with pytest.raises(ConsentRefused, match="challenges an hour"):
        ask(home, WANTED, SystemRandomness(), policy)
    clock.now_s = NOW + 601
    take_part(challenge=shown[-1])
    with pytest.raises(ConsentRefused, match="challenges an hour"):
        ask(home, WANTED, SystemRandomness(), policy)
    clock.now_s = NOW + 3600
    ask(home, WANTED, SystemRandomness(), policy)


def test_challenges_under_a_clock_that_was_ahead_are_over_within_an_hour(
    home: Home, clock: Clock
) -> None:
    policy = EnrolmentPolicy(challenges_an_hour=3)
    clock.now_s = NOW + 400 * 86_400
    for _ in range(3):
        ask(home, WANTED, SystemRandomness(), policy)
    clock.now_s = NOW
    with pytest.raises(ConsentRefused, match=r"asked for in 60 min"):
        ask(home, WANTED, SystemRandomness(), policy)
    clock.now_s = NOW + 1800
    with pytest.raises(ConsentRefused, match=r"asked for in 30 min"):
        ask(home, WANTED, SystemRandomness(), policy)
    clock.now_s = NOW + 3600
    ask(home, WANTED, SystemRandomness(), policy)


def test_asking_on_adds_one_line_an_hour(home: Home, clock: Clock) -> None:
    policy = EnrolmentPolicy(challenges_an_hour=1)
    for hour in range(2):
        clock.now_s = NOW + 3600 * hour
        ask(home, WANTED, SystemRandomness(), policy)
        for _ in range(5):
            with pytest.raises(ConsentRefused, match="challenges an hour"):
                ask(home, WANTED, SystemRandomness(), policy)
    lines = [json.loads(line) for line in read_lines(home.folder / "ledger.jsonl")]
    assert [e["time_s"] for e in lines if e["kind"] == "refusal"] == [NOW, NOW + 3600]


def test_two_that_ask_at_once_are_counted_as_two(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = EnrolmentPolicy(challenges_an_hour=3)
    ask(home, WANTED, SystemRandomness(), policy)
    both_have_read = Barrier(2)
    get = Vault.get

    def meet(vault: Vault, name: str) -> bytes:
        found = get(vault, name)
        if name == CHALLENGE_TIMES:
            with suppress(BrokenBarrierError):
                both_have_read.wait(0.5)
        return found

    monkeypatch.setattr(Vault, "get", meet)
    asking = [Thread(target=ask, args=(home, WANTED, SystemRandomness(), policy)) for _ in range(2)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert len(codec.decode(home.vault.get(CHALLENGE_TIMES))) == 3


def test_a_challenge_that_expired_or_is_from_the_future_is_not_answered(
    take_part: Callable[..., object], home: Home, clock: Clock
) -> None:
    challenge = ask(home, WANTED, SystemRandomness(), POLICY)
    for moved, reason in ((POLICY.challenge_life_s, "expired"), (-3600, "set back")):
        clock.now_s = NOW + moved
        with pytest.raises(ConsentRefused, match=reason):
            take_part(challenge=challenge)
    assert kept(home) == {IDENTITY}


def test_a_clock_set_back_after_the_enrolment_permits_nothing(
    take_part: Callable[..., object], home: Home, clock: Clock
) -> None:
    done = take_part()
    clock.now_s = NOW - 86_400
    with pytest.raises(ConsentRefused, match="after the clock's"):
        done.home.permit("training")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "terms",
    [
        {"purposes": ("training", "conversion", "plain_export")},
        {"controller": "Somebody Else"},
        {"speaker": "Boris"},
        {"locale": "de"},
    ],
)
def test_a_statement_counts_for_the_terms_that_were_shown(
    take_part: Callable[..., object], home: Home, terms: dict[str, object]
) -> None:
    with pytest.raises(ConsentRefused, match="terms that were shown"):
        take_part(wanted=replace(WANTED, **terms))  # type: ignore[arg-type]
    assert kept(home) == {IDENTITY}


def test_without_a_recogniser_policy_decides_and_the_record_says_so(
    take_part: Callable[..., object], home: Home
) -> None:
    assert "no recogniser" in refused(take_part, home, recogniser=None)
    done = take_part(recogniser=None, policy=EnrolmentPolicy(words="if possible"))
    statement = done.record.statement  # type: ignore[attr-defined]
    assert (statement.words_checked, statement.recogniser) == (False, "")
    assert not any("digits" in check.name for check in statement.checks)


def test_without_a_statement_policy_decides_and_the_record_says_so(
    take_part: Callable[..., object], home: Home
) -> None:
    with pytest.raises(ConsentRefused, match="Consent is spoken"):
        take_part(statement=None)
    done = take_part(statement=None, policy=EnrolmentPolicy(statement="optional"))
    assert done.record.statement is None  # type: ignore[attr-defined]
    assert not home.vault.has(STATEMENT)
    with pytest.raises(BadAudio, match="comes with recordings"):
        take_part(recordings=[])


def test_bad_recordings_are_refused_each_for_its_reason(
    take_part: Callable[..., object], home: Home, voices: dict[str, list[Recording]]
) -> None:
    good = voices["anna"][1].samples
    t = np.arange(4 * RATE) / RATE
    chord = sum(np.sin(2 * np.pi * f * t) for f in (220.0, 277.2, 329.6, 440.0))
    rng = np.random.default_rng(0)
    telephone = soxr.resample(soxr.resample(good, RATE, 8000), 8000, RATE)
    bad = {
        "noise.wav": rng.normal(0, 0.1, 4 * RATE),
        "music.wav": 0.05 * chord * (1.0 + np.sin(2 * np.pi * 2.0 * t)),
        "telephone.wav": telephone,
        "clipped.wav": np.clip(8.0 * good / np.abs(good).max(), -1.0, 1.0),
        "noisy.wav": good + rng.normal(0, 0.03, len(good)),
    }
    recordings = [Recording(np.asarray(s, np.float32), name) for name, s in bad.items()]
    reason = refused(take_part, home, recordings=[*voices["anna"][1:], *recordings])
    for expected in (
        "noise.wav: speech share",
        "music.wav: same speaker",
        "telephone.wav: bandwidth",
        "clipped.wav: clipped",
        "noisy.wav: signal to noise",
    ):
        assert expected in reason
    assert "anna-1.wav: " not in reason


def test_two_seconds_are_too_little(
    take_part: Callable[..., object], home: Home, voices: dict[str, list[Recording]]
) -> None:
    short = Recording(voices["anna"][1].samples[: 2 * RATE], "short.wav")
    reason = refused(take_part, home, recordings=[short])
    assert "all recordings: speech" in reason
    reason = refused(take_part, home, statement=short)
    assert "statement: speech" in reason


def test_enrolling_again_replaces_recordings_and_consent(
    take_part: Callable[..., object], home: Home, voices: dict[str, list[Recording]]
) -> None:
    first = take_part()
    before = len(enrolled_recordings(home))
    second = take_part(recordings=voices["anna"][1:-1])
    assert len(enrolled_recordings(home)) == before - 1
    assert second.record.given_s >= first.record.given_s  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "carried"),
    [
        ({}, True),
        ({"purposes": ("conversion",)}, True),
        ({"controller": "another choir"}, False),
        ({"purposes": ("conversion", "speech", "training")}, False),
        ({"jurisdiction": "elsewhere"}, False),
    ],
)
def test_voices_pass_only_to_a_consent_that_renews_or_narrows_theirs(
    home: Home,
    voices: dict[str, list[Recording]],
    small_model: VoiceModel,
    tmp_path: Path,
    change: dict[str, object],
    carried: bool,
) -> None:
    first = replace(WANTED, purposes=("conversion", "training"))
    policy = EnrolmentPolicy(statement="optional")

    def anna(mine: Home, wanted: Wanted) -> Home:
        return enrol(
            mine, wanted, None, voices["anna"][1:], encoder=load_speaker_encoder(),
            listener=small_model, recogniser=None, policy=policy, silero=False,
        ).home  # fmt: skip

    before = anna(home, first)
    path = tmp_path / "me.voice"
    seal_voice(before, b"a voice", path, before.permit("conversion"))
    after = anna(before, replace(first, **change))  # type: ignore[arg-type]
    if carried:
        assert unsealed(after, path) == b"a voice"
    else:
        with pytest.raises(ConsentRefused, match="another one took the place of"):
            unsealed(after, path)


def test_a_disk_that_fills_on_the_way_leaves_no_consent(
    take_part: Callable[..., object], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = type(home.vault).put

    def full(self: object, name: str, data: bytes, kind: str = "other") -> None:
        if name == TRAINING:
            raise OSError(28, "No space left on device")
        put(home.vault, name, data, kind)

    monkeypatch.setattr(type(home.vault), "put", full)
    with pytest.raises(OSError, match="No space"):
        take_part()
    assert not home.vault.has("consent")
    assert waiting_challenge(home)


# The command, from end to end, with pocketsphinx hearing a synthetic voice.


@pytest.fixture
def spoken(
    voices: dict[str, list[Recording]],
    tmp_path: Path,
    passphrase_file: Path,
    small_model: VoiceModel,
) -> list[str]:
    folder = tmp_path / "me"
    folder.mkdir()
    for one in voices["anna"][1:]:
        soundfile.write(folder / one.name, one.samples, RATE)
    save_base(small_model, tmp_path / "base.safetensors")
    return [
        "--name", "Anna Miller", "--controller", "the Choir",
        "--base", str(tmp_path / "base.safetensors"), str(folder),
    ]  # fmt: skip


def say_it(sentence: str, path: Path) -> None:
    from chorister.simulations.espeak import Voice, speak

    library, data = espeak()
    text, _, digits = sentence.partition(" are ")
    # This voice runs its words together; a pause between digits is what a person makes.
    slowly = f"{text} are: " + " ... ".join(f"{word}." for word in digits.rstrip(".").split(", "))
    rate_hz, (pcm,) = speak(Voice("gmw/en-US", rate_wpm=130), [slowly], library, data)
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768.0
    soundfile.write(path, in_a_room(soxr.resample(samples, rate_hz, RATE)), RATE)


@pytest.mark.slow
def test_the_command_enrols_a_voice_that_answers_its_challenge(
    spoken: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from chorister.client import statement

    monkeypatch.setattr(statement, "_draw_digits", lambda randomness: (2, 8, 5, 0, 1, 6))
    assert enrol_cli.main(["--challenge", *spoken, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    said = tmp_path / "consent.wav"
    say_it(shown["sentence"], said)
    assert enrol_cli.main(["--statement", str(said), *spoken, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["words_checked"] is True
    assert printed["recogniser"] == "pocketsphinx en-us"
    assert all(check["passed"] for check in printed["checks"])
    page = Path(printed["receipt"])
    assert page.parent == tmp_path / "vault"
    assert "Anna" not in page.read_text()
    signed = ConsentRecord.from_plain(json.loads(page.with_suffix(".json").read_text()))
    assert signed.sha256 == printed["consent_sha256"]
    # Once more: the challenge is gone.
    with pytest.raises(ConsentRefused, match="no challenge that waits"):
        enrol_cli.main(["--statement", str(said), *spoken])


@pytest.mark.parametrize(
    ("samples", "error", "reason"),
    [
        (np.zeros(4 * RATE), BadAudio, "silent"),
        (np.sign(np.sin(np.arange(4 * RATE) / 20.0)), BadAudio, "clipped"),
    ],
)
def test_a_recording_that_cannot_be_used_is_refused_before_there_is_a_vault(
    spoken: list[str], tmp_path: Path, samples: FloatArray, error: type[Exception], reason: str
) -> None:
    soundfile.write(tmp_path / "me" / "bad.wav", samples, RATE)
    with pytest.raises(error, match=reason):
        enrol_cli.main(["--statement", str(tmp_path / "me" / "anna-1.wav"), *spoken])
    assert not (tmp_path / "vault").exists()


def test_what_the_command_is_told_wrong(spoken: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no --name"):
        enrol_cli.main([])
    with pytest.raises(BadCorpus, match="must exist"):
        enrol_cli.main(["--name", "A", str(tmp_path / "nowhere")])
    with pytest.raises(UsageError, match="Choose --locale among"):
        enrol_cli.main(["--challenge", *spoken, "--locale", "xx"])
    with pytest.raises(UsageError, match="resale"):
        enrol_cli.main(["--challenge", *spoken, "--purpose", "resale"])
