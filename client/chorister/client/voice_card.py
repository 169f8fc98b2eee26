"""What a voice file says about itself, and the check that it is the file that was written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from chorister.shared.errors import BadWeights
from chorister.shared.types import SAMPLE_RATE_HZ

FORMAT = "chorister-voice"
LIVE_FORMAT = "chorister-live-voice"
# In a live voice, beside the card: how far its model looks ahead.
LOOK_AHEAD_KEY = "look_ahead_frames"
FORMAT_VERSION = 2
UNSET_SHA256 = "0" * 64
_LAYOUTS = ("shared_adapter", "personal_adapter")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RULE = (
    "A voice is a file that `chorister` exported, unchanged, in a format that this version reads."
)
_EXPORT_AGAIN = "Export it again, or copy it again from where it came."
_ADVICE = {
    FORMAT: "Name a voice.onnx that `chorister` wrote; live voices run in `chorister live`.",
    LIVE_FORMAT: "Name a live voice: `chorister personalise --live` writes one.",
}


@dataclass(frozen=True, slots=True)
class VoiceCard:
    """Where a voice file comes from; its metadata, field by field.

    Attributes:
        base_sha256: digest of the base model's weights.
        shared_adapter_sha256: digest of the shared adapter, '' for none.
        personal_adapter_sha256: digest of the personal adapter, '' for none.
        consent_sha256: the consent record that allowed the export.
        purpose: what it allowed, 'conversion' or 'plain_export'.
        target: pseudonym of the speaker whose voice it is.
        precision: in which its weights are stored, 'fp32', 'fp16' or 'int8'.
        shared_adapter: rank, placement and size of the shared adapter, '' for none.
        personal_adapter: the same of the personal adapter.
    """

    base_sha256: str
    shared_adapter_sha256: str
    personal_adapter_sha256: str
    consent_sha256: str
    purpose: str
    target: str
    precision: str = "fp32"
    shared_adapter: str = ""
    personal_adapter: str = ""

    def to_metadata(self, kind: str = FORMAT) -> dict[str, str]:
        """The card as the strings of an ONNX file, with a place for the file's digest.

        Args:
            kind: the file's format.
        """
        own = {field.name: str(getattr(self, field.name)) for field in fields(self)}
        return own | {
            "format": kind,
            "format_version": str(FORMAT_VERSION),
            "sample_rate_hz": str(SAMPLE_RATE_HZ),
            "sha256": UNSET_SHA256,
        }


def seal_digest(unsealed: bytes) -> bytes:
    """Writes the digest of a file into it, at the place that `to_metadata` left.

    The digest is SHA-256 of the file with 64 zeros at that place.
    """
    digest = hashlib.sha256(unsealed).hexdigest()
    return unsealed.replace(UNSET_SHA256.encode(), digest.encode(), 1)


def read_card(metadata: Mapping[str, str], data: bytes, name: str, kind: str = FORMAT) -> VoiceCard:
    """Checks a voice file against its own metadata.

    Args:
        metadata: of the file, as the runtime read it.
        data: the whole file.
        name: what to call it in errors.
        kind: the format that it must have.

    Raises:
        BadWeights: no such voice file, another format, missing metadata, or altered content.
    """
    if metadata.get("format") != kind:
        found = f"{name} of format {metadata.get('format', 'none')!r}, not {kind!r}"
        raise BadWeights(_RULE, found, _ADVICE.get(kind, _EXPORT_AGAIN))
    try:
        version = int(metadata["format_version"])
        if version > FORMAT_VERSION:
            raise BadWeights(_RULE, f"{name} of newer format {version}", "Update the package.")
        if version < FORMAT_VERSION:
            raise BadWeights(_RULE, f"{name} of older format {version}", "Export it again.")
        rate_hz = int(metadata["sample_rate_hz"])
        # Files from before do not say how their adapters are laid out.
        told = dict.fromkeys(_LAYOUTS, "") | dict(metadata)
        card = VoiceCard(**{field.name: told[field.name] for field in fields(VoiceCard)})
        digest = metadata["sha256"]
    except (KeyError, ValueError) as error:
        found = f"{name} with damaged metadata ({error})"
        raise BadWeights(_RULE, found, _EXPORT_AGAIN) from error
    if rate_hz != SAMPLE_RATE_HZ:
        raise BadWeights(_RULE, f"{name} for {rate_hz} Hz, not {SAMPLE_RATE_HZ}", _EXPORT_AGAIN)
    digests = (card.base_sha256, card.consent_sha256, digest)
    unsealed = data.replace(digest.encode(), UNSET_SHA256.encode(), 1)
    sound = all(_DIGEST.fullmatch(text) for text in digests)
    if not sound or hashlib.sha256(unsealed).hexdigest() != digest:
        raise BadWeights(_RULE, f"{name} with a wrong digest", _EXPORT_AGAIN)
    return card
