"""Personalising a voice of an evaluation, by the product's own code and its own defaults."""

from __future__ import annotations

import tempfile
from pathlib import Path

from chorister.client.consent import give, permit
from chorister.client.personalise import Personalised, personalise
from chorister.client.prepare import segments
from chorister.shared.privacy.ledger_file import LedgerFile, system_clock
from chorister.shared.signing import SigningKey
from chorister.shared.voice.model import VoiceModel
from chorister.shared.voice.profile import SpeakerProfile
from chorister.shared.voice.speaker import load_speaker_encoder
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.trials import Voice

# Every so many segments one is kept back, to judge the adapter by.
HELD_OUT_EVERY = 6
_CONSENT_LIFE_S = 86_400


def personalise_voice(model: VoiceModel, voice: Voice, profile: SpeakerProfile) -> Personalised:
    """Train a personal adapter on a voice's enrolment recordings.

    Whoever evaluates answers for the corpus's licence: the consent is a simulated one, and its
    ledger is thrown away with it.

    Args:
        model: changed in place; without an adapter afterwards where that would not have helped.
        voice: whose enrolment recordings are trained on, less every sixth segment.
        profile: of the voice.

    Raises:
        BadSettings: the recordings give fewer than two segments.
    """
    cut = segments(voice.enrolment)
    held_out = cut[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY] or cut[-1:]
    kept_back = {segment.name for segment in held_out}
    training = [segment for segment in cut if segment.name not in kept_back]
    now_s = system_clock()
    key = SigningKey(SimulatedRandomness(0, "evaluation", voice.name).bytes(32))
    consent = give(
        key,
        controller="evaluation",
        purposes=("training",),
        given_s=now_s,
        expires_s=now_s + _CONSENT_LIFE_S,
        jurisdiction="simulation",
    )
    with tempfile.TemporaryDirectory() as folder:
        ledger = LedgerFile(
            Path(folder) / "ledger.jsonl", owner=voice.name, federation="evaluation"
        )
        permission = permit(
            consent, "training", device=key.verify_key(), now_s=now_s, ledger=ledger
        )
    return personalise(
        model,
        training,
        held_out,
        profile,
        (),
        load_speaker_encoder(),
        permission,
        now_s=now_s,
    )
